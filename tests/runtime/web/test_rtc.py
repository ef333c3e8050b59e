"""WebRTC with a real peer: pictures come back, addresses are the right ones, and bad offers end in a refusal."""

import asyncio
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reenact.runtime.watermark import read_mark

ice = pytest.importorskip("aioice.ice", reason="the server needs the extra [web], which is not installed")
aiortc = pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
av = pytest.importorskip("av")
httpx = pytest.importorskip("httpx", reason="the server's tests need httpx, which is not installed")
from aiortc.codecs import vpx  # noqa: E402
from reenact.runtime.web import rtc  # noqa: E402
from reenact.runtime.web import server as server_module  # noqa: E402
from reenact.runtime.web.refusals import Refusal  # noqa: E402
from reenact.runtime.web.rtc import _own_addresses, key_frame_size, own_offer  # noqa: E402
from reenact.runtime.web.settings import ServeSettings  # noqa: E402


class Camera(aiortc.VideoStreamTrack):  # type: ignore[misc, name-defined]
    """Shows frames over and over, 30 a second."""

    def __init__(self, frames):
        super().__init__()
        self.frames, self.number = frames, 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(self.frames[self.number % len(self.frames)], format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        self.number += 1
        return frame


class Viewer:
    """A peer that sends a camera and keeps what it gets."""

    def __init__(self, url, session, frames):
        self.url, self.session = url, session
        self.connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.camera = Camera(frames)
        self.connection.addTransceiver(self.camera, direction="sendrecv")
        self.pictures, self.times, self.answer = [], [], ""
        self.connection.on("track", lambda track: asyncio.ensure_future(self.watch(track)))

    async def watch(self, track):
        while True:
            try:
                frame = await track.recv()
            except aiortc.mediastreams.MediaStreamError:
                return
            self.pictures.append(frame.to_ndarray(format="rgb24"))
            self.times.append(frame.pts)

    async def connect(self):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            answer = await client.post(
                f"{self.session}/live/webrtc", json={"sdp": self.connection.localDescription.sdp}
            )
        assert answer.status_code == 200, answer.text
        self.answer = answer.json()["sdp"]
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(self.answer, "answer"))

    async def until(self, condition, seconds=25):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.05)


def viewing(url, session, frames, work):
    async def running():
        viewer = Viewer(url, session, frames)
        try:
            await viewer.connect()
            return await work(viewer)
        finally:
            async with asyncio.timeout(10):
                await viewer.connection.close()

    return asyncio.run(running())


def test_the_portrait_comes_back_and_the_connection_is_counted_while_it_lasts(
    server, client, session, camera_frames, web
):
    client.patch(f"{session}/live", json={"size": 256})

    async def work(viewer):
        await viewer.until(lambda: len(viewer.pictures) > 40)
        assert 'reenact_connections{transport="webrtc"} 1' in client.get("/metrics").text
        return viewer

    viewer = viewing(server.url, session, camera_frames, work)
    assert viewer.pictures[-1].shape == (256, 256, 3)
    assert all(later > earlier for earlier, later in zip(viewer.times, viewer.times[1:], strict=False))
    rest = web.picture(client, session).astype(int)
    away = [np.abs(picture - rest).mean() for picture in viewer.pictures[-20:]]
    assert min(away) < 25, "it is the portrait"
    assert read_mark(viewer.pictures[-12:]).found, "it is marked as AI-generated"
    web.wait_for(
        lambda: 'reenact_connections{transport="webrtc"} 0' in client.get("/metrics").text,
        "the connection to end",
    )
    assert client.get(session).status_code == 200


def test_another_photo_appears_in_the_same_stream(server, client, session, camera_frames):
    client.patch(f"{session}/live", json={"size": 256})

    async def work(viewer):
        await viewer.until(lambda: len(viewer.pictures) > 10)
        before = viewer.pictures[-1].astype(int)
        await asyncio.to_thread(client.patch, f"{session}/live", json={"photo": "grace-hopper"})
        await viewer.until(lambda: np.abs(viewer.pictures[-1] - before).mean() > 20)

    viewing(server.url, session, camera_frames, work)


def test_a_server_for_this_machine_listens_on_this_machine_alone(server, session, camera_frames):
    async def work(viewer):
        return viewer.answer

    answer = viewing(server.url, session, camera_frames[:1], work)
    candidates = [line.split() for line in answer.splitlines() if line.startswith("a=candidate")]
    assert candidates
    assert {parts[4] for parts in candidates} == {"127.0.0.1"}
    assert "VP8" in answer
    assert "H264" not in answer


def test_a_new_offer_takes_the_place_of_the_last_connection(server, client, session, camera_frames, web):
    async def work(first):
        await first.until(lambda: len(first.pictures) > 3)
        second = Viewer(server.url, session, camera_frames)
        await second.connect()
        await second.until(lambda: len(second.pictures) > 3)
        await second.connection.close()

    viewing(server.url, session, camera_frames, work)
    web.wait_for(
        lambda: 'reenact_connections{transport="webrtc"} 0' in client.get("/metrics").text, "both to end"
    )


