// In a browser, beside a site's files: each graph on WebGPU and on wasm, from the same inputs.

import { loadRuntime } from "./page/runtime.js";
import { Session, openModel } from "./page/session.js";

const read = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());

async function load(provider) {
  const { runtime } = await (await fetch("info")).json();
  const ort = await loadRuntime(runtime, provider, (name) => new URL(name, location.href), fetch.bind(window));
  return openModel(ort, read, { executionProviders: [provider] });
}

const error = (one, other) => one.data.reduce(
  (most, value, at) => Math.max(most, Math.abs(Number(value) - Number(other.data[at]))), 0);

// Of each output of each graph, the largest difference; from the second frame on the window slides.
export async function compare(frames) {
  const wasm = await load("wasm"), gpu = await load("webgpu");
  const device = await gpu.ort.env.webgpu.device;
  const found = {};
  const run = wasm.run.bind(wasm);
  wasm.run = async (name, feeds) => {
    const expected = await run(name, feeds);
    if (!found[name]) {
      const got = await gpu.run(name, feeds);
      found[name] = Object.fromEntries(Object.keys(expected).map((output) => [
        output, { type: expected[output].type, error: error(expected[output], got[output]) },
      ]));
    }
    return expected;
  };
  const session = new Session(wasm);
  session.begin(0);
  session.stale = false; // the state holds what the window does
  for (let at = 0; at < frames; at += 1) await session.step(1);
  return { found, graphs: Object.keys(wasm.graphs), fallback: device.adapterInfo.isFallbackAdapter };
}
