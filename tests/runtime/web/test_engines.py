"""Which systems can be chosen: found out off the event loop, and only once for the same files."""

import asyncio
import threading
import time

import pytest
from reenact.runtime.bundle import Bundle, Weights, write_bundle
from reenact.runtime.files import bundle_home

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
from reenact.runtime.web.engines import EnginePool
from reenact.runtime.web.refusals import Refusal
from reenact.runtime.web.settings import ServeSettings

SYSTEM = "face2face_rho"


@pytest.fixture
def bundle(small_home, scaling_graph):
    """Something that opens as a bundle of a system; nothing of it is run here."""

    def write(factor=2.0):
        write_bundle(
            bundle_home(SYSTEM),
            system=SYSTEM,
            resolution=64,
            graphs={"source": scaling_graph(factor)},
            preprocessing={},
            precision="fp32",
            weights=Weights(origin="made for this test", licence="CC0-1.0"),
        )

    return write


@pytest.fixture
def opened(monkeypatch):
    """The threads in which bundles were opened, each of which took 0.3 s."""
    threads, original = [], Bundle.open

    def slow(folder):
        if folder.is_relative_to(bundle_home(SYSTEM)):
            threads.append(threading.current_thread())
            time.sleep(0.3)
        return original(folder)

    monkeypatch.setattr(Bundle, "open", slow)
    return threads


def available(states):
    return {state.name: state.available for state in states}[SYSTEM]


@pytest.mark.timed
def test_a_bundle_is_read_once_for_all_who_ask_and_nobody_else_waits_for_it(bundle, opened):
    bundle()
    opened.clear()

    async def asking():
        pool, worst = EnginePool(ServeSettings()), 0.0
        asked = asyncio.gather(*(pool.check(SYSTEM) for _ in range(5)), *(pool.systems() for _ in range(5)))
        while not asked.done():
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            worst = max(worst, time.perf_counter() - began)
        return (await asked)[-1], worst

    states, worst = asyncio.run(asking())
    assert available(states)
    assert len(opened) == 1
    assert opened[0] is not threading.main_thread()
    assert worst < 0.25, "the loop went on meanwhile"


def test_a_bundle_that_comes_changes_or_goes_is_noticed(bundle, opened):
    async def asking():
        pool = EnginePool(ServeSettings())
        assert not available(await pool.systems())
        await asyncio.to_thread(bundle)
        assert available(await pool.systems())
        graph = bundle_home(SYSTEM) / "source.onnx"
        graph.write_bytes(graph.read_bytes() + b"\0")
        with pytest.raises(Refusal, match="reenact export"):
            await pool.check(SYSTEM)
        await asyncio.to_thread(bundle, 3.0)
        await pool.check(SYSTEM)
        (bundle_home(SYSTEM) / "manifest.json").unlink()
        assert not available(await pool.systems())

    asyncio.run(asking())


def test_a_system_that_is_none_is_refused_by_name():
    with pytest.raises(Refusal, match=r"known are .*meshwarp"):
        asyncio.run(EnginePool(ServeSettings()).check("nothing"))