def test_of_two_offers_at_once_one_connection_stays_and_ends_with_the_session(
    server, client, session, camera_frames, web, monkeypatch
):
    made = []

    class Noted(rtc.Peer):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(rtc, "Peer", Noted)

    async def both():
        viewers = [Viewer(server.url, session, camera_frames) for _ in range(4)]
        await asyncio.gather(*(viewer.connect() for viewer in viewers))
        await viewers[0].until(lambda: any(len(viewer.pictures) > 3 for viewer in viewers))
        open_ones = [peer for peer in made if peer._connection.connectionState != "closed"]
        await asyncio.to_thread(client.delete, session)
        for viewer in viewers:
            await viewer.connection.close()
        return len(open_ones)

    assert asyncio.run(both()) == 1
    assert len(made) == 4
    assert [peer._connection.connectionState for peer in made] == ["closed"] * 4
    web.wait_for(
        lambda: 'reenact_connections{transport="webrtc"} 0' in client.get("/metrics").text, "all to end"
    )


def test_a_session_that_is_over_takes_no_offer(server, client, web):
    session = server.session(web.open_session(client))
    server.run(server.service.sessions.close(session))
    with pytest.raises(Refusal) as refusal:
        server.run(
            rtc.answer(session, server.service.metrics, server.service.settings, offer_with(), "127.0.0.1")
        )
    assert (refusal.value.status, refusal.value.code) == (410, "closed")


def test_a_peer_that_sends_huge_frames_is_cut_off_before_one_is_decoded(
    server, client, session, web, monkeypatch
):
    decoded: list[tuple[int, int]] = []
    original = vpx.Vp8Decoder.decode

    def noting(self, frame):
        frames: list[Any] = original(self, frame)
        decoded.extend((made.width, made.height) for made in frames)
        return frames

    monkeypatch.setattr(vpx.Vp8Decoder, "decode", noting)

    async def work(viewer):
        await viewer.until(
            lambda: viewer.connection.connectionState == "closed" or len(viewer.pictures) > 20, 20
        )
        return len(viewer.pictures)

    assert viewing(server.url, session, [np.zeros((1200, 1600, 3), np.uint8)], work) == 0
    assert (1600, 1200) not in decoded
    assert client.get(session).status_code == 200


def test_frames_of_another_size_are_followed(server, client, session, camera_frames, web):
    """As when a phone is turned."""
    client.patch(f"{session}/live", json={"size": 256})
    upright = [np.ascontiguousarray(frame[:, 140:500]) for frame in camera_frames]

    async def work(viewer):
        await viewer.until(lambda: len(viewer.pictures) > 10)
        viewer.camera.frames = upright
        before = len(viewer.pictures)
        await viewer.until(lambda: len(viewer.pictures) > before + 20)
        live = server.session(session).live
        await viewer.until(lambda: live._stage.live.status.input_size == (360, 480))

    viewing(server.url, session, camera_frames, work)
    assert client.get(session).json()["status"]["problem"] is None


def test_a_peer_that_falls_silent_is_noticed_and_its_session_ends(serve, web, camera_frames, monkeypatch):
    """It takes and answers nothing any more, without a goodbye; noticed after 30 s, which are shorter here."""
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.3)
    with serve(sessions=1, reconnect_seconds=0.5) as running, running.client() as client:
        session = web.open_session(client)

        async def work(viewer):
            await viewer.until(lambda: len(viewer.pictures) > 3)
            transport = viewer.connection.getTransceivers()[0].receiver.transport.transport
            for protocol in transport._connection._protocols:
                protocol.datagram_received = lambda *packet: None

            def counted():
                return client.get("/metrics").text

            assert 'reenact_connections{transport="webrtc"} 1' in await asyncio.to_thread(counted)
            async with asyncio.timeout(20):
                while 'reenact_connections{transport="webrtc"} 0' not in await asyncio.to_thread(counted):
                    await asyncio.sleep(0.1)

        viewing(running.url, session, camera_frames, work)
        web.wait_for(lambda: client.get("/api/health").json()["sessions"] == 0, "the session to end")
        assert list(running.folder.iterdir()) == []


def key_frame(width, height):
    codec = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base = Fraction(1, 30)
    frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def test_the_size_of_a_key_frame_is_read_before_it_is_decoded():
    whole = key_frame(1600, 1200)
    assert key_frame_size(whole) == (1600, 1200)
    assert key_frame_size(key_frame(16, 32)) == (16, 32)
    assert key_frame_size(bytes([whole[0] | 1]) + whole[1:]) is None, "no key frame"
    assert key_frame_size(whole[:9]) is None, "no decoder makes anything of so little"
    assert key_frame_size(b"") is None


