// The same dream in this tab, beside the server's: every frame with the same action.

import { TabConnection } from "./tab.js";

const WAITING = 60; // frames of the server that the tab has not made yet

export class Follower {
  // Once the tab has loaded the model. `on` has pair(server's pixels, tab's picture),
  // backend(what it runs on, if that changes), ended(reason).
  constructor(start, on) {
    this.on = on;
    this.at = 0; // the newest frame that the tab was asked for
    this.pixels = new Map(); // of the server's frames, by their number
    this.tab = new TabConnection(start, true, {
      frame: (frame) => this.made(frame),
      event: (event) => {
        if (event.kind === "error") this.end(event.message);
        if (event.kind === "backend") on.backend(event);
      },
      ended: (reason) => this.end(reason),
    });
  }

  // The server's frame is painted.
  lead(frame, pixels) {
    if (frame.frame === this.at + 1) this.tab.send("step", frame.action);
    else if (frame.frame < this.at) this.tab.send("rewind", frame.frame);
    else if (frame.frame > this.at) return this.end("frames of the server were lost");
    this.at = frame.frame;
    this.pixels.set(frame.frame, pixels);
    if (this.pixels.size > WAITING) this.end("it is too slow here");
  }

  made(frame) {
    const pixels = this.pixels.get(frame.frame);
    this.pixels.delete(frame.frame);
    if (pixels && frame.frame) this.on.pair(pixels, frame.dream);
  }

  end(reason) {
    if (this.tab.closed) return;
    this.tab.close();
    this.on.ended(reason);
  }

  close() {
    this.tab.close();
  }
}
