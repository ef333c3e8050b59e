// The camera: asked for, and every reason why there is none in plain words.

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30, max: 30 }, facingMode: "user" };

export class NoCamera extends Error {
  /** @param {"insecure" | "denied" | "missing" | "in-use" | "failed"} reason */
  constructor(reason, title, text) {
    super(text);
    Object.assign(this, { reason, title });
  }
}

const REASONS = {
  NotAllowedError: [
    "denied",
    "The camera was not allowed",
    "Allow it in the browser's address bar or settings for this page, then try again.",
  ],
  NotFoundError: ["missing", "No camera was found", "Connect a camera, then try again."],
  NotReadableError: ["in-use", "The camera cannot be used", "Another program may hold it. Close that, then try again."],
};

/** The camera's stream. Throws NoCamera. */
export async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new NoCamera(
      "insecure",
      "The browser gives no camera here",
      "It does so only on this machine (localhost) or by https: start the server with --tls-cert and --tls-key.",
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: WANTED, audio: false });
  } catch (error) {
    const known = REASONS[error.name] ?? ["failed", "The camera failed", error.message || error.name];
    throw new NoCamera(...known);
  }
}

/** Call `onend` when the camera stops by itself. */
export function whenItEnds(stream, onend) {
  stream.getVideoTracks()[0].addEventListener("ended", onend, { once: true });
}

export function stopCamera(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
