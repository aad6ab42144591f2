// The page: picks a start, plays it, shows how well that goes.

import { Connection } from "./connection.js";
import { canFilm, filmOf } from "./film.js";
import { Follower } from "./follow.js";
import { buttonOfKey, buttonsOf, chooseAction, watchGamepad } from "./keys.js";
import { decodeActions, encodeActions } from "./replay.js";
import { Screen, drawDifference, drawHistory, psnr } from "./screen.js";
import { TabConnection, openTab } from "./tab.js";

const find = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") ?? "";
const withToken = (path) => (token ? `${path}?token=${encodeURIComponent(token)}` : path);
const say = (text) => { find("status").textContent = text; };

const HISTORY = 300; // frames of the curve
const HERE = new URL("./", location.href).href;
let info, connection, screens;
let site, follower; // the model in this tab, and its dream beside the server's
let runs = "server"; // or "tab", or "both"
let held, padHeld, action, keyNumber, pressedAt, latencies, paintedAt;
let start, actions, rewards, running, replay, asked, similar, worst, painting, newestFrame;
let rewindable, highest; // seconds that can be gone back; dB at the top of the curve

async function load() {
  const response = await fetch(withToken("info"));
  if (!response.ok) return say((await response.text()).trim());
  info = await response.json();
  document.title = `${info.title}: wmdeploy play`;
  find("title").textContent = info.title;
  screens = Object.fromEntries(
    ["dream", "real", "difference"].map((name) => [name, new Screen(find(name), info.size)]),
  );
  for (const [label, value] of info.about) find("about").append(aboutRow(label, value));
  find("about").append(aboutRow("Backend", info.backend ?? ""));
  makeStarts();
  makePad();
  if (info.tab) {
    runs = "tab";
    site = { info, base: HERE };
    showBackend(await openTab(site, () => say("Loading the model into this tab")));
    if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => {});
  } else if (info.site) {
    site = { info: info.site, base: new URL(withToken("site/"), HERE).href };
    find("runs-label").hidden = false;
    find("runs").querySelector("[value=both]").hidden = info.site.draws;
  }
  const link = new URLSearchParams(location.hash.slice(1));
  const wanted = link.has("actions") ? decodeActions(link.get("actions")) : null;
  if (link.has("start") && Number(link.get("start")) < info.starts.length) {
    begin(Number(link.get("start")), wanted);
  } else {
    find("picker").hidden = false;
    say("Choose where to begin");
  }
}

function aboutRow(label, value) {
  const row = document.createElement("div");
  row.append(element("dt", label), element("dd", value));
  return row;
}

