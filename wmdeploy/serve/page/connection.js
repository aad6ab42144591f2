// The WebSocket: commands out, frames and events in; comes back by itself when the line is lost.

export const VERSION = 1;
const COMMANDS = {
  keys: [1, "u8", "u32"], seen: [2, "u32"], pause: [3], resume: [4], step: [5, "u8"],
  start: [6, "u16"], rewind: [7, "u32"], keep: [8], go: [9, "u16"], rate: [10, "u8"], sync: [11],
};
const SIZES = { u8: 1, u16: 2, u32: 4 };
const HEADER = 44;
const PATIENCE = 30_000; // ms for which the server keeps a dream

export function commandBytes(name, ...numbers) {
  const [kind, ...types] = COMMANDS[name];
  const bytes = new Uint8Array(1 + types.reduce((sum, type) => sum + SIZES[type], 0));
  const view = new DataView(bytes.buffer);
  bytes[0] = kind;
  let at = 1;
  types.forEach((type, index) => {
    if (type === "u8") view.setUint8(at, numbers[index]);
    else if (type === "u16") view.setUint16(at, numbers[index], true);
    else view.setUint32(at, numbers[index], true);
    at += SIZES[type];
  });
  return bytes;
}

export function readFrame(buffer) {
  const view = new DataView(buffer);
  const flags = view.getUint8(1);
  const dreamBytes = view.getUint32(40, true);
  return {
    version: view.getUint8(0),
    action: view.getUint8(2),
    rows: view.getUint16(4, true),
    number: view.getUint32(8, true),
    frame: view.getUint32(12, true),
    obeyed: view.getUint32(16, true),
    depth: view.getUint32(20, true),
    stepMs: view.getFloat32(24, true),
    pictureMs: view.getFloat32(28, true),
    waitMs: view.getFloat32(32, true),
    reward: flags & 2 ? view.getFloat32(36, true) : null,
    dream: buffer.slice(HEADER, HEADER + dreamBytes),
    real: flags & 1 ? buffer.slice(HEADER + dreamBytes) : null,
  };
}

export class Connection {
  // `paused`: the dream stands still; `exact`: pictures are exact. `on` has frame(frame),
  // event(object), lost(), ended(reason).
  constructor(address, start, { paused, exact }, on) {
    this.address = address;
    this.start = start;
    this.paused = paused;
    this.exact = exact;
    this.on = on;
    this.session = "";
    this.lostAt = null;
    this.closed = false;
    this.open();
  }

  open() {
    const query = new URLSearchParams(this.address.search);
    query.set("v", VERSION);
    query.set("start", this.start);
    if (this.paused) query.set("paused", "");
    if (this.exact) query.set("exact", "");
    if (this.session) query.set("session", this.session);
    const scheme = this.address.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${this.address.host}/play?${query}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return this.on.frame(readFrame(data));
      const event = JSON.parse(data);
      if (event.kind === "hello") {
        this.session = event.session;
        this.lostAt = null;
      }
      this.on.event(event);
    };
    this.socket.onclose = ({ code, reason }) => this.lost(code, reason);
  }

  lost(code, reason) {
    if (this.closed) return;
    const full = code === 1013 && !this.session; // who comes back waits for a place
    const final = full || [1001, 1008, 1009, 1011, 4400, 4408, 4422].includes(code);
    this.lostAt ??= performance.now();
    if (final || !this.session || performance.now() - this.lostAt > PATIENCE) {
      this.closed = true;
      this.on.ended(reason || (code === 1006 ? "the server cannot be reached" : `closed (${code})`));
      return;
    }
    this.on.lost();
    setTimeout(() => this.open(), 500);
  }

  send(name, ...numbers) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(commandBytes(name, ...numbers));
  }

  close() {
    this.closed = true;
    this.socket.close();
  }
}
