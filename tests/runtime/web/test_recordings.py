"""The live portrait recorded on the server."""

import pytest
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.provenance import verify

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")


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
    client.post(f"{session}/recordings")
    client.patch(f"{session}/live", json={"edits": {"yaw": 5}})
    assert client.delete(session).status_code == 204
    assert not [path for path in server.folder.rglob("*") if path.suffix == ".mp4" or ".part" in path.name]
