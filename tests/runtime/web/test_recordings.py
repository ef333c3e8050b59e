"""The live portrait recorded on the server."""

import asyncio
import threading
import time

import pytest
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.provenance import verify

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
from reenact.runtime.web import recordings


def code(answer):
    return answer.status_code, answer.json()["code"]


def test_what_is_shown_is_recorded_at_its_own_times(client, session, web, tmp_path):
    client.patch(f"{session}/live", json={"size": 256})
    recording = client.post(f"{session}/recordings").json()
    path = f"{session}/recordings/{recording['id']}"
    assert recording["recording"]
    for yaw in range(0, 20, 2):
        client.patch(f"{session}/live", json={"edits": {"yaw": yaw}})
    assert code(client.post(f"{session}/recordings")) == (409, "recording")
    assert code(client.get(f"{path}/file")) == (409, "not_ready")
    done = client.post(f"{path}/stop").json()
    assert not done["recording"]
    assert done["frames"] >= 8
    file = tmp_path / "recorded.mp4"
    file.write_bytes(client.get(f"{path}/file").content)
    with VideoReader(file) as reader:
        frames = list(reader)
    assert len(frames) == done["frames"]
    assert frames[0].image.shape == (256, 256, 3)
    assert frames[-1].time == pytest.approx(done["seconds"], abs=0.1)
    assert abs(frames[-1].image.astype(int) - frames[0].image).mean() > 3, "the head has turned"
    verdict = verify(file)
    assert verdict.watermark.found
    assert verdict.statement is not None
    assert client.delete(path).status_code == 204
    assert code(client.get(f"{path}/file")) == (404, "no_recording")


def test_quality_may_change_while_it_is_recorded(client, session, tmp_path):
    client.patch(f"{session}/live", json={"size": 256})
    path = f"{session}/recordings/{client.post(f'{session}/recordings').json()['id']}"
    for size in (512, 256):
        client.patch(f"{session}/live", json={"size": size})
    assert client.post(f"{path}/stop").status_code == 200
    file = tmp_path / "recorded.mp4"
    file.write_bytes(client.get(f"{path}/file").content)
    with VideoReader(file) as reader:
        assert {frame.image.shape for frame in reader} == {(256, 256, 3)}


def test_recordings_are_bounded_in_number_and_length(serve, web):
    with serve(recordings=1, recording_seconds=0.3) as running, running.client() as client:
        session = web.open_session(client)
        made = client.post(f"{session}/recordings").json()["id"]
        assert client.get(f"{session}/recordings/{made}").json()["recording"]

        def ended():
            client.patch(f"{session}/live", json={"edits": {"yaw": 5}})
            return client.post(f"{session}/recordings").json()["code"] == "too_many"

        web.wait_for(ended, "the recording to end by itself")
        assert not client.get(f"{session}/recordings/{made}").json()["recording"]
        done = client.post(f"{session}/recordings/{made}/stop").json()
        assert done["frames"] > 0
        assert done["seconds"] <= 0.31
        client.delete(f"{session}/recordings/{made}")
        assert client.post(f"{session}/recordings").status_code == 201


def test_a_recording_that_goes_on_ends_with_its_session(server, client, web):
    session = web.open_session(client)
    folder = server.session(session).folder
    client.post(f"{session}/recordings")
    client.patch(f"{session}/live", json={"edits": {"yaw": 5}})
    assert client.delete(session).status_code == 204
    assert not folder.exists()


def held(monkeypatch, name):
    """Holds a step of a recording in its thread: an event for its begin, and one that lets it go on."""
    began, goes_on = threading.Event(), threading.Event()
    original = getattr(recordings, name)

    def slow(*given):
        began.set()
        assert goes_on.wait(20)
        return original(*given)

    monkeypatch.setattr(recordings, name, slow)
    return began, goes_on


def test_a_recording_that_is_stopped_while_its_file_opens_leaves_none(
    server, client, session, web, monkeypatch
):
    began, goes_on = held(monkeypatch, "_open")
    made = client.post(f"{session}/recordings").json()["id"]
    kept = server.session(session)
    recording = kept.recordings._recordings[made]
    client.patch(f"{session}/live", json={"edits": {"yaw": 5}})
    assert began.wait(20)
    answers = []
    stop = threading.Thread(target=lambda: answers.append(client.post(f"{session}/recordings/{made}/stop")))
    stop.start()
    web.wait_for(lambda: recording.task.cancelling(), "the stop")
    goes_on.set()
    stop.join(20)
    assert code(answers[0]) == (409, "nothing_recorded")
    assert not [path for path in kept.folder.rglob("*") if ".part" in path.name]
    assert not recording.sink._is_open


def test_a_recording_that_is_stopped_and_deleted_at_once_is_written_to_no_more(
    server, client, session, web, monkeypatch
):
    """However often its end is asked for, a frame that is being written comes before it."""
    made = client.post(f"{session}/recordings").json()["id"]
    kept = server.session(session).recordings
    recording = kept._recordings[made]
    web.wait_for(lambda: recording.frames, "the picture that stands")
    frames = recording.frames
    began, goes_on = held(monkeypatch, "_write")
    client.patch(f"{session}/live", json={"edits": {"yaw": 9}})
    assert began.wait(20)
    answers = []
    asked = [
        threading.Thread(target=lambda: answers.append(client.post(f"{session}/recordings/{made}/stop"))),
        threading.Thread(target=lambda: answers.append(client.delete(f"{session}/recordings/{made}"))),
    ]
    for number, thread in enumerate(asked, 1):
        thread.start()
        web.wait_for(lambda: recording.task.cancelling() == number, "it to be asked")  # noqa: B023
    time.sleep(0.1)
    assert not recording.task.done()
    assert recording.sink._is_open
    goes_on.set()
    for thread in asked:
        thread.join(20)
    assert {answer.status_code for answer in answers} == {200, 204}
    assert recording.frames == frames + 1
    assert recording.problem is None


def test_a_recording_that_is_deleted_while_its_session_ends_does_no_harm(server, web):
    with server.client() as client:
        session = web.open_session(client)
    kept = server.session(session)

    async def both():
        kept.recordings.start()
        closing = asyncio.create_task(kept.recordings.close())
        await asyncio.sleep(0)
        kept.recordings._recordings.clear()
        await closing

    server.run(both())
    server.run(server.service.sessions.close(kept))
