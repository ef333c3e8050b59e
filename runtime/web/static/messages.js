// The binary messages of a session's WebSocket, as the server's websocket.py describes them.

const FRAME = 1;
const ACK = 2;
const HEAD = 16;

/** A camera frame, taken at `time`. */
export function packFrame(number, time, jpeg) {
  const message = new Uint8Array(HEAD + jpeg.byteLength);
  const view = new DataView(message.buffer);
  view.setUint8(0, FRAME);
  view.setUint32(4, number, true);
  view.setFloat64(8, time, true);
  message.set(new Uint8Array(jpeg), HEAD);
  return message;
}

/** That picture `number` was taken. */
export function packAck(number) {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint8(0, ACK);
  view.setUint32(4, number, true);
  return view.buffer;
}

/** What came: an acknowledgement {number}, or a picture {number, time, jpeg} made of the frame of that time. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  const number = view.getUint32(4, true);
  if (view.getUint8(0) === ACK) return { number };
  return { number, time: view.getFloat64(8, true), jpeg: new Blob([buffer.slice(HEAD)], { type: "image/jpeg" }) };
}
