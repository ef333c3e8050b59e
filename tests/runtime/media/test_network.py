"""Streams from the network: what is read, what is refused, and what is said where nothing comes."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import MappingProxyType, SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from reenact.errors import LimitError, MediaError
from reenact.runtime.media import network as module
from reenact.runtime.media.limits import Limits
from reenact.runtime.media.network import UrlInput, check_url


def taken(opened):
    """The next frame of an input that has one."""
    captured = opened.read()
    assert captured is not None
    return captured


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def jpeg(picture):
    return cv2.imencode(".jpg", picture)[1].tobytes()


def mjpeg_server(pictures):
    """A network camera as many are: JPEG after JPEG, from pictures or as bytes, then it hangs up."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for picture in pictures:
                content = picture if isinstance(picture, bytes) else jpeg(picture)
                self.wfile.write(
                    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content)
                )
                self.wfile.write(content + b"\r\n")

        def log_message(self, *_):
            pass

    return Camera


def test_a_network_camera_is_read_until_it_hangs_up():
    pictures = [np.full((48, 64, 3), 40 + 20 * number, np.uint8) for number in range(8)]
    with serving(mjpeg_server(pictures)) as address:
        opened = UrlInput(f"{address}/stream")
        shades = [round(float(taken(opened).image.mean())) for _ in pictures]
        with pytest.raises(MediaError, match=r"/stream: the stream (has ended|broke off)"):
            opened.read()
        opened.close()
    np.testing.assert_allclose(shades, [40 + 20 * number for number in range(8)], atol=3)


def test_a_truncated_picture_of_a_network_camera_is_passed_over_and_counted():
    pictures = [np.full((48, 64, 3), 40 + 20 * number, np.uint8) for number in range(8)]
    content = [jpeg(picture) for picture in pictures]
    content[2:4] = [content[2][:100], content[3][:100]]
    with serving(mjpeg_server(content)) as address:
        opened = UrlInput(f"{address}/stream")
        shades = [round(float(taken(opened).image.mean())) for _ in range(6)]
        opened.close()
    np.testing.assert_allclose(shades, [40, 60, 120, 140, 160, 180], atol=3)
    assert opened.lost == {"damaged": 2}


def test_a_network_camera_whose_pictures_are_all_damaged_is_given_up():
    content = [jpeg(np.full((48, 64, 3), 90, np.uint8))] * 3
    content += [content[0][:100]] * 40
    with serving(mjpeg_server(content)) as address:
        opened = UrlInput(f"{address}/stream")
        for _ in range(3):
            opened.read()
        with pytest.raises(MediaError, match="/stream: 30 pictures in a row cannot be decoded"):
            opened.read()
        opened.close()


def test_pictures_of_a_network_camera_are_read_up_to_the_limit_that_is_given():
    with serving(mjpeg_server([np.full((48, 64, 3), 90, np.uint8)] * 3)) as address:
        opened = UrlInput(f"{address}/stream", limits=Limits(max_pixels=64 * 48))
        assert taken(opened).image.shape == (48, 64, 3)
        opened.close()
        opened = UrlInput(f"{address}/stream", limits=Limits(max_pixels=64 * 48 - 1))
        with pytest.raises(LimitError, match="allow it with --max-pixels 3072"):
            opened.read()
        opened.close()


def test_a_film_on_a_server_is_played_at_its_own_times(film):
    path = film(5)
    with serving(partial(Quiet, directory=str(path.parent))) as address:
        opened = UrlInput(f"{address}/{path.name}")
        times = [taken(opened).time for _ in range(5)]
        assert opened.read() is None
        opened.close()
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=0.002)


