// Runs the model beside the page, so that the page never freezes: takes settings, sends back every step.

import * as ort from "./ort/ort.js";
import { normal } from "./noise.js";
import { clipped, consistency, guided, ipndm, startingNoise } from "./samplers.js";

const FILES = ["model.onnx", "noise.bin", "ort/ort-wasm-simd-threaded.wasm"];

let newest = 0; // The number of the last request: an older one stops after its step.
let queue = load().catch(fail);
let model, session, shippedNoise;

onmessage = ({ data: request }) => {
  newest = request.id;
  queue = queue.then(() => generate(request)).catch(fail);
};

async function load() {
  model = await (await get("model.json")).json();
  const total = FILES.reduce((sum, file) => sum + model.bytes[file], 0);
  let loaded = 0;
  const [network, noise, wasm] = await Promise.all(FILES.map((file) => download(file, (bytes) => {
    loaded += bytes;
    postMessage({ type: "loading", loaded, total });
  })));
  shippedNoise = new Float32Array(noise.buffer);
  ort.env.wasm.wasmBinary = wasm.buffer;
  session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
  postMessage({ type: "ready", model });
}

async function generate({ id, seed, label, steps, guidance }) {
  if (id !== newest) return;
  const size = model.shape.reduce((product, side) => product * side);
  const sigmas = model.sigmas[steps];
  const all = model.draws * size; // What the seed starts from, and what is added on the way.
  const numbers = seed < model.seeds ? shippedNoise.subarray(seed * all, (seed + 1) * all) : normal(seed, all);
  let draws = 0;
  const noise = () => numbers.subarray(draws * size, ++draws * size);
  let evaluations = 0;
  const evaluate = async (x, sigma, labels) => {
    evaluations += labels.length;
    return evaluateNetwork(x, sigma, labels);
  };
  const denoise = guided(evaluate, label, guidance, model.guidance_interval ?? [0, Infinity]);
  const began = performance.now();
  let waited = 0, last = began, step = 0;
  const x = startingNoise(noise(), sigmas[0]);
  const [sampler, option] = { ipndm: [ipndm, model.order], consistency: [consistency, noise] }[model.sampler];
  for await (const { sigma, x: noisy, x0 } of sampler(model.clip ? clipped(denoise) : denoise, x, sigmas, option)) {
    const now = performance.now();
    // x on the range of DDPM's x_t, where noise does not grow with sigma.
    const shown = { noisy: pixels(noisy, 1 / Math.sqrt(1 + sigma ** 2)), clean: pixels(x0) };
    postMessage({ type: "step", id, step: ++step, steps, sigma, ms: now - last, ...shown });
    await new Promise((resolve) => setTimeout(resolve)); // Lets a newer request in.
    if (id !== newest) return;
    last = performance.now();
    waited += last - now;
  }
  postMessage({ type: "done", id, steps, evaluations, ms: last - began - waited });
}

async function evaluateNetwork(x, sigma, labels) {
  const batch = labels.length;
  const images = new Float32Array(batch * x.length);
  labels.forEach((_, i) => images.set(x, i * x.length));
  const { x0 } = await session.run({
    x: new ort.Tensor("float32", images, [batch, ...model.shape]),
    sigma: new ort.Tensor("float32", new Float32Array(batch).fill(sigma), [batch]),
    label: new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [batch]),
  });
  return labels.map((_, i) => Float64Array.from(x0.data.subarray(i * x.length, (i + 1) * x.length)));
}

// From [-1, 1] in planes of channels to red, green, blue and alpha; the array rounds and clips as undiffuse does.
function pixels(x, scale = 1) {
  const [channels, height, width] = model.shape;
  const plane = height * width;
  const planes = { 1: [0, 0, 0], 3: [0, 1, 2], 4: [0, 1, 2, 3] }[channels];
  const rgba = new Uint8ClampedArray(4 * plane).fill(255);
  planes.forEach((from, to) => {
    for (let i = 0; i < plane; i++) rgba[4 * i + to] = (scale * x[from * plane + i] + 1) * 127.5;
  });
  return rgba;
}

async function get(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} is not there (${response.status})`);
  return response;
}

async function download(file, report) {
  const bytes = new Uint8Array(model.bytes[file]);
  const reader = (await get(file)).body.getReader();
  let length = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (length + part.value.length > bytes.length) throw new Error(`${file} is longer than it was`);
    bytes.set(part.value, length);
    length += part.value.length;
    report(part.value.length);
  }
  if (length !== bytes.length) throw new Error(`${file} is not whole`);
  return bytes;
}

function fail(error) {
  postMessage({ type: "error", message: String(error?.message ?? error) });
}
