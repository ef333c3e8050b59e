"""Films over HTTP: progress, results, cancelling, failing, and one after the other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.provenance import verify

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
websockets = pytest.importorskip("websockets.sync.client", reason="the server needs websockets")
from reenact.runtime.web.guard import MAX_SIDE  # noqa: E402

LONG = {"photo": "grace-hopper", "motion": "demo"}


def code(answer):
    return answer.status_code, answer.json()["code"]


def events(client, path):
    with client.stream("GET", f"{path}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


@pytest.fixture(scope="module")
def film(server, web, tmp_path_factory):
    """A job of a motion that was followed to its end: what was told meanwhile, and the film."""
    with server.client() as client:
        session = web.open_session(client)
        made = client.post(f"{session}/jobs", json={"photo": "grace-hopper", "motion": "nod", "crop": True})
        assert made.status_code == 202, made.text
        path = f"{session}/jobs/{made.json()['id']}"
        told = list(events(client, path))
        answer = client.get(f"{path}/file")
        client.delete(session)
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    file.write_bytes(answer.content)
    return told, answer, file


def test_progress_is_told_until_the_film_is_there(film):
    told, answer, file = film
    assert told[-1]["state"] == "done"
    running = [job for job in told if job["state"] == "running"]
    done = [job["done"] for job in running]
    assert done == sorted(done)
    assert len(set(done)) > 2
    with VideoReader(file) as reader:
        assert (reader.info.width, reader.info.height) == (512, 512)
        assert sum(1 for _ in reader) == told[-1]["done"] == told[-1]["total"]
    assert verify(file).watermark.found
    assert verify(file).statement is not None
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="reenact.mp4"'


def test_a_video_drives_a_film(film, client, session):
    video = client.post(f"{session}/videos", content=film[2].read_bytes()).json()
    assert (video["width"], video["fps"]) == (512, 30)
    wish = {"photo": "eileen-collins", "video": video["id"], "crop": True}
    job = client.post(f"{session}/jobs", json=wish).json()
    assert list(events(client, f"{session}/jobs/{job['id']}"))[-1]["state"] == "done"
    assert client.delete(f"{session}/videos/{video['id']}").status_code == 204
    assert code(client.post(f"{session}/jobs", json=wish)) == (404, "no_video")


def test_a_video_without_a_face_fails_in_words(client, session, shared_data):
    content = (shared_data / "hostile/no_face.mp4").read_bytes()
    video = client.post(f"{session}/videos", content=content).json()["id"]
    job = client.post(f"{session}/jobs", json={"photo": "grace-hopper", "video": video}).json()
    last = list(events(client, f"{session}/jobs/{job['id']}"))[-1]
    assert last["state"] == "failed"
    assert "face" in last["problem"]
    assert "/" not in last["problem"]
    assert code(client.get(f"{session}/jobs/{job['id']}/file")) == (409, "not_ready")


def test_jobs_wait_for_their_turn_and_can_be_cancelled(server, client, session, web):
    """Whoever they belong to; a cancelled one gives its turn to the next at once."""
    other = web.open_session(client)
    wish = {"photo": "grace-hopper", "motion": "demo"}
    first = f"{session}/jobs/{client.post(f'{session}/jobs', json=wish).json()['id']}"
    second = f"{other}/jobs/{client.post(f'{other}/jobs', json=wish).json()['id']}"
    web.wait_for(lambda: client.get(first).json()["state"] == "running", "the first job to run")
    assert client.get(second).json()["state"] == "waiting"
    assert "reenact_jobs_waiting 1" in client.get("/metrics").text
    assert client.delete(first).status_code == 204
    web.wait_for(lambda: client.get(second).json()["state"] == "running", "the second job to run")
    began = time.monotonic()
    client.delete(other)
    assert time.monotonic() - began < 5, "closing a session does not wait for its job's end"
    assert code(client.get(first)) == (404, "no_job")
    assert client.get(f"{session}/jobs").json() == []


def test_a_process_that_dies_is_told(client, session, web, server):
    job = client.post(f"{session}/jobs", json={"photo": "grace-hopper", "motion": "demo"}).json()
    path = f"{session}/jobs/{job['id']}"
    web.wait_for(lambda: client.get(path).json()["state"] == "running", "the job to run")

    def workers():
        lines = {stat.parent.name: stat.read_bytes() for stat in Path("/proc").glob("[0-9]*/cmdline")}
        return [int(pid) for pid, line in lines.items() if b"reenact.runtime.web.worker" in line]

    for pid in web.wait_for(workers, "its process"):
        os.kill(pid, signal.SIGKILL)
    last = list(events(client, path))[-1]
    assert last["state"] == "failed"
    assert "memory" in last["problem"]


@pytest.mark.parametrize(
    "wish",
    [
        {"photo": "grace-hopper"},
        {"photo": "grace-hopper", "motion": "nod", "video": "x"},
        {"photo": "grace-hopper", "motion": "../../etc/passwd.json"},
        {"photo": "grace-hopper", "motion": "nod", "pose_strength": 9},
        {"photo": "grace-hopper", "motion": "nod", "output": "/srv/x.mp4"},
        {"motion": "nod"},
        {"photo": "grace-hopper", "motion": "nod", "system": 5},
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(client, session, wish):
    assert code(client.post(f"{session}/jobs", json=wish)) == (422, "invalid")


def test_jobs_of_a_session_are_counted(serve, web):
    with serve(jobs=1) as running, running.client() as client:
        session = web.open_session(client)
        wish = {"photo": "grace-hopper", "motion": "nod"}
        assert client.post(f"{session}/jobs", json=wish).status_code == 202
        assert code(client.post(f"{session}/jobs", json=wish)) == (409, "too_many")


def test_films_of_a_page_that_is_gone_are_cancelled_and_its_place_is_free(serve, web):
    with serve(sessions=1, reconnect_seconds=0.5) as running, running.client() as client:
        session = web.open_session(client)
        job = f"{session}/jobs/" + client.post(f"{session}/jobs", json=LONG).json()["id"]
        with websockets.connect(f"ws://127.0.0.1:{running.port}{session}/live") as line:
            line.recv(timeout=10)
            web.wait_for(lambda: client.get(job).json()["state"] == "running", "the job to run")
        web.wait_for(lambda: client.get("/api/health").json()["sessions"] == 0, "the session to end", 10)
        assert running.service.metrics.value("reenact_jobs_total", state="cancelled") == 1
        assert list(running.folder.iterdir()) == []


def test_a_program_may_be_silent_while_its_film_is_made(serve, web):
    with serve(sessions=1, idle_seconds=0.3) as running, running.client() as client:
        session = web.open_session(client)
        client.post(f"{session}/jobs", json=LONG)
        time.sleep(2.5)
        assert len(running.service.sessions) == 1
        jobs = next(iter(running.service.sessions._sessions.values())).jobs
        running.run(jobs.close())
        web.wait_for(lambda: len(running.service.sessions) == 0, "the session to end", 10)


def test_a_film_takes_no_more_pixels_than_videos_and_kept_photos_have(server, client, session):
    """A photo as it is uploaded may have ten times as many; no video may."""
    job = client.post(f"{session}/jobs", json=LONG).json()["id"]
    wish = server.session(session).jobs._jobs[job].wish
    limits = server.service.settings.limits
    assert wish["max_pixels"] == max(limits.video_pixels, MAX_SIDE**2) < limits.photo_pixels / 9


@pytest.mark.skipif(os.name == "nt", reason="Windows has no resource limits")
@pytest.mark.parametrize(("backend", "said"), [("cpu", "no memory"), ("cuda", "memory")])
def test_a_film_takes_bounded_memory_where_no_gpu_reserves_it(backend, said):
    code = f"""
