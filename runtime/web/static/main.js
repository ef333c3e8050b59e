// The page: joins session, camera, photos and settings, and says at every moment what is going on.

import { Api, takeToken } from "./api.js";
import { Controls } from "./controls.js";
import { $, alertUser, announce, closableAlerts, counted, save, stamped } from "./dom.js";
import { Films } from "./films.js";
import { Gallery } from "./gallery.js";
import { Recorder } from "./recorder.js";
import { Session } from "./session.js";
import { Stage } from "./stage.js";
import { themeButton } from "./theme.js";
import { View } from "./view.js";

const STATES = {
  opening: "Connecting…",
  busy: "All places taken",
  held: "Asked to wait",
  lost: "Disconnected",
  refused: "Refused",
  over: "Paused",
};

const HINTS = {
  no_face: "No face in view: look into the camera",
  calibrating: "Look straight ahead, mouth closed",
};

const api = new Api(takeToken());
const session = new Session(api);
const view = new View();
const stage = new Stage(api, session, view);
const controls = new Controls(api, session, showStill);
const gallery = new Gallery(api, session, (id) => controls.send({ photo: id }));
const recorder = new Recorder(api, session);
const films = new Films(api, session, () => ({ photo: gallery.chosen, ...controls.settings }));
let connection = { state: "opening", text: "Connecting…" };
let problem = null;
let status = null;
let known = null;

session.addEventListener("connection", ({ detail }) => {
  connection = detail;
  document.body.dataset.connection = detail.state;
  if (detail.state === "open") stage.lineRenewed();
  if (["over", "refused"].includes(detail.state)) stage.stop();
  render();
});

session.addEventListener("opened", async ({ detail: { fresh } }) => {
  try {
    await settle(fresh);
  } catch (error) {
    alertUser(error.message);
  }
});

session.addEventListener("status", ({ detail }) => {
  status = detail;
  render();
});

session.addEventListener("problem", ({ detail }) => alertUser(detail.message));
stage.addEventListener("state", () => {
  if (stage.state !== "on") clearMeter();
  render();
});
stage.addEventListener("lost", ({ detail }) => {
  showProblem(detail);
  showStill(); // the photo may have been changed while live
});
$("connection").addEventListener("change", () => stage.connect());
$("camera").addEventListener("click", toggleCamera);
$("reset").addEventListener("click", () => attempt(api.json("POST", `${session.path}/live/reset-pose`)));
$("snapshot").addEventListener("click", () => attempt(snapshot()));
addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#token=")) return;
  api.token = takeToken(); // the printed address came into the open page, which the browser does not load anew for it
  if (connection.state === "refused") session.open();
});
addEventListener("beforeunload", (event) => {
  if (session.id && (recorder.unsaved || films.unsaved)) event.preventDefault(); // the browser asks
});
addEventListener("pagehide", () => session.leave());
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
$("api").addEventListener("click", (event) => {
  if (!api.needsToken) return;
  event.preventDefault(); // a link cannot bring the token
  attempt(api.blob($("api").href).then((description) => save(description, "reenact-openapi.json")));
});
closableAlerts();
themeButton($("theme"));
setInterval(measure, 1000);
render();
session.open();

/** Bring page and session together: photos, settings, and the camera where it was on. */
async function settle(fresh) {
  if (!known) {
    known = await api.json("GET", "/api/capabilities");
    controls.offer(known);
    films.offer(known);
    stage.allowsWebrtc = known.webrtc;
    controls.show(session.settings);
  } else if (fresh) {
    tellLost([gallery.forget(), films.forget(), recorder.forget()].filter(Boolean));
    await attempt(controls.send(controls.settings));
  } else {
    controls.agree();
  }
  const photo = await gallery.load(fresh && gallery.chosen ? gallery.chosen : session.settings.photo);
  if (photo !== session.settings.photo) await gallery.choose(photo);
  await showStill();
  if (stage.state !== "off" && (fresh || stage.transport === "webrtc")) await stage.connect();
}

function tellLost(lost) {
  if (!lost.length) return;
  const listed = new Intl.ListFormat("en").format(lost);
  alertUser(`This page's place was given free meanwhile. What the server kept for it was deleted: ${listed}.`);
}

