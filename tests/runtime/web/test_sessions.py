"""Sessions: bounded, isolated, found again, and gone without a trace when their client is."""

import asyncio
import gc
import os
import socket
import threading
import time
import weakref
from pathlib import Path

import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
websockets = pytest.importorskip("websockets.sync.client", reason="the server needs websockets")
from reenact.runtime.web import live, routes  # noqa: E402


def alive():
    """Threads of sessions, each for itself: those of other tests may end at any time."""
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("reenact-") and "web-work" not in thread.name
    }


def code(answer):
    return answer.status_code, answer.json()["code"]


def test_a_session_begins_with_a_portrait_that_stands(client, session, web):
    told = client.get(session).json()
    assert told["settings"]["photo"] == "eileen-collins"
    assert told["status"]["state"] == "waiting"
    assert web.picture(client, session).shape == (384, 384, 3)


def test_the_next_one_is_told_to_wait_until_a_place_is_free(serve, web):
    with serve(sessions=2) as running, running.client() as client:
        first, _ = web.open_session(client), web.open_session(client)
        refused = client.post("/api/sessions")
        assert code(refused) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
        assert "2 places" in refused.json()["message"]
        assert 'reenact_refusals_total{reason="busy"} 1' in client.get("/metrics").text
        assert client.delete(first).status_code == 204
        web.open_session(client)


