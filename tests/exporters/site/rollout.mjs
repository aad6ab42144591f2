// node rollout.mjs SITE FRAMES ACTION: what the page's session imagines, on the page's ONNX Runtime.
// Prints JSON with what it found; writes the frames' bytes behind each other.

import { createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";

const [folder, count, action] = [resolve(process.argv[2]), Number(process.argv[3]), Number(process.argv[4])];
const load = (name) => import(pathToFileURL(`${folder}/${name}`).href);
const read = async (name) => new Uint8Array(await readFile(`${folder}/${name}`));

const ort = await load("ort/ort.wasm.min.mjs");
const { Session, openModel } = await load("page/session.js");
ort.env.wasm.wasmBinary = gunzipSync(await readFile(`${folder}/ort/ort-wasm-simd-threaded.wasm.packed`)).buffer;
ort.env.wasm.numThreads = 1;

const session = new Session(await openModel(ort, read));
session.begin(0);
await session.step(action);
session.begin(0); // the same again
const out = createWriteStream(`${folder}/frames.bin`);
const times = [];
let moment, later;
for (let at = 0; at < count; at += 1) {
  if (at === count - 2) moment = session.snapshot();
  const began = performance.now();
  const frame = await session.step(action);
  times.push(performance.now() - began);
  out.write(frame);
  if (at === count - 2) later = frame.slice();
}
session.restore(moment);
const again = await session.step(action);
await new Promise((done) => out.end(done));
times.sort((one, other) => one - other);
const [first] = Object.values(session.out);
console.log(JSON.stringify({
  again: again.every((value, at) => value === later[at]),
  frameMs: times[times.length >> 1],
  outputs: Object.keys(session.out),
  first: first ? Array.from(first.data, Number).slice(0, 4) : [],
}));