def test_a_frame_that_is_too_large_never_gets_into_the_decoders_queue():
    cut: list[str] = []
    checked = rtc._Checked(1_000_000, cut.append)
    small = key_frame(640, 480)
    large = small[:6] + (4096).to_bytes(2, "little") * 2 + small[10:]
    for content in (small, large):
        checked.put(("VP8", SimpleNamespace(data=content)))
    checked.put(None)
    assert cut == ["frames of 4096x4096 pixels"]
    assert checked.qsize() == 2


def test_a_peer_that_sends_faster_than_is_decoded_is_cut_off():
    cut: list[str] = []
    checked = rtc._Checked(1_000_000, cut.append)
    for _ in range(rtc.MOST_UNDECODED):
        checked.put(("VP8", SimpleNamespace(data=b"")))
    assert cut == []
    checked.put(("VP8", SimpleNamespace(data=b"")))
    assert len(cut) == 1
    checked.put(None)
    assert checked.qsize() == rtc.MOST_UNDECODED + 1, "no more frames, but the end"


def test_an_aiortc_that_decodes_in_another_way_is_not_taken_for_one_that_is_checked():
    with pytest.raises(RuntimeError, match="aiortc"):
        rtc._check_before_decoding(SimpleNamespace(), 1, lambda text: None)


OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


@pytest.mark.parametrize(
    "sdp",
    [
        "x",
        "v=0",
        OFFER,
        OFFER + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\n",
        OFFER + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H264/90000\r\n",
        OFFER + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n",
        "\u2028" * 100,
        "a=candidate:" * 4000,
    ],
)
def test_an_offer_that_is_none_is_refused(client, session, sdp):
    answer = client.post(f"{session}/live/webrtc", json={"sdp": sdp})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_offer")
    assert client.get(session).status_code == 200


def test_a_server_without_webrtc_says_so(serve, web):
    with serve({"webrtc": False}) as running, running.client() as client:
        assert not client.get("/api/capabilities").json()["webrtc"]
        answer = client.post(f"{web.open_session(client)}/live/webrtc", json={"sdp": "v=0"})
        assert (answer.status_code, answer.json()["code"]) == (409, "no_webrtc")


VIDEO = (
    OFFER
    + """m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103
c=IN IP4 0.0.0.0
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:102 H264/90000
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
a=ice-ufrag:abcd
a=ice-pwd:0123456789012345678901
a=mid:0
""".replace("\n", "\r\n")
)


def offer_with(*candidates):
    return VIDEO + "".join(f"a=candidate:{candidate}\r\n" for candidate in candidates)


def candidates_in(sdp):
    return [line.removeprefix("a=candidate:") for line in sdp.splitlines() if line.startswith("a=candidate:")]


def test_candidates_are_where_the_request_came_from_whatever_they_say():
    """A client cannot have the server send anything to others, nor resolve names."""
    offer = offer_with(
        "1 1 udp 2122260223 192.168.1.7 50000 typ host generation 0",
        "2 1 udp 2122260223 4b5c.local 50001 typ host",
        "3 1 udp 1686052607 203.0.113.9 50002 typ srflx raddr 10.0.0.1 rport 9",
        "4 1 tcp 1518280447 192.168.1.7 9 typ host tcptype active",
    )
    assert candidates_in(own_offer(offer, "198.51.100.4")) == [
        "1 1 udp 2122260223 198.51.100.4 50000 typ host",
        "2 1 udp 2122260223 198.51.100.4 50001 typ host",
        "3 1 udp 1686052607 198.51.100.4 50002 typ host",
    ]
    many = offer_with(*(f"{n} 1 udp 1 10.0.0.1 {n} typ host" for n in range(1, 1000)))
    assert len(candidates_in(own_offer(many, "198.51.100.4"))) == 16


def test_vp8_is_the_only_codec_that_is_talked_about():
    kept = own_offer(offer_with(), "198.51.100.4")
    assert "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n" in kept
    assert "H264" not in kept
    assert "apt=102" not in kept


def test_where_media_is_listened_for():
    assert _own_addresses("127.0.0.1") == ["127.0.0.1"]
    assert _own_addresses("localhost") == ["127.0.0.1"]
    assert _own_addresses("::1") == ["::1"]
    assert _own_addresses("192.168.1.5") == ["192.168.1.5"]
    assert _own_addresses("0.0.0.0") is None


def test_where_media_is_listened_for_when_the_server_was_given_a_name(monkeypatch):
    """The name is looked up once, when the server starts; 127.1 is one that every machine knows."""
    seen = []
    monkeypatch.setattr(server_module, "Service", lambda settings: seen.append(settings))
    monkeypatch.setattr(server_module, "create_app", lambda service: None)
    monkeypatch.setattr(server_module._Server, "run", lambda self, sockets: None)
    server_module.serve(ServeSettings(host="127.1", port=0, token="correct-horse-battery"), lambda: None)
    assert (seen[0].host, seen[0].address) == ("127.1", "127.0.0.1")
    assert _own_addresses(seen[0].address) == ["127.0.0.1"]
