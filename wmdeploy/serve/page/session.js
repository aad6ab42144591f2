// One rollout of a model in the tab: runs the programs of site.json on ONNX Runtime; knows no model.
// The contract is that of wmdeploy/programs/contract.py, of one row that sees no real frame.

const ARRAYS = { uint8: Uint8Array, int64: BigInt64Array, float32: Float32Array };
const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);
const alone = (shape) => shape.map((size) => (size === "B" ? 1 : size));

// `read(name)` gives the bytes of a file of the site.
export async function openModel(ort, read, options = { executionProviders: ["wasm"] }) {
  const model = JSON.parse(new TextDecoder().decode(await read("site.json")));
  const data = await read(`model/${model.weights}`);
  const externalData = data.byteLength ? [{ path: model.weights, data }] : [];
  const sessions = {};
  for (const [name, graph] of Object.entries(model.graphs)) {
    const bytes = await read(`model/${graph.file}`);
    sessions[name] = await ort.InferenceSession.create(bytes, { ...options, externalData });
  }
  return new Model(ort, model, sessions, await read("model/starts.bin"));
}

class Model {
  constructor(ort, { programs, graphs, starts }, sessions, bytes) {
    this.ort = ort;
    this.programs = programs;
    this.graphs = graphs;
    this.sessions = sessions;
    this.starts = starts;
    this.bytes = bytes;
    // a prefill for every frame is no difference
    const { refresh, predict } = programs;
    this.refreshes = refresh.length > 0 && JSON.stringify(refresh) !== JSON.stringify(predict);
  }

  tensor(spec, data) {
    return new this.ort.Tensor(spec.dtype, data, alone(spec.shape));
  }

  array({ offset, dtype, shape }) {
    const Kind = ARRAYS[dtype], length = sizeOf(shape);
    return new Kind(this.bytes.slice(offset, offset + length * Kind.BYTES_PER_ELEMENT).buffer);
  }

  async run(name, feeds) {
    return this.sessions[name].run(feeds);
  }
}

export class Session {
  constructor(model) {
    this.model = model;
    this.zeros = new Map();
  }

  begin(number) {
    const start = this.model.starts[number], { programs } = this.model;
    const arrays = (places) =>
      Object.fromEntries(Object.entries(places).map(([key, place]) => [key, this.model.array(place)]));
    this.window = arrays(start.window);
    this.length = start.numbers.length;
    this.stale = Boolean(start.numbers.stale);
    this.clock = start.numbers.clock;
    const state = arrays(start.state);
    this.state = {};
    for (const spec of programs.state) {
      this.state[spec.name] = this.model.tensor(spec, state[`state.${spec.name}`]);
    }
    this.out = {};
  }

  // The next frame after an action, (H·W·3) bytes.
  async step(action) {
    await this.advance(action);
    return this.render();
  }

  async advance(action) {
    const { programs, refreshes } = this.model;
    if (programs.action) this.write("action", this.length - 1, [BigInt(action)]);
    if (this.length > programs.context) this.cut(programs.keep);
    let calls = programs.predict;
    if (refreshes && this.stale) {
      if (programs.refresh_predicts) calls = programs.refresh;
      else await this.run(programs.refresh, {});
    }
    const made = await this.run(calls, {});
    for (const spec of programs.records) this.write(spec.name, this.length, made[spec.name].data);
    this.length += 1;
    this.stale = false;
    this.clock += 1;
  }

  async render() {
    return (await this.run(this.model.programs.render, {})).frame.data;
  }

  // Tensors are never written again, so that references are enough; the window is.
  snapshot() {
    const window = Object.fromEntries(Object.entries(this.window).map(([n, a]) => [n, a.slice()]));
    const { length, stale, clock } = this;
    return { window, length, stale, clock, state: { ...this.state }, out: { ...this.out } };
  }

  restore(snapshot) {
    Object.assign(this, snapshot, { state: { ...snapshot.state }, out: { ...snapshot.out } });
    this.window = Object.fromEntries(
      Object.entries(snapshot.window).map(([name, array]) => [name, array.slice()]),
    );
  }

  // Of one moment.
  bytes() {
    const held = [...Object.values(this.window), ...Object.values(this.state).map((one) => one.data)];
    return held.reduce((sum, array) => sum + array.byteLength, 0);
  }

  // Windows have a slot more than the context.
  width(name) {
    return this.window[name].length / (this.model.programs.context + 1);
  }

