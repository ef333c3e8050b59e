"""Cameras, files and streams that give frames in real time."""

import platform
import socket
import threading
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import MappingProxyType

import av
import cv2
import numpy as np
import pytest
from reenact.errors import MediaError
from reenact.runtime.media.inputs import CameraRequest, DeviceInput, FileInput, UrlInput, check_url


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def film(tmp_path, make_video, shades):
    """Makes a film of so many shades of grey, 25 a second or at `times`."""

    def make(count, **options):
        path = tmp_path / "film.mp4"
        make_video(path, shades(count), **options)
        return path

    return make


def taken(opened):
    """The next frame of an input that has one."""
    captured = opened.read()
    assert captured is not None
    return captured


class MadeCapture:
    """OpenCV's capture of a camera that knows 640x480 only."""

    def __init__(self, pictures, opened=True, stamp=0.0):
        self.pictures, self.opened, self.stamp = list(pictures), opened, stamp
        self.asked, self.released = [], False

    def isOpened(self):  # noqa: N802
        return self.opened

    def set(self, what, value):
        self.asked.append((what, value))
        return False

    def get(self, what):
        return {
            cv2.CAP_PROP_FRAME_WIDTH: 640.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
            cv2.CAP_PROP_FPS: 25.0,
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
            cv2.CAP_PROP_POS_MSEC: self.stamp * 1000,
        }[what]

    def getBackendName(self):  # noqa: N802
        return "MADE"

    def grab(self):
        return bool(self.pictures)

    def retrieve(self):
        picture = self.pictures.pop(0)
        if isinstance(picture, Exception):
            raise picture
        return picture is not None, picture

    def release(self):
        self.released = True


BLUE = np.full((4, 6, 3), (250, 20, 10), np.uint8)  # as OpenCV has it: blue first


def camera(capture, clock, request=None):
    return DeviceInput(
        0, request or CameraRequest(), name="0 (Made)", open_capture=lambda *_: capture, clock=clock
    )


def test_a_camera_is_asked_for_a_format_and_says_what_it_gives(clock):
    capture = MadeCapture([BLUE])
    opened = camera(capture, clock, CameraRequest(1920, 1080, 60.0))
    assert [what for what, _ in capture.asked][:3] == [
        cv2.CAP_PROP_FOURCC,  # first: it decides which sizes there are
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
    ]
    assert dict(capture.asked)[cv2.CAP_PROP_FPS] == 60.0
    assert opened.asked == "asked for 1920x1080, 60 fps, MJPG through MADE; it says 640x480, 25 fps, YUYV"
    without = MadeCapture([BLUE])
    camera(without, clock, CameraRequest(mjpeg=False))
    assert cv2.CAP_PROP_FOURCC not in dict(without.asked)


@pytest.mark.parametrize(
    ("system", "backend"),
    [
        ("Linux", cv2.CAP_V4L2),
        ("Windows", cv2.CAP_DSHOW),
        ("Darwin", cv2.CAP_AVFOUNDATION),
        ("FreeBSD", cv2.CAP_ANY),
    ],
)
def test_a_camera_is_opened_through_the_systems_own_interface(clock, monkeypatch, system, backend):
    monkeypatch.setattr(platform, "system", lambda: system)
    opened = []

    def open_capture(*arguments):
        opened.append(arguments)
        return MadeCapture([BLUE])

    DeviceInput("/dev/video0", CameraRequest(), name="made", open_capture=open_capture, clock=clock)
    assert opened == [("/dev/video0", backend)]


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux opens cameras by path")
def test_opencv_opens_device_paths_with_video4linux():
    assert cv2.CAP_V4L2 in cv2.videoio_registry.getStreamBackends()  # what opens names, here paths


def test_a_frame_is_rgb_and_carries_the_time_of_its_capture(clock):
    captured = camera(MadeCapture([BLUE]), clock).read()
    np.testing.assert_array_equal(captured.image[0, 0], (10, 20, 250))
    assert captured.time == 50.0
    assert camera(MadeCapture([BLUE], stamp=49.96), clock).read().time == pytest.approx(49.96)
    # Drivers that count otherwise, or from another beginning, are not believed.
    assert camera(MadeCapture([BLUE], stamp=1.0), clock).read().time == 50.0
    assert camera(MadeCapture([BLUE], stamp=50.5), clock).read().time == 50.0


def test_a_grey_camera_is_shown_in_grey(clock):
    captured = camera(MadeCapture([np.full((4, 6), 99, np.uint8)]), clock).read()
    np.testing.assert_array_equal(captured.image, np.full((4, 6, 3), 99))


