"""Frames over the WebSocket: pictures come back, nothing piles up, garbage ends the line and nothing else."""

import json
import time

import cv2
import numpy as np
import pytest
from reenact.runtime.watermark import read_mark

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
websockets = pytest.importorskip("websockets", reason="the server needs websockets")
from reenact.runtime.web import websocket  # noqa: E402
from reenact.runtime.web.websocket import ACK, FRAME, WINDOW, pack_ack, pack_frame  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

HEAD = 16


@pytest.fixture(scope="module")
def jpegs(camera_frames):
    small = [cv2.resize(frame, (320, 240), interpolation=cv2.INTER_AREA) for frame in camera_frames]
    return [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes() for frame in small]


@pytest.fixture
def line(server, session):
    with connect(f"ws://127.0.0.1:{server.port}{session}/live", max_size=None) as opened:
        yield opened


class Talk:
    """A client that keeps to the rules, and remembers what it was sent."""

    def __init__(self, line, acknowledges=True):
        self.line, self.acknowledges = line, acknowledges
        self.pictures, self.statuses, self.problems = [], [], []
        self.taken = 0

    def send(self, number, jpeg):
        self.line.send(pack_frame(number, 1000.0 + number, jpeg))

    def listen(self, seconds):
        """Take all that comes within that time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.take(self.line.recv(timeout=left))
            except TimeoutError:
                return

    def until_closed(self):
        """Take all there is; the code with which the server ended the line."""
        try:
            while True:
                self.take(self.line.recv(timeout=10))
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code

    def take(self, message):
        if isinstance(message, str):
            told = json.loads(message)
            (self.statuses if told["type"] == "status" else self.problems).append(told)
        elif message[0] == ACK:
            self.taken += 1
        else:
            assert message[0] == FRAME
            number = int.from_bytes(message[4:8], "little")
            sender_time = float(np.frombuffer(message[8:16], "<f8")[0])
            image = cv2.imdecode(np.frombuffer(message[HEAD:], np.uint8), cv2.IMREAD_COLOR_RGB)
            self.pictures.append((number, sender_time, image))
            if self.acknowledges:
                self.line.send(pack_ack(number))

    def drive(self, jpegs, until, seconds=20):
        """Send frames, one for each that was taken, until something holds."""
        end, number = time.monotonic() + seconds, 0
        while not until(self):
            assert time.monotonic() < end, "it did not come about"
            if number - self.taken < WINDOW:
                self.send(number, jpegs[number % len(jpegs)])
                number += 1
            self.listen(0.03)


def test_pictures_come_back_with_the_time_of_the_frame_behind_them(client, session, line, jpegs):
    client.patch(f"{session}/live", json={"size": 256})
    talk = Talk(line)
    talk.drive(jpegs, lambda talk: len(talk.pictures) >= 12)
    numbers = [number for number, _, _ in talk.pictures]
    times = [sender_time for _, sender_time, _ in talk.pictures]
    assert numbers == list(range(1, len(numbers) + 1))
    assert times == sorted(times)
    assert all(time >= 1000.0 and time == int(time) for time in times), "the sender's own times come back"
    assert all(image.shape == (256, 256, 3) for _, _, image in talk.pictures)
    assert read_mark(image for _, _, image in talk.pictures).found, "they are marked as AI-generated"


def test_the_portrait_moves_once_its_driver_is_known(line, jpegs):
    talk = Talk(line)
    talk.drive(jpegs, lambda talk: talk.statuses and talk.statuses[-1]["state"] == "live")
    still = talk.pictures[0][2].astype(int)
    talk.drive(jpegs, lambda talk: np.abs(talk.pictures[-1][2] - still).mean() > 2)
    status = talk.statuses[-1]
    assert status["fps"] > 0
    assert status["latency_ms"] > 0


def test_no_more_than_the_window_is_sent_to_a_client_that_does_not_answer(line, jpegs, monkeypatch):
    monkeypatch.setattr(websocket, "ACK_SECONDS", 3600.0)
    talk = Talk(line, acknowledges=False)
    talk.drive(jpegs, lambda talk: talk.taken >= 60 and len(talk.pictures) >= WINDOW)
    assert len(talk.pictures) == WINDOW
    talk.acknowledges = True
    for number, _, _ in list(talk.pictures):
        talk.line.send(pack_ack(number))
    newest = len(talk.pictures)
    talk.drive(jpegs, lambda talk: len(talk.pictures) > newest)


def test_pictures_that_are_never_acknowledged_count_as_lost_after_a_while(server, line, jpegs, monkeypatch):
    """So that a client that dropped some, as one whose camera was stopped, is shown pictures again."""
    monkeypatch.setattr(websocket, "ACK_SECONDS", 0.5)
    lost = server.service.metrics.value("reenact_drops_total", cause="never acknowledged")
    talk = Talk(line, acknowledges=False)
    talk.drive(jpegs, lambda talk: len(talk.pictures) >= 3 * WINDOW)
    assert server.service.metrics.value("reenact_drops_total", cause="never acknowledged") > lost
    assert [number for number, _, _ in talk.pictures] == list(range(1, len(talk.pictures) + 1))


def test_acknowledging_what_was_never_sent_makes_no_room(line, jpegs, monkeypatch):
    monkeypatch.setattr(websocket, "ACK_SECONDS", 3600.0)
    talk = Talk(line, acknowledges=False)
    talk.drive(jpegs, lambda talk: len(talk.pictures) >= WINDOW)
    for number in (0, 77, 2**32 - 1):
        talk.line.send(pack_ack(number))
    taken = talk.taken
    talk.drive(jpegs, lambda talk: talk.taken > taken + 20)
    assert len(talk.pictures) == WINDOW


def test_a_face_that_is_lost_is_told_and_found_again(line, jpegs):
    empty = cv2.imencode(".jpg", np.full((240, 320, 3), 90, np.uint8))[1].tobytes()
    talk = Talk(line)

    def state(wanted):
        return lambda talk: talk.statuses and talk.statuses[-1]["state"] == wanted

    talk.drive(jpegs, state("live"))
    talk.drive([empty], state("no_face"))
    made = len(talk.pictures)
    talk.drive([empty], lambda talk: len(talk.pictures) > made)
    grey = talk.pictures[-1][2].reshape(-1, 3).std(axis=0).max()
    assert grey > 20, "the portrait is shown, never the camera's frame"
    talk.drive(jpegs, state("live"))


def test_a_camera_that_stops_and_returns_with_another_size_is_followed(
    client, session, line, jpegs, camera_frames
):
    upright = [
        cv2.imencode(".jpg", cv2.cvtColor(frame[:, 140:500], cv2.COLOR_RGB2BGR))[1].tobytes()
        for frame in camera_frames
    ]
    talk = Talk(line)

    def state(wanted):
        return lambda talk: talk.statuses and talk.statuses[-1]["state"] == wanted

    talk.drive(jpegs, state("live"))
    for frames in (upright, jpegs):
        while talk.statuses[-1]["state"] != "waiting":
            talk.listen(0.5)
        made = len(talk.pictures)
        talk.drive(frames, lambda talk: len(talk.pictures) > made + 10 and state("live")(talk))  # noqa: B023
    assert {image.shape for _, _, image in talk.pictures} == {(384, 384, 3)}
    assert client.get(session).json()["status"]["problem"] is None


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"", "bad_message"),
        (b"\x07" * 100, "bad_message"),
        (b"\x01" + bytes(15), "bad_frame"),
        (pack_frame(1, 1.0, b"\xff\xd8\xff\xe0 this is no picture"), "bad_frame"),
        (pack_frame(1, 1.0, b"\x89PNG\r\n\x1a\n" + bytes(100)), "bad_frame"),
        (pack_frame(1, float("nan"), b""), "bad_frame"),
        ("text", "bad_message"),
        ('{"type": "status"}', "bad_message"),
    ],
)
def test_garbage_ends_the_line_in_words_and_not_the_session(client, session, line, garbage, code):
    talk = Talk(line)
    line.send(garbage)
    assert talk.until_closed() == 1008
    assert talk.problems[-1]["code"] == code
    assert client.get(session).status_code == 200


def test_a_frame_of_too_many_pixels_is_refused_before_it_is_decoded(client, session, line):
    large = cv2.imencode(".jpg", np.zeros((3000, 4000, 3), np.uint8))[1].tobytes()
    talk = Talk(line)
    line.send(pack_frame(1, 1.0, large))
    assert talk.until_closed() == 1008
    assert talk.problems[-1]["code"] == "too_large"


def test_frames_faster_than_anybody_can_see_are_not_looked_at(client, server, line, jpegs):
    before = server.service.metrics.value("reenact_drops_total", cause="faster than is looked at")
    talk = Talk(line)
    for number in range(100):
        talk.send(number, jpegs[0])
    while talk.taken < 100:
        talk.take(line.recv(timeout=10))
    assert server.service.metrics.value("reenact_drops_total", cause="faster than is looked at") > before


def test_a_second_line_takes_the_place_of_the_first(server, session, line):
    line.recv(timeout=10)
    with connect(f"ws://127.0.0.1:{server.port}{session}/live") as second:
        assert Talk(line).until_closed() == 1001
        assert json.loads(second.recv(timeout=10))["type"] == "status"


def test_a_session_that_is_not_there_has_no_line(server):
    with (
        pytest.raises(websockets.InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{server.port}/api/sessions/none/live"),
    ):
        pass
    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body)["code"] == "no_session"
