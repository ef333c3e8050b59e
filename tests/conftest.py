"""What tests of several folders share: turns, the tracker's networks, real files to try, and small made networks."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from reenact.errors import ModelError
from reenact.runtime import models
from reenact.runtime.live import Status
from reenact.runtime.meters import Percentiles


def pytest_configure(config: pytest.Config) -> None:
    """Where several workers share the cores (`pytest -n 2`), torch has a share in each of them."""
    if getattr(config.option, "numprocesses", None) and sys.platform == "win32":
        raise pytest.UsageError(
            "tests take turns by flock, which Windows does not have: run pytest without -n"
        )
    if hasattr(config, "workerinput"):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        share = cores // config.workerinput["workercount"]
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests marked `timed` run alone, whatever other workers have to do."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    folder = item.config.cache.mkdir("turns")
    with ExitStack() as turn:
        # Who waits to be alone holds "next", so that no other test starts in the meantime.
        with _locked(folder / "next"):
            turn.enter_context(_locked(folder / "running", shared=not item.get_closest_marker("timed")))
        return (yield)


@contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # also where a child still has the file open


@pytest.fixture(scope="session")
def made_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder by its name and by what fills it, which is asked once, however many workers need it."""
    base = tmp_path_factory.getbasetemp()
    several = hasattr(request.config, "workerinput")
    if several:
        base = base.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        with _locked(base / f"{name}.lock") if several else nullcontext():
            if not (base / name).exists():
                folder = tmp_path_factory.mktemp(name)
                make(folder)
                folder.rename(base / name)
        return base / name

    return once


@pytest.fixture(scope="session")
def models_home() -> Path:
    """The user's own cache with all networks of the tracker in it; fetched once, skipped without network."""
    if not all(model.verified for model in models.list_models()):
        try:
            models.pull()
        except ModelError as error:
            if "could not be downloaded" not in str(error):
                raise
            pytest.skip(str(error))
    return models.home()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos, clips and hostile files beside the repository; skipped where absent."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real and hostile files is absent")
    return folder.resolve()


@pytest.fixture
def live_status() -> Status:
    """What a live session may say of itself, every field filled."""
    return Status(
        state="live",
        photo="ready",
        photo_error=None,
        error=None,
        input_fps=30.0,
        fps=29.0,
        input_size=(640, 480),
        stages_ms={"track": 5.0, "animate": 6.25},
        latency_ms=Percentiles(20.0, 40.0, 60.0),
        drops={"frame rate": 7},
        step=1,
        degraded="at most 20 fps",
        notices=0,
        notice="",
    )


@pytest.fixture
def display() -> Iterator[str]:
    """The number of a virtual display; skipped without Xvfb."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x700x24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    yield f":{server.stdout.readline().strip()}"
    server.terminate()
    server.wait()


@pytest.fixture
def small_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("REENACT_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def rho_training_ini() -> str:
    """Face2Face-rho's settings file as released, for training."""
    return (Path(__file__).parent / "data/face2face_rho.ini").read_text()


@pytest.fixture(scope="session")
def rho_ini(rho_training_ini: str) -> str:
    """The same for running: the first part, up to what only training needs."""
    text = rho_training_ini.partition("disc_block_expansion")[0]
    changes = (
        ("isTrain = True", "isTrain = False"),
        ("phase = train", "phase = test"),
        ("= latest", "= 105"),
    )
    for training, running in changes:
        assert training in text
        text = text.replace(training, running)
    return text


@pytest.fixture(scope="session")
def rho_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Face2Face-rho's authors publish it, with weights by rule; skipped without torch."""
    pytest.importorskip("torch", reason="networks are made with torch, which is not installed")
    from reenact.reference import build
    from reenact.reference.checkpoints import save_state
    from reenact.reference.fill import fill
    from reenact.reference.golden import read_golden

    golden = read_golden(Path(__file__).parent / "goldens/face2face_rho/reenact_rule.json")
    folder = tmp_path_factory.mktemp("published")
    for name in ("rendering_net", "motion_net"):
        network = build(f"face2face_rho/{name}")
        fill(network, golden.rules(name))
        save_state(network, folder / f"105_{name}.pth")
    return folder