def test_a_redirect_is_not_followed(film):
    path = film(3)
    with serving(partial(Quiet, directory=str(path.parent))) as elsewhere:

        class Redirect(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(302)
                self.send_header("Location", f"{elsewhere}/{path.name}")
                self.end_headers()

            def log_message(self, *_):
                pass

        with serving(Redirect) as address, pytest.raises(MediaError, match="cannot be opened"):
            UrlInput(f"{address}/film.mp4")


def test_a_playlist_is_not_followed(tmp_path, make_video, shades):
    (tmp_path / "here").mkdir()
    make_video(tmp_path / "film.ts", shades(50))
    with (
        serving(partial(Quiet, directory=str(tmp_path))) as elsewhere,
        serving(partial(Quiet, directory=str(tmp_path / "here"))) as address,
    ):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{elsewhere}/film.ts\n#EXT-X-ENDLIST\n"
        (tmp_path / "here" / "list.m3u8").write_text(playlist)
        with pytest.raises(MediaError, match="not a page or a playlist"):
            UrlInput(f"{address}/list.m3u8")


class RtspCamera(StreamRequestHandler):
    """A camera with twelve pictures of MJPEG, sent over the connection that asked for them."""

    SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=made\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
    ANSWERS = MappingProxyType(
        {
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n{SDP}",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
        }
    )

    def handle(self):
        while request := self.rfile.readline().decode().split():
            lines = iter(lambda: self.rfile.readline().decode().strip(), "")
            number = next(line for line in lines if line.startswith("CSeq"))
            list(lines)
            answer = self.ANSWERS.get(request[0], "Session: 1\r\n\r\n")
            self.wfile.write(f"RTSP/1.0 200 OK\r\n{number}\r\n{answer}".encode())
            if request[0] == "PLAY":
                self._play()
                return

    def _play(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
            packets.bind(("127.0.0.1", 0))
            packets.settimeout(0.05)
            address = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
            with av.open(address, "w", format="rtp") as output:
                stream = output.add_stream("mjpeg", rate=25, options={"huffman": "default"})
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
                for number in range(12):
                    frame = av.VideoFrame(64, 48, "yuvj420p")
                    frame.pts = number
                    output.mux(stream.encode(frame))
                    with suppress(TimeoutError):
                        while packet := packets.recv(65536):
                            self.wfile.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)


@contextmanager
def speaking(handler):
    """The address of a TCP server in this thread's neighbourhood."""
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_camera_that_speaks_rtsp_is_read_until_it_hangs_up():
    with speaking(RtspCamera) as address:
        opened = UrlInput(f"rtsp://{address}/one")
        frames = [taken(opened) for _ in range(12)]
        with pytest.raises(MediaError, match="/one: the stream has ended"):
            opened.read()
        opened.close()
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)


