"""Many clients that come, send and go as they like: nobody sees others' pictures, and nothing stays."""

import asyncio
import json
import random
import threading

import cv2
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
httpx = pytest.importorskip("httpx", reason="the server's tests need httpx, which is not installed")
websockets = pytest.importorskip("websockets.asyncio.client", reason="the server needs websockets")
from reenact.runtime.web.websocket import FRAME, pack_ack, pack_frame  # noqa: E402

CLIENTS = 20
PLACES = 4
SECONDS = 6.0


class Visitor:
    """Opens a session, chooses a photo, sends frames for a while and leaves in one of several ways."""

    def __init__(self, running, number, jpeg):
        self.running, self.number, self.jpeg = running, number, jpeg
        self.chance = random.Random(number)
        self.photo = ("eileen-collins", "grace-hopper")[number % 2]
        self.served = self.turned_away = 0
        self.seen = []

    async def stay(self):
        end = asyncio.get_running_loop().time() + SECONDS
        async with httpx.AsyncClient(base_url=self.running.url, timeout=60) as client:
            await asyncio.sleep(self.chance.uniform(0, 1))
            while asyncio.get_running_loop().time() < end:
                answer = await client.post("/api/sessions")
                if answer.status_code == 503:
                    self.turned_away += 1
                    await asyncio.sleep(self.chance.uniform(0.1, 0.5))
                    continue
                assert answer.status_code == 201, answer.text
                self.served += 1
                await self.visit(client, f"/api/sessions/{answer.json()['id']}")

    async def visit(self, client, session):
        leaving = self.chance.choice(("polite", "vanish", "mid-frame", "no line"))
        if leaving == "no line":
            await client.delete(session)
            return
        change = {"photo": self.photo, "size": 256}
        assert (await client.patch(f"{session}/live", json=change)).status_code == 200
        url = f"ws://127.0.0.1:{self.running.port}{session}/live"
        async with websockets.connect(url, max_size=None) as line:
            watching = asyncio.create_task(self.watch(line))
            for number in range(self.chance.randint(3, 15)):
                await line.send(pack_frame(number, float(number), self.jpeg))
                await asyncio.sleep(0.04)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if leaving == "mid-frame":
                line.transport.write(b"\x82\xfe\x10\x00half of a fra")
            if leaving != "polite":
                line.transport.abort()
        if leaving == "polite":
            assert (await client.delete(session)).status_code in (204, 404)

    async def watch(self, line):
        async for message in line:
            if isinstance(message, str):
                assert json.loads(message)["type"] == "status"
            elif message[0] == FRAME:
                self.seen.append(message[16:])
                await line.send(pack_ack(int.from_bytes(message[4:8], "little")))


@pytest.fixture(scope="module")
def portraits(serve, web):
    """What each of the two photos looks like, in small."""
    looks = {}
    with serve(sessions=1) as running, running.client() as client:
        session = web.open_session(client)
        for photo in ("eileen-collins", "grace-hopper"):
            client.patch(f"{session}/live", json={"photo": photo, "size": 256})
            looks[photo] = small(web.picture(client, session))
    return looks


def small(image):
    return cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(float)


def test_twenty_clients_come_and_go_at_random(serve, web, hopper, portraits):
    frame = cv2.resize(hopper, (240, 240), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
    before = set(threading.enumerate())
    with serve(sessions=PLACES, reconnect_seconds=0.5) as running:
        visitors = [Visitor(running, number, jpeg) for number in range(CLIENTS)]

        async def all_of_them():
            await asyncio.gather(*(visitor.stay() for visitor in visitors))

        asyncio.run(all_of_them())
        with running.client() as client:
            web.wait_for(lambda: client.get("/api/health").json()["sessions"] == 0, "all to be gone")
            text = client.get("/metrics").text
            assert 'reenact_connections{transport="websocket"} 0' in text
            assert 'status="500"' not in text
            client.delete(web.open_session(client))
        assert list(running.folder.iterdir()) == []
    assert sum(visitor.served for visitor in visitors) >= PLACES
    assert sum(visitor.turned_away for visitor in visitors) > 0
    # One may have begun meanwhile in the server of other tests, whose executor keeps it.
    web.wait_for(lambda: len(set(threading.enumerate()) - before) <= 1, "the threads of executors to end")
    shown = 0
    for visitor in visitors:
        for content in visitor.seen:
            picture = small(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB))
            nearest = min(portraits, key=lambda photo: np.abs(portraits[photo] - picture).mean())
            assert nearest == visitor.photo, "somebody was shown the portrait of somebody else"
            shown += 1
    assert shown > CLIENTS
