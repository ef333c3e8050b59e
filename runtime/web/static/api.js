// The HTTP API: requests with the token, refusals as errors, server-sent events, uploads.

import { recall, remember } from "./dom.js";

export class Refused extends Error {
  /** A refusal of the server, or (`code` "unreachable") none at all. */
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }

  /** Whether it may pass by itself: no answer, or that of a server, or a proxy before it, that does not work now. */
  get passing() {
    return this.status === 0 || this.status >= 500;
  }
}

export class Api {
  #token;

  /** @param {string | null} token what the server printed, if it needs one */
  constructor(token) {
    this.#token = token;
  }

  /** What to send from now on. */
  set token(token) {
    this.#token = token;
  }

  /** The body of an answer as JSON; null where it has none. */
  async json(method, path, body) {
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    const answer = await this.#ask(path, { method, headers, body: body && JSON.stringify(body) });
    return answer.status === 204 ? null : answer.json().catch(unreachable);
  }

  /** Send a file as it is. */
  async upload(path, file, signal) {
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await this.#ask(path, { method: "POST", headers, body: file, signal });
    return answer.json().catch(unreachable);
  }

  /** Whether the server lets in only those who bring a token, which links cannot. */
  get needsToken() {
    return this.#token !== null;
  }

  async blob(path) {
    return (await this.#ask(path, {})).blob().catch(unreachable);
  }

  /** Server-sent events; `EventSource` cannot send a token. */
  async *events(path, signal) {
    const answer = await this.#ask(path, { signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read().catch(unreachable);
      if (done) return;
      const parts = (waiting + value).split("\n\n");
      waiting = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
      }
    }
  }

  /** Sent even while the page goes away. */
  leave(path) {
    fetch(path, { method: "DELETE", headers: this.#headers(), keepalive: true }).catch(() => {});
  }

  socket(path) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const protocols = ["reenact.v1", ...(this.#token ? [`token.${this.#token}`] : [])];
    const socket = new WebSocket(`${scheme}//${location.host}${path}`, protocols);
    socket.binaryType = "arraybuffer";
    return socket;
  }

  #headers() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  async #ask(path, options) {
    const headers = { ...options.headers, ...this.#headers() };
    const answer = await fetch(path, { ...options, headers }).catch(unreachable);
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    const wait = Number(answer.headers.get("Retry-After")) || 0;
    const message = problem.message ?? `The server answered with error ${answer.status}.`;
    throw new Refused(answer.status, problem.code ?? "refused", message, wait);
  }
}

/** Also where an answer was cut short. */
function unreachable(error) {
  if (error.name === "AbortError") throw error;
  throw new Refused(0, "unreachable", "The server cannot be reached.");
}

/** The token in the address, which is then hidden: it must not stay in the history or be copied along. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    remember("token", given, "sessionStorage");
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given || recall("token", "sessionStorage");
}
