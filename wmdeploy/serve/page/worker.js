// The engine of a tab: what the server is to a page, in a worker, for one player.

import { Gpu, loadRuntime, refuseGpu } from "./runtime.js";
import { Session, openModel } from "./session.js";

const WINDOW = 3; // frames that were not painted; then the dream waits
const BRANCHES = 8;
const MOMENTS = 256e6; // bytes of what can be gone back to
let info, session, dream, timer;
let base; // the address that the site's files lie below, with its query
let backend, gpu; // gpu: null where the model runs on wasm
let turn = 0; // which dream messages are of; a page may have left the one that still steps

async function read(name) {
  return new Uint8Array(await (await get(name)).arrayBuffer());
}

function address(name) {
  const found = new URL(name, base);
  found.search = new URL(base).search;
  return found;
}

async function get(name) {
  const response = await fetch(address(name));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

async function open(given) {
  ({ info, base } = given);
  const refusal = await refuseGpu(info.runtime, given.gpu);
  if (refusal !== null) await load("wasm", refusal);
  else await load("webgpu", "").catch(leaveGpu);
}

async function load(provider, reason) {
  const ort = await loadRuntime(info.runtime, provider, address, get);
  const options = { executionProviders: [provider], logSeverityLevel: 3 }; // errors
  session = new Session(await openModel(ort, read, options));
  gpu = provider === "webgpu" ? new Gpu(await ort.env.webgpu.device) : null;
  session.begin(0);
  await onGpu(() => session.step(0)); // kernels are made ready by their first run
  const name = gpu ? "WebGPU" : "wasm";
  backend = { name: `onnxruntime-web, ${name}${reason && ` (${reason})`}`, failure: "" };
}

const onGpu = (job) => (gpu ? gpu.run(job) : job());

async function leaveGpu(error) {
  await load("wasm", "WebGPU failed");
  const reason = error.message ? `: ${error.message}` : ""; // what C++ throws is a number
  backend.failure = `WebGPU failed${reason}. This tab goes on with wasm`;
}

const tell = (event) => postMessage({ turn, event });
const tellState = () => tell({
  kind: "state", running: dream.running, frame: dream.frame, oldest: dream.moments[0].frame,
  branches: dream.branches.map((moment) => moment.frame),
});

async function begin(number, running) {
  const picture = (await read(`starts/${number}.png`)).buffer;
  session.begin(number);
  dream = {
    number: 0, frame: 0, action: 0, taken: 0, obeyed: 0, seen: 0, period: 1000 / info.fps, due: performance.now(),
    running, moments: [], branches: [], picture, ms: [0, 0],
  };
  note();
  tell({ kind: "hello", session: "tab" });
  post(0);
  tellState();
}

function note() {
  const most = Math.max(1, Math.min(info.rewind * info.fps, MOMENTS / session.bytes()));
  const { frame, picture } = dream;
  dream.moments.push({ frame, picture, snapshot: session.snapshot() });
  if (dream.moments.length > most) dream.moments.shift();
}

async function step() {
  const { action, obeyed } = dream;
  const made = await onGpu(() => imagine(session, action)).catch(async (error) => {
    if (!gpu) throw error;
    await leaveGpu(error);
    tell({ kind: "backend", ...backend });
    session.restore(dream.moments[dream.moments.length - 1].snapshot);
    return imagine(session, action);
  });
  Object.assign(dream, made, { frame: dream.frame + 1, taken: action });
  note();
  post(obeyed);
}

async function imagine(model, action) {
  const began = performance.now();
  await model.advance(action);
  const stepped = performance.now();
  const picture = await model.render();
  return { picture, ms: [stepped - began, performance.now() - stepped] };
}

function post(obeyed) {
  const reward = session.out.reward;
  dream.number += 1;
  postMessage({
    turn,
    frame: {
      action: dream.taken, rows: 1, number: dream.number, frame: dream.frame, obeyed, depth: dream.frame,
      stepMs: dream.ms[0], pictureMs: dream.ms[1], reward: reward ? Number(reward.data[0]) : null,
      dream: dream.picture, real: null,
    },
  });
}

function back(moment) {
  session.restore(moment.snapshot);
  dream.frame = moment.frame;
  dream.picture = moment.picture;
  post(dream.obeyed);
}

const COMMANDS = {
  keys: (action, number) => { dream.action = action; dream.obeyed = number; },
  seen: (number) => { dream.seen = Math.max(dream.seen, number); },
  pause: () => { dream.running = false; tellState(); },
  resume: () => { dream.running = true; dream.due = performance.now(); tellState(); },
  rate: (fps) => { dream.period = 1000 / fps; },
  step: async (action) => { dream.action = action; if (!dream.running) await step(); },
  rewind: (frame) => {
    const left = dream.moments.filter((moment) => moment.frame <= frame);
    if (!left.length) return tell({ kind: "error", message: `nothing is left of frame ${frame}` });
    dream.moments = left;
    back(left[left.length - 1]);
    tellState();
  },
  keep: () => {
    if (dream.branches.length >= BRANCHES) return tell({ kind: "error", message: `${BRANCHES} moments at most` });
    dream.branches.push(dream.moments[dream.moments.length - 1]);
    tellState();
  },
  go: (number) => {
    dream.moments = [dream.branches[number]];
    back(dream.branches[number]);
    tellState();
  },
};

// One after the other: a command waits for the frame that is being made.
let work = Promise.resolve();
const queue = (job) => {
  work = work.then(job).catch((error) => {
    clearTimeout(timer);
    postMessage({ turn, ended: `the model failed in this tab: ${error.message ?? error}` });
  });
  return work;
};

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(() => queue(async () => {
    if (!dream) return;
    if (dream.running) {
      dream.due = Math.max(dream.due + dream.period, performance.now()); // nobody catches up
      if (dream.number - dream.seen < WINDOW) await step();
    }
    schedule();
  }), dream.running ? Math.max(1, dream.due - performance.now()) : 20);
}

onmessage = ({ data: [sent, name, ...numbers] }) => queue(async () => {
  if (name === "begin") turn = sent;
  if (name === "open") {
    await open(...numbers);
    postMessage({ opened: backend });
  } else if (name === "begin") {
    await begin(...numbers);
    schedule();
  } else if (sent !== turn) {
    // of a dream that was left
  } else if (name === "leave") {
    clearTimeout(timer);
    dream = null;
  } else if (dream) await COMMANDS[name](...numbers);
});