function showBackend({ name, failure }) {
  const shown = runs === "both" ? `${info.backend}, and ${name}` : name;
  find("about").lastElementChild.replaceWith(aboutRow("Backend", shown));
  find("notice").textContent = failure;
  find("notice").hidden = !failure;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function makeStarts() {
  info.starts.forEach(({ title, live }, number) => {
    const button = document.createElement("button");
    button.type = "button";
    if (live) {
      const box = element("span", "live");
      box.className = "live";
      button.append(box);
    } else {
      const picture = document.createElement("img");
      picture.alt = "";
      picture.loading = "lazy";
      picture.src = withToken(`starts/${number}.png`);
      button.append(picture);
    }
    button.append(element("span", title));
    button.onclick = () => begin(number, null);
    find("starts")[live ? "prepend" : "append"](button);
  });
}

function makePad() {
  for (const name of buttonsOf(info.meanings, info.actions)) {
    const button = element("button", name);
    button.type = "button";
    button.id = `pad-${name}`;
    button.onpointerdown = (event) => {
      button.setPointerCapture(event.pointerId);
      padHeld.add(name);
      update();
    };
    button.onmousedown = (event) => event.preventDefault(); // the keys stay the picture's
    const letGo = () => {
      padHeld?.delete(name);
      if (connection) update();
    };
    button.onpointerup = button.onpointercancel = button.onlostpointercapture = letGo;
    find("pad").append(button);
  }
}

// Elsewhere, the dream goes on: what was done is done again there.
find("runs").onchange = () => {
  const wanted = find("runs").value;
  if (wanted !== "server" && connection && info.starts[start].live) {
    find("runs").value = runs;
    return say("The real game is on the server; choose another start first");
  }
  runs = wanted;
  if (!connection) return;
  connection.close();
  begin(start, actions.length ? actions.slice() : null);
};

async function begin(number, wanted) {
  const { live } = info.starts[number];
  if (live && runs !== "server") runs = find("runs").value = "server";
  held = new Set(); padHeld = new Set(); action = 0; keyNumber = 0;
  pressedAt = new Map(); latencies = []; paintedAt = []; painting = Promise.resolve();
  start = number; actions = []; rewards = []; running = true; similar = []; newestFrame = 0; worst = Infinity;
  replay = wanted; asked = 0;
  find("picker").hidden = true;
  find("stage").hidden = false;
  for (const id of ["real-figure", "difference-figure", "sync", "history-figure"]) {
    find(id).hidden = !live && (runs !== "both" || id === "sync");
  }
  find("real-title").textContent = live ? "Real game, same keys" : "In this tab, same keys";
  const [beside, top] = live ? ["beside the real game", 60] : ["of the two", 100];
  find("history-title").textContent = `PSNR ${beside}, from 10 dB at the bottom to ${top} dB at the top`;
  highest = top;
  const shown = runs === "tab" ? site.info : info;
  rewindable = shown.rewind;
  find("rewind-label").hidden = !rewindable;
  find("keep").hidden = !rewindable;
  find("recording").hidden = !shown.recorded;
  find("film").hidden = runs !== "tab" || !canFilm;
  find("branches").replaceChildren();
  say("Connecting");
  find("runs").disabled = true; // until it runs there
  try {
    const tab = runs === "server" ? null : await openTab(site, () => say("Loading the model into this tab"));
    showBackend(tab ?? { name: info.backend, failure: "" });
  } catch (error) {
    return ended(error.message);
  } finally {
    find("runs").disabled = false;
  }
  const on = {
    frame: (frame) => { painting = painting.then(() => paint(frame)); },
    event: handle,
    lost: () => say("Connection lost; coming back"),
    ended,
  };
  follower?.close();
  follower = runs !== "both" ? null : new Follower(number, {
    pair: (pixels, picture) => { painting = painting.then(() => pair(pixels, picture)); },
    backend: showBackend,
    ended: (reason) => { follower = null; say(`No longer compared with this tab: ${reason}`); },
  });
  connection = runs === "tab"
    ? new TabConnection(number, Boolean(wanted), on)
    : new Connection(location, number, { paused: Boolean(wanted), exact: runs === "both" }, on);
  find("dream").focus({ preventScroll: true });
}

function ended(reason) {
  connection = null;
  follower?.close();
  follower = null;
  say(`Ended: ${reason}`);
  find("stage").hidden = true;
  find("picker").hidden = false;
}

function handle(event) {
  if (event.kind === "hello") {
    say(replay ? "Replaying the link" : "Playing");
    if (runs !== "tab" && info.recorded) showRecordings(event.session);
  } else if (event.kind === "state") {
    if (event.running !== running) paintedAt = []; // a pause is no slowness
    running = event.running;
    find("pause").textContent = running ? "Pause" : "Go on";
    find("pause").setAttribute("aria-pressed", String(!running));
    find("step").disabled = running;
    showBranches(event.branches);
    showRewind(event.oldest, event.frame);
    if (!running && !replay) say("Paused");
    else if (!replay) say("Playing");
    stepReplay();
  } else if (event.kind === "backend") showBackend(event);
  else if (event.kind === "error") say(event.message);
  else if (event.kind === "bye") say(event.reason);
}

async function paint(frame) {
  const from = connection;
  await Promise.all([
    screens.dream.draw(frame.dream),
    frame.real ? screens.real.draw(frame.real) : null,
  ]);
  if (!connection || connection !== from) return; // another dream has begun
  connection.send("seen", frame.number);
  const now = performance.now();
  for (const [number, at] of pressedAt) {
    if (number > frame.obeyed) continue;
    latencies.push(now - at);
    pressedAt.delete(number);
  }
  latencies = latencies.slice(-200);
  if (frame.frame > 1) paintedAt = [...paintedAt.slice(-29), now];
  if (frame.frame < actions.length) actions.length = frame.frame; // gone back
  if (frame.frame === actions.length + 1) actions.push(frame.action);
  newestFrame = frame.frame;
  rewards.length = Math.min(rewards.length, frame.frame); // what was undone is not counted
  if (frame.reward !== null && frame.frame) rewards[frame.frame - 1] = frame.reward;
  if (frame.real) compare(screens.dream.pixels(), screens.real.pixels());
  follower?.lead(frame, screens.dream.pixels());
  showFigures(frame);
  showRewind(null, frame.frame);
  stepReplay();
}

async function pair(pixels, picture) {
  await screens.real.draw(picture);
  compare(pixels, screens.real.pixels());
}

function compare(dream, real) {
  const value = psnr(dream, real);
  drawDifference(screens.difference, dream, real);
  similar = [...similar.slice(1 - HISTORY), value];
  worst = Math.min(worst, value);
  const apart = (psnr) => (Number.isFinite(psnr) ? `PSNR ${psnr.toFixed(1)} dB` : "equal");
  find("psnr").textContent = follower ? `${apart(value)}, worst ${apart(worst)}` : apart(value);
  drawHistory(find("history"), similar, 10, highest);
}

function stepReplay() {
  if (!replay || running) return;
  if (newestFrame >= replay.length) {
    replay = null;
    say("Replayed; go on to play from here");
    return;
  }
  if (newestFrame === asked) {
    asked += 1;
    connection.send("step", replay[newestFrame]);
  }
}

function showFigures(frame) {
  const sorted = [...latencies].sort((one, other) => one - other);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const span = paintedAt.length < 2 ? 0 : paintedAt[paintedAt.length - 1] - paintedAt[0];
  const fps = span > 0 ? (1000 * (paintedAt.length - 1)) / span : 0;
  find("f-fps").textContent = running ? `${fps.toFixed(1)} of ${info.fps}` : "paused";
  find("f-latency").textContent = sorted.length
    ? `${at(0.5).toFixed(0)} ms, 95% below ${at(0.95).toFixed(0)} ms` : "press a key";
  find("f-depth").textContent = String(frame.depth);
  find("f-step").textContent = `${frame.stepMs.toFixed(1)} ms for ${frame.rows}`;
  find("f-picture").textContent = `${frame.pictureMs.toFixed(1)} ms`;
  find("reward-figure").hidden = frame.reward === null;
  const reward = rewards.reduce((sum, one) => sum + one, 0);
  find("f-reward").textContent = String(Math.round(reward * 100) / 100);
  const share = ((frame.stepMs + frame.pictureMs) * info.fps) / 10;
  find("budget").value = Math.min(100, share);
  find("budget-text").textContent =
    `${share.toFixed(0)}% of the ${(1000 / info.fps).toFixed(0)} ms of a frame`;
}

function showRewind(oldest, frame) {
  const slider = find("rewind");
  if (oldest !== null) slider.min = oldest;
  else slider.min = Math.max(Number(slider.min), frame - Math.round(rewindable * info.fps) + 1, 0);
  slider.max = frame;
  if (document.activeElement !== slider || running) slider.value = frame;
  find("rewind-frame").textContent = `frame ${slider.value}`;
}

function showBranches(frames) {
  const shown = find("branches").children.length;
  if (frames.length < shown) find("branches").replaceChildren();
  for (let index = find("branches").children.length; index < frames.length; index += 1) {
    const button = document.createElement("button");
    button.type = "button";
    const picture = document.createElement("img");
    picture.alt = "";
    picture.src = find("dream").toDataURL();
    button.append(picture, element("span", `frame ${frames[index]}`));
    button.onclick = () => connection?.send("go", index);
    find("branches").append(button);
  }
}

function showRecordings(session) {
  find("recordings").replaceChildren(
    ...info.recordings.map((kind) => {
      const link = element("a", `.${kind}`);
      link.href = withToken(`recordings/${session}.${kind}`);
      link.download = `dream.${kind}`;
      return link;
    }),
  );
  find("recordings").prepend(`The newest ${info.recorded} s as: `);
}

function update() {
  const all = new Set([...held, ...padHeld]);
  for (const button of find("pad").children) {
    button.classList.toggle("held", all.has(button.textContent));
  }
  const chosen = chooseAction(info.meanings, all);
  if (chosen === action || !connection) return;
  action = chosen;
  keyNumber += 1;
  pressedAt.set(keyNumber, performance.now());
  connection.send("keys", action, keyNumber);
}

function release() {
  if (!connection) return;
  held.clear();
  padHeld.clear();
  update();
}

find("dream").addEventListener("keydown", (event) => {
  if (!connection || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = buttonOfKey(event.code, info.meanings, info.actions);
  if (button === null) return;
  event.preventDefault();
  if (event.repeat) return;
  held.add(button);
  update();
});
find("dream").addEventListener("keyup", (event) => {
  const button = connection ? buttonOfKey(event.code, info.meanings, info.actions) : null;
  if (button === null) return;
  event.preventDefault();
  held.delete(button);
  update();
});
find("dream").addEventListener("pointerdown", () => find("dream").focus());
find("dream").addEventListener("blur", () => {
  held?.clear();
  if (connection) update();
});
addEventListener("blur", release);
document.addEventListener("visibilitychange", () => { if (document.hidden) release(); });

watchGamepad((pressed, before) => {
  if (!connection) return;
  for (const name of before) held.delete(name);
  for (const name of pressed) held.add(name);
  update();
});

find("film").onclick = filmOf(find("dream"), find("film"));
find("pause").onclick = () => connection?.send(running ? "pause" : "resume");
find("step").onclick = () => connection?.send("step", action);
find("sync").onclick = () => connection?.send("sync");
find("keep").onclick = () => connection?.send("keep");
find("leave").onclick = () => {
  connection?.close();
  ended("choose where to begin");
};
find("rewind").addEventListener("input", () => {
  if (running) connection?.send("pause");
  find("rewind-frame").textContent = `frame ${find("rewind").value}`;
});
find("rewind").addEventListener("change", () => connection?.send("rewind", Number(find("rewind").value)));
find("link").onclick = async () => {
  const link = new URL(location.href);
  link.hash = new URLSearchParams({ start, actions: encodeActions(actions) }).toString();
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link.href);
    say("Link copied");
  } catch {
    say("The link is in the address bar");
  }
};

load().catch((error) => say(`The page cannot start: ${error.message}`));