async function toggleCamera() {
  problem = null;
  if (stage.state !== "off") {
    recorder.stop();
    stage.stop();
    return showStill();
  }
  try {
    await stage.start();
  } catch (error) {
    showProblem(error);
  }
}

function showProblem(error) {
  problem = error;
  announce(`${error.title ?? ""}. ${error.message}`);
  render();
}

async function snapshot() {
  save(await api.blob(`${session.path}/live/picture`), stamped("png"));
}

async function attempt(work) {
  try {
    await work;
  } catch (error) {
    alertUser(error.message);
  }
}

/** While the camera is off, the portrait as it stands. */
async function showStill() {
  if (stage.state === "on" || !session.id) return;
  const picture = await api.blob(`${session.path}/live/picture`).catch(() => null);
  if (picture) view.still(picture);
}

/** No figures of a camera that is off. */
function clearMeter() {
  view.rate();
  for (const id of ["fps", "latency", "transport"]) $(id).value = "–";
}

async function measure() {
  const rate = view.rate();
  const on = stage.state === "on" && connection.state === "open";
  $("fps").value = on && rate !== null ? Math.round(rate) : "–";
  const latency = on ? await stage.latency(status?.latency_ms ?? null) : null;
  $("latency").value = latency === null ? "–" : Math.round(latency);
  $("transport").value = (on && { webrtc: "WebRTC", websocket: "WebSocket" }[stage.transport]) || "–";
}

/** Everything that depends on the state of connection, camera and portrait. */
function render() {
  const open = connection.state === "open";
  const on = stage.state === "on";
  $("camera").textContent = stage.state === "off" ? "Start camera" : "Stop camera";
  $("camera").disabled = !open && stage.state === "off";
  $("preview-off").hidden = stage.state !== "off";
  for (const id of ["reset", "snapshot"]) $(id).disabled = !(open && on);
  recorder.allow(open && on);
  $("badge").hidden = !open;
  $("degraded").hidden = !(on && status?.degraded);
  $("degraded").textContent = `To keep up with the camera: ${status?.degraded}.`;
  const [tone, text] = sayStatus(open, on);
  $("status").dataset.tone = tone;
  if ($("status").textContent !== text) $("status").textContent = text;
  cover(open);
}

function sayStatus(open, on) {
  if (!open) return [connection.state === "refused" ? "bad" : "wait", STATES[connection.state] ?? "Connecting…"];
  if (problem) return ["bad", problem.title ?? "No camera"];
  if (stage.state === "asking") return ["wait", "Asking for the camera…"];
  if (stage.state === "connecting") return ["wait", "Connecting the camera…"];
  if (!on) return ["idle", "Ready"];
  if (status?.state === "failed") return ["bad", "Failed"];
  return {
    live: ["good", "Live"],
    no_face: ["wait", "No face"],
    calibrating: ["wait", "Finding your rest…"],
  }[status?.state] ?? ["wait", "Waiting for the camera…"];
}

function cover(open) {
  view.hint(open && stage.state === "on" ? (HINTS[status?.state] ?? "") : "");
  if (connection.state === "busy") {
    return view.cover("All places are taken", `As soon as one is free you are in. Trying again every ${connection.wait} seconds.`);
  }
  if (connection.state === "held") {
    return view.cover("The server asks to wait", `${connection.text} Trying again in ${counted(connection.wait, "second")}.`);
  }
  if (connection.state === "refused") {
    return view.cover("The server does not let you in", connection.text, () => session.open(), "Try again");
  }
  if (connection.state === "lost") return view.cover("Disconnected", connection.text);
  if (connection.state === "over") return view.cover("Paused", connection.text, () => session.open(), "Continue");
  if (!open) return view.cover("Connecting…");
  if (problem) return view.cover(problem.title ?? "The camera failed", problem.message, toggleCamera, "Try again");
  if (stage.state === "asking") return view.cover("May the camera be used?", "The browser asks. Frames go to this server only, and are not kept.");
  if (stage.state === "connecting") return view.cover("Connecting the camera…");
  if (stage.state === "off") return view.invite("Bring this photo to life", "It will move as your face does.", toggleCamera, "Start camera");
  if (status?.state === "failed") return view.cover("The portrait failed", status.problem ?? "", () => location.reload(), "Start anew");
  view.uncover();
}
