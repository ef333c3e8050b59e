"""Uploads: what is kept of them, and every way in which one is refused."""

import contextlib
import socket

import cv2
import numpy as np
import pytest

httpx = pytest.importorskip("httpx", reason="the server's tests need httpx, which is not installed")
pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
from reenact.runtime.media.headers import read_header  # noqa: E402
from reenact.runtime.web import security  # noqa: E402


def code(answer):
    return answer.status_code, answer.json()["code"]


def upload(client, session, content, kind="photos"):
    return client.post(f"{session}/{kind}", content=content)


def test_an_uploaded_photo_can_be_shown_and_removed(client, session, web, hopper_jpeg):
    made = upload(client, session, hopper_jpeg)
    assert made.status_code == 201
    photo = made.json()
    assert (photo["width"], photo["height"], photo["built_in"], photo["name"]) == (512, 512, False, "")
    assert [shown["id"] for shown in client.get(f"{session}/photos").json()][-1] == photo["id"]
    thumbnail = client.get(f"{session}/photos/{photo['id']}/thumbnail")
    header = read_header(thumbnail.content)
    assert (header.kind, header.width, header.height) == ("jpeg", 192, 192)  # type: ignore[union-attr]
    client.patch(f"{session}/live", json={"photo": "grace-hopper"})
    shipped = web.picture(client, session)
    client.patch(f"{session}/live", json={"photo": photo["id"]})
    assert np.abs(web.picture(client, session).astype(int) - shipped).mean() < 0.5, "it is the same photo"
    assert code(client.delete(f"{session}/photos/{photo['id']}")) == (409, "in_use")
    client.patch(f"{session}/live", json={"photo": "grace-hopper"})
    assert client.delete(f"{session}/photos/{photo['id']}").status_code == 204
    assert code(client.patch(f"{session}/live", json={"photo": photo["id"]})) == (404, "no_photo")


def test_only_pixels_are_kept_under_names_of_the_servers_own(server, client, session, hopper_jpeg):
    """What else a photo holds, such as where it was taken, goes with the upload."""
    secret = b"Exif\0\0 taken at 48.1 N 11.6 E"
    marked = hopper_jpeg[:2] + b"\xff\xfe" + (len(secret) + 2).to_bytes(2, "big") + secret + hopper_jpeg[2:]
    answer = client.post(
        f"{session}/photos",
        content=marked,
        headers={"Content-Disposition": 'attachment; filename="../../evil.jpg"'},
    )
    assert answer.status_code == 201
    files = [path for path in server.session(session).folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]
    assert not [path for path in files if "evil" in path.name or answer.json()["id"] in path.name]
    assert all(len(path.stem) == 32 for path in files)


def test_a_photo_without_a_face_is_refused_and_not_kept(server, client, session):
    folder = server.session(session).folder
    assert list(folder.iterdir()) == []
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    answer = upload(client, session, cv2.imencode(".png", noise)[1].tobytes())
    assert code(answer) == (422, "no_face")
    assert answer.json()["message"].startswith("No face found")
    assert len(client.get(f"{session}/photos").json()) == 2
    assert list(folder.iterdir()) == []


def test_what_is_no_photo_is_refused(client, session):
    assert code(upload(client, session, b"")) == (422, "unreadable")
    assert code(upload(client, session, b"<html>not found</html>")) == (415, "unknown_kind")
    assert code(upload(client, session, b"#EXTM3U\nfile:///etc/passwd\n", "videos")) == (422, "unreadable")


def test_an_upload_beyond_the_limit_is_cut_off_while_it_arrives(serve, web, hopper_jpeg):
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += 65536
            yield b"\xff" * 65536

    with serve(photo_bytes=100_000, video_bytes=100_000) as running, running.client() as client:
        session = web.open_session(client)
        for kind in ("photos", "videos"):
            sent = 0
            with contextlib.suppress(httpx.TransportError):  # cut off before the answer was read
                assert code(upload(client, session, endless(), kind)) == (413, "too_large")
            assert sent < 200_000_000
        left = [path for path in running.folder.rglob("*") if path.is_file()]
        assert left == []
        assert code(upload(client, session, b"\xff" * 5_000_000)) == (413, "too_large"), (
            "it is told, not just cut off"
        )


def test_a_body_that_nobody_wants_is_not_waited_for_long(server, monkeypatch):
    monkeypatch.setattr(security, "DISCARD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(
            b"POST /api/sessions/none/photos HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\nabc"
        )
        line.settimeout(10)
        answer = b""
        while part := line.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"connection: close" in answer.lower()


def test_an_upload_that_never_ends_is_given_up(serve, web, monkeypatch):
    monkeypatch.setattr(security, "DISCARD_SECONDS", 0.2)
    with serve(upload_seconds=0.5) as running, running.client() as client:
        session = web.open_session(client)
        with socket.create_connection(("127.0.0.1", running.port)) as slow:
            head = f"POST {session}/photos HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc"
            slow.sendall(head.encode())
            slow.settimeout(10)
            assert b"408" in slow.recv(4096).split(b"\r\n")[0]
        assert [path for path in running.folder.rglob("*") if path.is_file()] == []


def test_uploads_of_a_session_are_counted(serve, web, hopper_jpeg):
    with serve(photos=2) as running, running.client() as client:
        session = web.open_session(client)
        first = upload(client, session, hopper_jpeg).json()["id"]
        assert upload(client, session, hopper_jpeg).status_code == 201
        assert code(upload(client, session, hopper_jpeg)) == (409, "too_many")
        client.delete(f"{session}/photos/{first}")
        assert upload(client, session, hopper_jpeg).status_code == 201
        assert 'reenact_uploads_total{kind="photo",outcome="taken"} 3' in client.get("/metrics").text


def test_built_in_photos_stay(client, session):
    assert code(client.delete(f"{session}/photos/grace-hopper")) == (403, "built_in")


def test_a_body_that_is_no_upload_is_bounded(client, session):
    answer = client.patch(
        f"{session}/live",
        content=b'{"photo": "' + b"x" * 200_000,
        headers={"Content-Type": "application/json"},
    )
    assert code(answer) == (413, "too_large")
