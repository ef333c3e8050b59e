"""The live portrait over HTTP: settings and their effect, refusals, and what stays when something is refused."""

import time
from dataclasses import replace

import numpy as np
import pytest
from reenact.errors import ReenactError
from reenact.runtime.provenance import verify
from reenact.runtime.systems.meshwarp.animator import MeshWarp

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")


def difference(a, b):
    return float(np.abs(a.astype(np.int16) - b).mean())


def test_another_photo_is_shown_at_once(client, session, web):
    before = web.picture(client, session)
    answer = client.patch(f"{session}/live", json={"photo": "grace-hopper"})
    assert answer.status_code == 200
    assert answer.json()["photo"] == "grace-hopper"
    assert difference(web.picture(client, session), before) > 20


def test_an_edit_moves_the_standing_portrait_and_rest_brings_it_back(client, session, web):
    rest = web.picture(client, session)
    client.patch(f"{session}/live", json={"edits": {"yaw": 15, "mouth_open": 0.5}})
    turned = web.picture(client, session)
    assert difference(turned, rest) > 3
    client.patch(f"{session}/live", json={"edits": {}})
    assert difference(web.picture(client, session), rest) < 0.5


def test_a_change_is_answered_with_its_own_picture_however_slow_they_are(client, web, monkeypatch):
    animate = MeshWarp.animate

    def slow(self, portrait, observation):
        time.sleep(0.6)
        return animate(self, portrait, observation)

    monkeypatch.setattr(MeshWarp, "animate", slow)
    session = web.open_session(client)  # begins with a picture of the photo, then one with the controls
    rest = web.picture(client, session)
    client.patch(f"{session}/live", json={"edits": {"yaw": 15}})
    assert difference(web.picture(client, session), rest) > 3
    client.delete(session)


def test_a_late_picture_does_not_replace_a_newer_one(client, session, server):
    live = server.session(session).live
    client.patch(f"{session}/live", json={"edits": {"yaw": 15}})
    newest = live.newest

    async def publish(late):
        live._publish(live._source, late)

    server.run(publish(replace(newest, number=newest.number - 1)))
    assert live.newest is newest
    newer = replace(newest, number=newest.number + 1)
    server.run(publish(newer))
    assert live.newest is newer


@pytest.mark.parametrize("size", [256, 512])
def test_quality_is_the_size_of_the_picture(client, session, web, size):
    client.patch(f"{session}/live", json={"size": size})
    assert web.picture(client, session).shape == (size, size, 3)


def test_the_whole_photo_can_be_shown(client, session, web):
    head = web.picture(client, session)
    client.patch(f"{session}/live", json={"whole": True})
    assert difference(web.picture(client, session), head) > 10


def test_settings_that_are_left_out_stay(client, session):
    client.patch(f"{session}/live", json={"pose_strength": 0.5, "mirror": False})
    settings = client.patch(f"{session}/live", json={"smoothing": 2.0}).json()
    assert (settings["pose_strength"], settings["mirror"], settings["smoothing"]) == (0.5, False, 2.0)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"pose_strength": 3.5}, 422, "invalid"),
        ({"pose_strength": "much"}, 422, "invalid"),
        ({"size": 300}, 422, "invalid"),
        ({"size": 4096}, 422, "invalid"),
        ({"unknown": 1}, 422, "invalid"),
        ({"edits": {"smile": 7}}, 409, "not_possible"),
        ({"edits": {"no_such_control": 0.5}}, 409, "not_possible"),
        ({"edits": {f"control{n}": 1 for n in range(101)}}, 422, "invalid"),
        ({"system": "nothing"}, 409, "not_possible"),
        ({"photo": "../../etc/passwd"}, 404, "no_photo"),
        ({"photo": "/etc/passwd"}, 404, "no_photo"),
        ([], 422, "invalid"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_nothing_changes(client, session, web, change, status, code):
    before, standing = client.get(session).json()["settings"], web.picture(client, session)
    answer = client.patch(f"{session}/live", json=change)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert client.get(session).json()["settings"] == before
    assert difference(web.picture(client, session), standing) < 0.5


def test_a_number_that_is_none_is_refused(client, session):
    answer = client.patch(
        f"{session}/live", content=b'{"edits": {"smile": NaN}}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422


def test_a_system_without_its_networks_says_so(client, session, small_home):
    systems = {system["name"]: system for system in client.get("/api/capabilities").json()["systems"]}
    assert systems["meshwarp"]["available"]
    assert not systems["face2face_rho"]["available"]
    assert "reenact export face2face_rho" in systems["face2face_rho"]["reason"]
    answer = client.patch(f"{session}/live", json={"system": "face2face_rho"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_possible")
    assert str(small_home) not in answer.text, "a path of the server is nobody's business"
    assert client.get(session).json()["settings"]["system"] == "meshwarp"


def test_a_snapshot_says_what_it_is(client, session, tmp_path):
    client.patch(f"{session}/live", json={"size": 512})
    path = tmp_path / "snapshot.png"
    path.write_bytes(client.get(f"{session}/live/picture").content)
    verdict = verify(path)
    assert verdict.watermark.found
    assert verdict.statement is not None
    assert verdict.statement.system == "meshwarp"


def test_the_pose_can_be_reset_before_any_frame_came(client, session):
    assert client.post(f"{session}/live/reset-pose").status_code == 204


def test_capabilities_tell_what_may_be_asked_for(client):
    told = client.get("/api/capabilities").json()
    assert told["sizes"] == [256, 384, 512, 768]
    assert "nod" in told["motions"]
    assert {"name": "yaw", "low": -60.0, "high": 60.0} in told["controls"]
    assert told["limits"]["photo_bytes"] > 1_000_000


def test_what_ends_the_portrait_is_told_without_paths_and_the_next_change_brings_another(
    server, client, session, web
):
    stage = server.session(session).live._stage
    stage.live.announce("/home/somebody/films/a.mp4 is there already; try it with --overwrite")
    stage.live._error = ReenactError(
        "/home/ada/.cache/reenact/engines/ab12 is damaged; try it with --backend cpu"
    )
    status = client.get(session).json()["status"]
    assert status["problem"] == "A file of the server is damaged; try it"
    assert status["notice"] == "A file of the server is there already; try it"
    client.patch(f"{session}/live", json={"photo": "grace-hopper"})
    status = client.get(session).json()["status"]
    assert (status["state"], status["problem"], status["notice"]) == ("waiting", None, "")
    assert web.picture(client, session).shape == (384, 384, 3)


def test_another_stage_has_no_problem_of_the_one_before(client, session):
    for size in (256, 512, 256):
        client.patch(f"{session}/live", json={"size": size})
        assert client.get(session).json()["status"]["problem"] is None