import numpy
from reenact.runtime.web import worker
worker._limit_memory({backend!r})
try:
    numpy.empty(16 << 30, numpy.uint8)  # reserved, not touched
    print("memory")
except MemoryError:
    print("no memory")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == said, done.stderr


def test_a_film_that_waits_keeps_its_photo_and_video(film, server, client, session, web, hopper_jpeg):
    """Their owner may delete them meanwhile; the film's own go when it has ended."""
    first = client.post(f"{session}/jobs", json=LONG).json()["id"]
    photo = client.post(f"{session}/photos", content=hopper_jpeg).json()["id"]
    video = client.post(f"{session}/videos", content=film[2].read_bytes()).json()["id"]
    wish = {"photo": photo, "video": video, "crop": True}
    second = client.post(f"{session}/jobs", json=wish).json()["id"]
    assert client.get(f"{session}/jobs/{second}").json()["state"] == "waiting"
    assert client.delete(f"{session}/photos/{photo}").status_code == 204
    assert client.delete(f"{session}/videos/{video}").status_code == 204
    client.delete(f"{session}/jobs/{first}")
    last = list(events(client, f"{session}/jobs/{second}"))[-1]
    assert (last["state"], last["problem"]) == ("done", None)
    folder = server.session(session).jobs._jobs[second].folder
    web.wait_for(lambda: [path.name for path in folder.iterdir()] == ["film.mp4"], "only the film to be left")


def test_where_files_cannot_be_linked_a_film_has_copies(server, client, session, hopper_jpeg, monkeypatch):
    def unsupported(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", unsupported)
    photo = client.post(f"{session}/photos", content=hopper_jpeg).json()["id"]
    job = client.post(f"{session}/jobs", json={"photo": photo, "motion": "demo"}).json()["id"]
    kept = server.session(session).jobs._jobs[job]
    assert [path.read_bytes()[:4] for path in kept.uploads] == [b"\x89PNG"]