def test_a_camera_that_sends_on_to_another_address_is_refused_and_that_is_not_asked():
    asked: list[bytes] = []

    class Elsewhere(StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline())

    with speaking(Elsewhere) as elsewhere:

        class SendsOn(StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                location = f"rtsp://me:secret@{elsewhere}/two"
                self.wfile.write(f"RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: {location}\r\n\r\n".encode())

        message = rf"/one: it sends on to another address, .* name that one: rtsp://{elsewhere}/two$"
        with speaking(SendsOn) as address, pytest.raises(MediaError, match=message):
            UrlInput(f"rtsp://me:secret@{address}/one")
    assert asked == []


def test_the_first_question_to_a_camera_has_no_password():
    heard: list[str] = []

    class Listening(StreamRequestHandler):
        def handle(self):
            heard.extend(iter(lambda: self.rfile.readline().decode().strip(), ""))
            self.wfile.write(b"RTSP/1.0 302 Found\r\n\r\n")

    with speaking(Listening) as address, pytest.raises(MediaError, match="sends on"):
        UrlInput(f"rtsp://me:secret@{address}/one")
    assert heard == [f"DESCRIBE rtsp://{address}/one RTSP/1.0", "CSeq: 1", "Accept: application/sdp"]


class Silent(StreamRequestHandler):
    """Takes requests and says nothing."""

    def handle(self):
        while self.rfile.readline():
            pass


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_silent_server_is_told_as_one(monkeypatch, scheme):
    monkeypatch.setattr(module, "OPENING_S", 0.5)
    with (
        speaking(Silent) as address,
        pytest.raises(MediaError, match=r"/x: cannot be opened \(no answer for 0\.5 s\)"),
    ):
        UrlInput(f"{scheme}://{address}/x")


def test_a_stream_that_stalls_is_told_as_one(monkeypatch):
    monkeypatch.setattr(module, "PICTURE_S", 0.5)
    going = threading.Event()

    def pictures():
        for _ in range(8):
            yield np.full((48, 64, 3), 90, np.uint8)
        going.wait(5)

    with serving(mjpeg_server(pictures())) as address:
        opened = UrlInput(f"{address}/stream")
        with pytest.raises(MediaError, match=r"/stream: the stream broke off \(no answer for 0\.5 s\)"):
            list(iter(opened.read, None))
        opened.close()
        going.set()


def test_a_film_on_a_server_can_be_stopped_while_it_waits_for_a_frames_time(film):
    path = film(2, times=[0, 750])
    with serving(partial(Quiet, directory=str(path.parent))) as address:
        opened = UrlInput(f"{address}/{path.name}")
        opened.read()
        began = time.perf_counter()
        threading.Timer(0.1, opened.stop).start()
        opened.read()
        assert time.perf_counter() - began < 2
        opened.close()


def test_a_stream_that_nothing_can_decode_is_told_as_one_and_closed(monkeypatch):
    closed = []

    @contextmanager
    def connected(url, name, limits):
        try:
            yield SimpleNamespace(streams=SimpleNamespace(video=[SimpleNamespace(codec_context=None)]))
        finally:
            closed.append(name)

    monkeypatch.setattr(module, "_connected", connected)
    with pytest.raises(
        MediaError, match=r"^rtsp://camera.local/x: no decoder for its video; let it send H.264"
    ):
        UrlInput("rtsp://camera.local/x")
    assert closed == ["rtsp://camera.local/x"]


def test_nobody_there_is_one_clear_error():
    with pytest.raises(MediaError, match=r"rtsp://127\.0\.0\.1:9/x: cannot be opened \(Connection refused\)"):
        UrlInput("rtsp://user:secret@127.0.0.1:9/x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://camera.local/stream", "allow it with --allow-url camera.local"),
        ("http://me:secret@camera.local:81/s?token=secret", r"^http://camera.local:81/s: nothing is read"),
        ("file:///etc/passwd", "streams come by rtsp, http, https, not by 'file'"),
        ("concat://a", "not by 'concat'"),
        ("http://[::1", "is not an address"),
        ("rtsp://camera.local/a b", "is not an address .it has blanks in it"),
        ("rtsp://me:secret@camera.local/a b?token=secret", "'rtsp://camera.local/a b' is not an address"),
        ("rtsp://me:secret@[::1/a", "'.::1/a' is not an address"),
        ("rtsp://other.local:99999/x", "other.local:99999/x' is not an address .its port is no number"),
        ("rtsp://me:secret@other.local:http/x", "'other.local:http/x' is not an address .its port"),
        ("rtsp://me:secret/1@other.local/x", "'other.local/x' is not an address .*a / in a password as %2F"),
        (
            "rtsp://me:20/secret@other.local/x",
            "^other.local/x: where its host begins is not clear; .* as %2F",
        ),
        ("rtsp://me:20#secret@other.local/x", "^other.local/x: where its host begins"),
        ("rtsp://me:20?secret@other.local/x", "^other.local/x: where its host begins"),
        ("http://camera.local:80/@me/x", "^me/x: where its host begins"),
        ("rtsp://camera.local/a\r\nX: y", "is not an address .it has blanks in it"),
    ],
)
def test_addresses_are_read_only_where_allowed(url, message):
    with pytest.raises(MediaError, match=message) as refused:
        check_url(url, ["other.local"])
    assert "secret" not in str(refused.value)


def test_an_at_sign_in_the_path_of_an_allowed_host_is_no_fault():
    assert check_url("http://other.local:80/@me/x", ["other.local"]) == "http://other.local:80/@me/x"


def test_an_allowed_host_is_one_whatever_its_case():
    assert check_url("rtsp://Camera.LOCAL/s", ["camera.local"]) == "rtsp://Camera.LOCAL/s"