def test_a_camera_that_cannot_be_opened_or_stops_says_so(clock):
    closed = MadeCapture([], opened=False)
    with pytest.raises(MediaError, match=r"camera 0 \(Made\): cannot be opened: check that it is plugged in"):
        camera(closed, clock)
    assert closed.released
    with pytest.raises(MediaError, match=r"made: cannot be opened: another program uses /dev/video0$"):
        DeviceInput(
            "/dev/video0",
            CameraRequest(),
            name="made",
            open_capture=lambda *_: MadeCapture([], opened=False),
            explain=lambda device: f"another program uses {device}",
        )
    stopping = camera(MadeCapture([BLUE]), clock)
    stopping.read()
    with pytest.raises(MediaError, match="gives no more pictures"):
        stopping.read()


def test_a_damaged_picture_is_passed_over_and_counted(clock):
    opened = camera(MadeCapture([None, cv2.error("corrupt"), BLUE, None, BLUE]), clock)
    for _ in range(2):
        np.testing.assert_array_equal(opened.read().image[0, 0], (10, 20, 250))
    assert opened.lost == {"damaged": 3}


def test_a_camera_whose_pictures_are_all_damaged_is_given_up(clock):
    opened = camera(MadeCapture([None] * 40), clock)
    with pytest.raises(MediaError, match="30 pictures in a row cannot be read; ask for another format"):
        opened.read()
    assert opened.lost == {"damaged": 30}


def stamps_read(clock, stamps):
    """What a camera lost whose pictures bear these times, read at once each."""
    capture = MadeCapture([BLUE] * len(stamps))
    opened = camera(capture, clock)
    for stamp in stamps:
        capture.stamp, clock.now = stamp, stamp + 0.01
        assert opened.read().time == pytest.approx(stamp)
    return dict(opened.lost)


def test_frames_that_the_driver_left_out_are_counted_by_the_holes_in_its_time_stamps(clock):
    number = np.arange(200)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 200)
    even = 100 + number / 30 + jitter
    assert stamps_read(clock, even) == {}
    missing = np.isin(number, [50, 90, 91, 92, 150])
    assert stamps_read(clock, even[~missing]) == {"source left out": 5}


def test_a_camera_that_slows_down_in_the_dark_has_left_nothing_out(clock):
    times = np.concatenate([np.arange(60) / 30, 2 + np.arange(60) / 15, 6 + np.arange(60) / 30])
    assert stamps_read(clock, 100 + times) == {}


def test_a_file_is_played_at_its_own_times(clock, film):
    path = film(4, times=[0, 2, 3, 10])
    opened = FileInput(path, loop=False, clock=clock, sleep=clock.sleep)
    frames = [taken(opened) for _ in range(4)]
    np.testing.assert_allclose([f.time - 50 for f in frames], np.array([0, 2, 3, 10]) / 25, atol=1e-6)
    assert [int(f.image.mean()) // 4 for f in frames] == [10, 11, 12, 13]
    assert opened.read() is None
    opened.close()


def test_a_file_goes_round_without_a_gap(clock, film):
    opened = FileInput(film(3), loop=True, clock=clock, sleep=clock.sleep)
    times = [taken(opened).time for _ in range(10)]
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
    opened.close()


def test_a_file_that_fell_behind_does_not_hurry_to_catch_up(clock, film):
    opened = FileInput(film(10), loop=False, clock=clock, sleep=clock.sleep)
    opened.read()
    clock.now += 3.0
    behind = taken(opened).time
    assert behind == pytest.approx(53.0)
    assert taken(opened).time == pytest.approx(53.04)
    opened.close()


def test_a_small_delay_is_caught_up_with(clock, film):
    opened = FileInput(film(10), loop=False, clock=clock, sleep=clock.sleep)
    opened.read()
    clock.now += 0.1
    assert [round(taken(opened).time - 50, 3) for _ in range(3)] == [0.04, 0.08, 0.12]
    opened.close()


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


def test_a_camera_that_speaks_rtsp_is_read_until_it_hangs_up():
    with ThreadingTCPServer(("127.0.0.1", 0), RtspCamera) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        opened = UrlInput(f"rtsp://127.0.0.1:{server.server_address[1]}/one")
        frames = [taken(opened) for _ in range(12)]
        with pytest.raises(MediaError, match="/one: the stream has ended"):
            opened.read()
        opened.close()
        server.shutdown()
        thread.join()
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)


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
    ],
)
def test_addresses_are_read_only_where_allowed(url, message):
    with pytest.raises(MediaError, match=message) as refused:
        check_url(url, ["other.local"])
    assert "secret" not in str(refused.value)


def test_an_allowed_host_is_one_whatever_its_case():
    assert check_url("rtsp://Camera.LOCAL/s", ["camera.local"]) == "rtsp://Camera.LOCAL/s"