  write(name, slot, values) {
    this.window[name].set(values, slot * this.width(name));
  }

  cut(keep) {
    const slots = this.model.programs.context + 1;
    for (const [name, array] of Object.entries(this.window)) {
      const width = this.width(name);
      array.copyWithin(0, (slots - keep) * width, slots * width);
    }
    this.length = keep;
    this.stale = this.model.refreshes;
  }

  async run(calls, made) {
    const drawn = {};
    for (const call of calls) {
      const graph = this.model.graphs[call.graph];
      for (let index = call.start; index < call.start + call.times; index += 1) {
        const feeds = {};
        for (const spec of graph.inputs) {
          feeds[spec.name] = this.source(call.feeds[spec.name], spec, index, made, drawn);
        }
        const outputs = await this.model.run(call.graph, feeds);
        for (const [target, name] of Object.entries(call.gives)) {
          this.give(target, outputs[name], made);
        }
      }
    }
    return made;
  }

  give(target, value, made) {
    const [kind, ...rest] = target.split("."), name = rest.join(".");
    if (kind === "state") this.state[name] = value;
    else if (kind === "out") this.out[name] = value;
    else if (kind === "slot") this.writeSlot(name, value);
    else made[name || kind] = value;
  }

  source(from, spec, index, made, drawn) {
    const { model, window, length } = this;
    const [kind, ...rest] = from.split("."), name = rest.join(".");
    const count = (value) => model.tensor(spec, BigInt64Array.of(BigInt(value)));
    const newest = (record) => {
      const width = this.width(record), at = Math.max(0, length - 1) * width;
      return model.tensor(spec, window[record].slice(at, at + width));
    };
    switch (kind) {
      case "state": return this.state[name];
      case "new": return made[name];
      case "newest": return newest(name);
      case "action": return newest("action");
      case "window":
        return model.tensor(spec, window[name].slice(0, model.programs.context * this.width(name)));
      case "length": return count(length);
      case "position": return count(Math.max(0, length - 1));
      case "index": return count(index);
      case "noise": {
        const noise = model.programs.noise[name], size = sizeOf(alone(spec.shape));
        drawn[name] ??= draw(noise, name, this.clock);
        const whole = spec.shape.length === noise.shape.length + 1;
        const at = whole ? 0 : index * size;
        return model.tensor(spec, drawn[name].slice(at, at + size));
      }
      case "zero": {
        const key = `${spec.dtype} ${spec.shape}`;
        if (!this.zeros.has(key)) {
          const Kind = ARRAYS[spec.dtype];
          this.zeros.set(key, model.tensor(spec, new Kind(sizeOf(alone(spec.shape)))));
        }
        return this.zeros.get(key);
      }
      default: throw new Error(`the programs name ${from}, which is no source in a tab`);
    }
  }

  // Entries of a cache, from where its counter says, along the one axis that the cache has longer.
  writeSlot(target, entries) {
    const [name, counter] = target.split("@");
    const old = this.state[name], dims = old.dims;
    const axis = dims.findIndex((size, at) => size !== entries.dims[at]);
    const inner = sizeOf(dims.slice(axis + 1)), outer = sizeOf(dims.slice(0, axis));
    const from = Number(this.state[counter].data[0]), count = entries.dims[axis];
    if (from < 0 || from + count > dims[axis]) throw new Error(`${name}: no room for entry ${from}`);
    const data = old.data.slice();
    for (let block = 0; block < outer; block += 1) {
      const part = entries.data.subarray(block * count * inner, (block + 1) * count * inner);
      data.set(part, (block * dims[axis] + from) * inner);
    }
    this.state[name] = new this.model.ort.Tensor(old.type, data, dims);
  }
}

// What one frame draws under one name. Other values than a server's: its generator is numpy's.
function draw({ kind, shape }, name, clock) {
  let seed = [...`${name} ${clock}`].reduce((sum, c) => Math.imul(sum ^ c.charCodeAt(0), 16777619), 2166136261);
  const uniform = () => { // mulberry32, in (0, 1]
    seed = (seed + 0x6d2b79f5) | 0;
    let value = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return (((value ^ (value >>> 14)) >>> 0) + 1) / 4294967296;
  };
  return Float32Array.from({ length: sizeOf(shape) }, () => {
    if (kind === "uniform") return uniform();
    if (kind === "gumbel") return -Math.log(-Math.log(Math.min(uniform(), 1 - 2 ** -32)));
    return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  });
}
