// The engine in this tab, in the place of a connection to a server.

let worker, opened;
let turns = 0; // dreams that were begun

// Loads the model, once, and says on what it runs: its name, and what failed on the way to it.
// `site`: what its file `info` says, and `base`, the address that its files lie below, with the
// query that they are asked for with. `loading()` is called before.
export function openTab(site, loading) {
  if (!opened) loading();
  opened ??= new Promise((resolve, reject) => {
    worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => (data.opened ? resolve(data.opened) : reject(new Error(data.ended)));
    worker.onerror = (event) => reject(new Error(event.message || "the worker cannot be loaded"));
    const gpu = new URLSearchParams(location.search).get("gpu");
    worker.postMessage([0, "open", { ...site, gpu }]);
  });
  return opened;
}

export class TabConnection {
  // Once the model is loaded. `on` as of a Connection.
  constructor(start, paused, on) {
    this.on = on;
    this.closed = false;
    this.turn = turns += 1;
    worker.onmessage = ({ data }) => {
      if (this.closed || data.turn !== this.turn) return;
      if (data.frame) on.frame(data.frame);
      else if (data.event) on.event(data.event);
      else if (data.ended) this.end(data.ended);
    };
    worker.postMessage([this.turn, "begin", start, !paused]);
  }

  end(reason) {
    this.closed = true;
    this.on.ended(reason);
  }

  send(name, ...numbers) {
    worker.postMessage([this.turn, name, ...numbers]);
  }

  close() {
    this.closed = true;
    worker.postMessage([this.turn, "leave"]);
  }
}