def test_a_page_that_is_gone_before_its_session_is_open_takes_no_place(serve, web, monkeypatch):
    """As one that is loaded anew at once; without a goodbye nothing else ends such a session for two minutes."""
    began, goes_on = threading.Event(), threading.Event()
    original = live.LivePortrait.start

    async def slow(self):
        await original(self)
        began.set()
        await asyncio.to_thread(goes_on.wait, 20)

    monkeypatch.setattr(live.LivePortrait, "start", slow)
    with serve(sessions=1) as running, running.client() as client:
        with socket.create_connection(("127.0.0.1", running.port)) as page:
            page.sendall(
                f"POST /api/sessions HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            assert began.wait(20)
        web.wait_for(lambda: not running.server.server_state.connections, "the server to see the page gone")
        goes_on.set()
        web.wait_for(
            lambda: running.service.metrics.value("reenact_sessions_opened_total") == 1, "the opening"
        )
        web.wait_for(lambda: len(running.service.sessions) == 0, "its place", 5)
        client.delete(web.open_session(client))


def test_the_collector_passes_over_what_was_loaded_while_it_serves(serve):
    gc.unfreeze()  # what other servers of this process keep from it
    with serve():
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def test_waiting_for_a_place_is_not_held_against_anybody(serve, web):
    with serve(sessions=1, openings_at_once=2) as running, running.client() as client:
        path = web.open_session(client)
        assert [client.post("/api/sessions").status_code for _ in range(6)] == [503] * 6
        client.delete(path)
        client.delete(web.open_session(client))
        assert code(client.post("/api/sessions")) == (429, "too_many_requests")


def test_what_one_session_has_no_other_can_see(client, session, web, hopper_jpeg):
    other = web.open_session(client)
    photo = client.post(f"{session}/photos", content=hopper_jpeg).json()["id"]
    job = client.post(f"{session}/jobs", json={"photo": "grace-hopper", "motion": "blink"}).json()["id"]
    assert photo not in {shown["id"] for shown in client.get(f"{other}/photos").json()}
    assert code(client.get(f"{other}/photos/{photo}/thumbnail")) == (404, "no_photo")
    assert code(client.patch(f"{other}/live", json={"photo": photo})) == (404, "no_photo")
    assert code(client.post(f"{other}/jobs", json={"photo": photo, "motion": "nod"})) == (404, "no_photo")
    assert code(client.get(f"{other}/jobs/{job}")) == (404, "no_job")
    assert client.get(f"{other}/jobs").json() == []
    assert client.get(f"{session}/photos/{photo}/thumbnail").status_code == 200
    client.delete(other)


def test_settings_of_one_session_change_no_other(client, session, web):
    other = web.open_session(client)
    before = web.picture(client, other)
    client.patch(f"{session}/live", json={"photo": "grace-hopper", "edits": {"smile": 1.0}})
    assert client.get(other).json()["settings"]["photo"] == "eileen-collins"
    assert (web.picture(client, other) == before).all()
    client.delete(other)


def test_closing_gives_back_threads_and_files(serve, web, hopper_jpeg):
    with serve(sessions=1) as running, running.client() as client:
        before = alive()
        path = web.open_session(client)
        client.post(f"{path}/photos", content=hopper_jpeg)
        kept = list(running.folder.iterdir())
        assert len(kept) == 1
        assert kept[0].stat().st_mode & 0o077 == 0, "nobody else may look into it"
        assert running.folder.stat().st_mode & 0o077 == 0
        assert alive() - before
        assert client.delete(path).status_code == 204
        assert list(running.folder.iterdir()) == []
        assert alive() - before == set()
        assert code(client.get(path)) == (404, "no_session")


def test_closing_gives_back_memory(server, client, web, hopper_jpeg):
    path = web.open_session(client)
    client.post(f"{path}/photos", content=hopper_jpeg)
    client.post(f"{path}/recordings")
    client.patch(f"{path}/live", json={"size": 768})
    session = server.session(path)
    held = [
        weakref.ref(thing) for thing in (session, session.live, session.live._stage.live, session.live.newest)
    ]
    del session
    client.delete(path)

    def gone():
        gc.collect()
        return all(reference() is None for reference in held)

    web.wait_for(gone, "the session, its portrait and its picture to be freed")


def test_a_session_that_nobody_asks_for_ends(serve, web):
    with serve(sessions=1, idle_seconds=1.0) as running, running.client() as client:
        path = web.open_session(client)
        web.wait_for(lambda: client.get("/api/health").json()["sessions"] == 0, "the session to end")
        assert code(client.get(path)) == (404, "no_session")
        web.open_session(client)


def test_a_client_that_vanishes_leaves_nothing_behind(serve, web):
    """The connection breaks without a goodbye: the socket is shut below the WebSocket."""
    with serve(sessions=1, reconnect_seconds=0.5) as running, running.client() as client:
        path = web.open_session(client)
        with websockets.connect(f"ws://127.0.0.1:{running.port}{path}/live") as line:
            line.recv(timeout=10)
            assert 'reenact_connections{transport="websocket"} 1' in client.get("/metrics").text
            line.socket.shutdown(socket.SHUT_RDWR)
        web.wait_for(lambda: client.get("/api/health").json()["sessions"] == 0, "the session to end")
        assert list(running.folder.iterdir()) == []
        assert 'reenact_connections{transport="websocket"} 0' in client.get("/metrics").text


def test_a_client_that_falls_silent_leaves_nothing_behind(serve, web):
    """Its connection stays, but nothing answers any more, as when a laptop is closed: the server's pings tell."""
    with serve(sessions=1, reconnect_seconds=0.5) as running, running.client() as client:
        path = web.open_session(client)
        with socket.create_connection(("127.0.0.1", running.port)) as silent:
            silent.sendall(
                f"GET {path}/live HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
            )
            assert b"101 Switching Protocols" in silent.recv(100)
            assert 'reenact_connections{transport="websocket"} 1' in client.get("/metrics").text
            web.wait_for(lambda: client.get("/api/health").json()["sessions"] == 0, "the session to end")
        assert list(running.folder.iterdir()) == []
        assert 'reenact_connections{transport="websocket"} 0' in client.get("/metrics").text


@pytest.mark.timed
def test_the_loop_answers_while_everybody_works(serve, web, hopper_jpeg):
    """Opening, uploading, registering and recording are done elsewhere: nobody's line waits for them."""
    with serve(sessions=3) as running, running.client() as client:
        lags, over = [], threading.Event()

        async def watch():
            while not over.is_set():
                began = time.perf_counter()
                await asyncio.sleep(0.01)
                lags.append(time.perf_counter() - began - 0.01)

        watching = asyncio.run_coroutine_threadsafe(watch(), running.loop)
        for _ in range(3):
            path = web.open_session(client)
            client.get("/api/capabilities")
            client.post(f"{path}/photos", content=hopper_jpeg)
            client.post(f"{path}/recordings")
            for size in (256, 768):
                client.patch(f"{path}/live", json={"size": size})
            client.delete(path)
        over.set()
        watching.result(10)
        assert len(lags) > 50
        assert sorted(lags)[int(0.95 * len(lags))] < 0.1, "seconds"
        blocked = sum(lag for lag in lags if lag > 0.05)
        assert blocked < 0.3 * sum(lags, 0.01 * len(lags)), "what is left is who else uses this machine"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_sessions_that_come_and_go_leave_no_memory_behind(serve, web, hopper_jpeg):
    """The first ones warm caches up; the others must not add to what they took."""

    def visit(client):
        path = web.open_session(client)
        client.post(f"{path}/photos", content=hopper_jpeg)
        client.patch(f"{path}/live", json={"photo": "grace-hopper", "size": 768})
        client.delete(path)

    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    with serve(sessions=1) as running, running.client() as client:
        for _ in range(6):
            visit(client)
        before = resident()
        for _ in range(8):
            visit(client)
        assert resident() - before < 60, "MB; one session holds about 12, eight that stayed 96"


def test_a_page_that_comes_back_in_time_finds_its_session(serve, web):
    with serve(sessions=1, reconnect_seconds=30.0) as running, running.client() as client:
        path = web.open_session(client)
        client.patch(f"{path}/live", json={"photo": "grace-hopper"})
        for _ in range(2):
            with websockets.connect(f"ws://127.0.0.1:{running.port}{path}/live") as line:
                line.recv(timeout=10)
        assert client.get(path).json()["settings"]["photo"] == "grace-hopper"


def test_a_page_that_nobody_uses_is_told_and_its_place_given_free(serve, web):
    with serve(sessions=1, unused_seconds=1.0) as running, running.client() as client:
        path = web.open_session(client)
        with websockets.connect(f"ws://127.0.0.1:{running.port}{path}/live") as line:
            messages = []
            web.wait_for(
                lambda: messages.append(line.recv(timeout=10)) or '"ended"' in messages[-1],  # type: ignore[func-returns-value]
                "the end",
            )
            assert '"unused":true' in messages[-1].replace(" ", "")
        web.wait_for(lambda: client.post("/api/sessions").status_code == 201, "its place")


def test_a_stopped_server_leaves_no_folder_and_no_thread(serve, web):
    before = alive()
    with serve(sessions=2) as running, running.client() as client:
        web.open_session(client)
        folder = running.folder
        assert folder.is_dir()
        assert alive() - before
    assert not folder.exists()
    assert alive() - before == set()


def test_what_a_route_is_given_is_looked_up_on_the_loop():
    """In a thread a session could end between that and its use."""
    assert asyncio.iscoroutinefunction(routes.of_session)
    assert asyncio.iscoroutinefunction(routes.service_of)
