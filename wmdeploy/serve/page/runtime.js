// ONNX Runtime in a tab: on WebGPU, or on wasm.

// Why a model is not to run on WebGPU, or null. `wanted` is as in the page's address: "any" for
// adapters of software too, "none", or null.
export async function refuseGpu(build, wanted) {
  if (!build.webgpu) return "";
  if (wanted === "none") return "as the address asks";
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return "this browser offers no WebGPU";
  const software = adapter.info.isFallbackAdapter ?? adapter.isFallbackAdapter;
  return software && wanted !== "any" ? "this browser's WebGPU is software" : null;
}

// The runtime's module; `address(name)` is that of a file, `get(name)` gives the response. Each provider has
// its own, with its own memory: what a lost GPU leaves behind does wasm no harm.
export async function loadRuntime({ module, loader, binary }, provider, address, get) {
  const own = address(`ort/${module}`);
  own.searchParams.set("provider", provider);
  const ort = await import(own);
  const packed = await get(`ort/${binary}.packed`);
  const unpacked = packed.body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(unpacked).arrayBuffer();
  ort.env.wasm.wasmPaths = { mjs: address(`ort/${loader}`).href };
  ort.env.wasm.numThreads = 1; // more need headers that few static hosts send
  ort.env.logLevel = "error";
  return ort;
}

// What runs on a device may never end once that is lost: here it fails.
export class Gpu {
  constructor(device) {
    this.lost = null; // an error, later
    this.stop = () => {};
    device.lost.then(({ message }) => {
      this.lost = new Error(message || "the device was lost");
      this.stop(this.lost);
    });
  }

  async run(job) {
    if (this.lost) throw this.lost;
    return new Promise((resolve, reject) => {
      this.stop = reject;
      job().then(resolve, reject);
    });
  }
}