@pytest.fixture(scope="session")
def rho_bundle(rho_checkpoint: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The bundle of that checkpoint for pictures of side 128; skipped without torch and onnxscript."""
    pytest.importorskip("onnxscript", reason="graphs are exported with onnxscript, which is not installed")
    from reenact.export import exporter

    def make(folder: Path) -> None:
        rho = exporter("face2face_rho")
        with _one_thread():
            rho.export(rho.read_checkpoint(rho_checkpoint), 128, folder / "bundle", "made for these tests")

    return made_once("exported_rho", make) / "bundle"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two threads would wait for each other on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def deca_export(made_once: Callable[[str, Callable[[Path], None]], Path]) -> SimpleNamespace:
    """DECA's bundle of the stand-in head and small encoders that see plain heads, with the numbers of its checks.

    It has a model of skin colours; its keypoints are Face2Face-rho's as far as the 68 landmarks go. Skipped without
    torch and onnxscript.
    """
    for name in ("torch", "onnxscript"):
        pytest.importorskip(name, reason=f"graphs are exported with {name}, which is not installed")
    import torch
    from reenact.export.checkpoints import Checkpoint
    from reenact.export.deca_bundle import Files, export_files
    from reenact.reference import build, stand_in
    from reenact.reference.fill import Rules, fill

    networks = {name: build(f"deca/{name}") for name in ("e_flame", "e_detail", "d_detail")}
    for name in ("e_flame", "e_detail"):
        small = torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Conv2d(3, 2048, 1))
        networks[name].encoder = small
    plain = {"206": 7.0, "209": 3.0, "210": 3.0, "211": 3.0}  # the scale, and white light
    rules = Rules(gain={r"layers\.2\.weight": 0.01, r"layers\.2\.bias": 0.2}, add={"layers.2.bias": plain})
    for name, network in networks.items():
        fill(network.eval(), rules if name == "e_flame" else Rules())
    landmarks = stand_in.stand_in_landmarks()
    keypoints = (
        landmarks.full_lmk_faces_idx[0][RHO_LANDMARKS],
        landmarks.full_lmk_bary_coords[0][RHO_LANDMARKS].astype(np.float64),
    )
    files = Files(
        *(stand_in.stand_in_model(), landmarks, stand_in.stand_in_template(), _skin_colours()),
        keypoints=keypoints,
    )
    checkpoint = Checkpoint("deca", Path("checkpoint"), "made for these tests", networks)

    def make(folder: Path) -> None:
        with _one_thread():
            _, checked = export_files(checkpoint, files, folder / "bundle", "made for these tests")
        (folder / "checked").write_bytes(pickle.dumps(checked))

    folder = made_once("exported_deca", make)
    checked = pickle.loads((folder / "checked").read_bytes())  # noqa: S301 - written above
    return SimpleNamespace(folder=folder / "bundle", checked=checked, files=files, checkpoint=checkpoint)


def _skin_colours() -> Any:
    """Skin that is redder below, and by its first three codes lighter, more yellow, and spotted."""
    from reenact.reference.flame_files import ALBEDO_SIDE, Albedo

    row, column = np.mgrid[:ALBEDO_SIDE, :ALBEDO_SIDE].astype(np.float32) / ALBEDO_SIDE
    one = np.ones_like(row)
    spots = np.sin(40 * row) * np.sin(40 * column)
    basis = np.zeros((one.size * 3, 50), np.float32)
    for code, colours in enumerate(((one, one, one), (-one, 0 * one, 0 * one), (spots, spots, spots))):
        basis[:, code] = 0.05 * np.stack(colours, 2).ravel()
    return Albedo(np.stack([0.5 * one, 0.55 * one, 0.7 + 0.2 * row], 2).ravel(), basis)


# Which of the usual 68 landmarks is nearest to each of Face2Face-rho's 72 keypoints.
RHO_LANDMARKS = [
    *(*range(9), *range(16, 8, -1), *range(17, 36)),
    *(36, 37, 37, 38, 39, 40, 41, 41, 42, 43, 43, 44, 45, 46, 47, 47),
    *(48, 50, 49, 60, 61, 54, 52, 53, 64, 63, 51, 62, 65, 55, 56, 67, 59, 58, 66, 57),
]


@pytest.fixture(scope="session")
def scaling_graph() -> Callable[..., onnx.ModelProto]:
    """Makes a graph `y = x * factor` of (N, 3) float32; `functional` hides it in a local function."""

    def make(factor: float = 2.0, shape: Any = ("N", 3), functional: bool = False) -> onnx.ModelProto:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("reenact", 1)]
        inner = helper.make_node("Mul", ["x", "factor"], ["y"])
        function = helper.make_function("reenact", "Scale", ["x", "factor"], ["y"], [inner], opsets[:1])
        graph = helper.make_graph(
            [helper.make_node("Scale", ["x", "factor"], ["y"], domain="reenact") if functional else inner],
            "scaling",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(np.array([factor], np.float32), "factor")],
        )
        return helper.make_model(
            graph, ir_version=8, opset_imports=opsets, functions=[function] if functional else []
        )

    return make
