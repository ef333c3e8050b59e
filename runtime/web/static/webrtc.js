// The camera to the server and the portrait back by WebRTC.

const GATHER_MS = 1000;
const CONNECT_MS = 6000;
const BITRATE = 1_500_000;

export class Peer {
  /** The portrait's MediaStream. */
  stream = null;
  #connection;
  #before = {};

  constructor(connection, stream) {
    this.#connection = connection;
    this.stream = stream;
  }

  /** Called once when the connection breaks. */
  onlost = () => {};

  /** Milliseconds that the way takes, beside the server's own: encoding, both ways, buffering, decoding. */
  async delay() {
    const rows = [...(await this.#connection.getStats()).values()];
    const pair = rows.find((row) => row.type === "candidate-pair" && row.nominated);
    const sent = rows.find((row) => row.type === "outbound-rtp");
    const got = rows.find((row) => row.type === "inbound-rtp");
    const parts = [
      pair?.currentRoundTripTime ?? 0,
      this.#lately("encode", sent?.totalEncodeTime, sent?.framesEncoded),
      this.#lately("buffer", got?.jitterBufferDelay, got?.jitterBufferEmittedCount),
      this.#lately("decode", got?.totalDecodeTime, got?.framesDecoded),
    ];
    return 1000 * parts.reduce((sum, part) => sum + part, 0);
  }

  close() {
    this.onlost = () => {};
    this.#connection.close();
  }

  /** Mean of a total over a count since it was last asked. */
  #lately(name, total = 0, count = 0) {
    const [totalBefore, countBefore] = this.#before[name] ?? [0, 0];
    this.#before[name] = [total, count];
    return count > countBefore ? (total - totalBefore) / (count - countBefore) : 0;
  }
}

/** A connected peer; throws where none comes about, as where UDP is blocked. */
export async function connectPeer(api, path, camera) {
  const connection = new RTCPeerConnection({ iceServers: [] });
  try {
    const [track] = camera.getVideoTracks();
    const transceiver = connection.addTransceiver(track, {
      direction: "sendrecv",
      sendEncodings: [{ maxBitrate: BITRATE, maxFramerate: 30 }],
    });
    preferVp8(transceiver);
    const { receiver } = transceiver;
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    await connection.setLocalDescription();
    await gathered(connection);
    const { sdp } = await api.json("POST", path, { sdp: connection.localDescription.sdp });
    await connection.setRemoteDescription({ type: "answer", sdp });
    await connected(connection);
    const peer = new Peer(connection, new MediaStream([receiver.track]));
    connection.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(connection.connectionState)) peer.onlost();
    });
    return peer;
  } catch (error) {
    connection.close();
    throw error;
  }
}

function preferVp8(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs ?? [];
  const wanted = codecs.filter(({ mimeType }) => ["video/VP8", "video/rtx"].includes(mimeType));
  if (wanted.length) transceiver.setCodecPreferences?.(wanted);
}

function gathered(connection) {
  return new Promise((done) => {
    const look = () => connection.iceGatheringState === "complete" && done();
    connection.addEventListener("icegatheringstatechange", look);
    setTimeout(done, GATHER_MS);
    look();
  });
}

function connected(connection) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error("WebRTC did not connect in time")), CONNECT_MS);
    connection.addEventListener("connectionstatechange", () => {
      if (connection.connectionState === "connected") {
        clearTimeout(timer);
        done();
      } else if (connection.connectionState === "failed") {
        clearTimeout(timer);
        fail(new Error("WebRTC failed to connect"));
      }
    });
  });
}
