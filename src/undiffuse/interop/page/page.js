// The page: controls, the image as it appears, and the command that makes the same one.

const element = (id) => document.getElementById(id);
const [image, film, status, progress, form] = ["image", "film", "status", "progress", "controls"].map(element);
const [seed, steps, guidance, save] = ["seed", "steps", "guidance", "save"].map(element);

let model;
let id = 0;

status.textContent = "Loading…";
const worker = new Worker("worker.js", { type: "module" });
worker.onerror = () => fail("its parts did not load; use a recent Chrome, Edge, Firefox or Safari");
worker.onmessage = ({ data: message }) => {
  const handlers = { loading, ready, step: showStep, done, error: ({ message: text }) => fail(text) };
  if (message.id === undefined || message.id === id) handlers[message.type](message);
};

function loading({ loaded, total }) {
  [progress.value, progress.max] = [loaded, total];
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  status.textContent = `Loading ${megabytes(loaded)} of ${megabytes(total)} MB, once.`;
}

function ready({ model: loaded }) {
  model = loaded;
  for (const count of Object.keys(model.sigmas)) steps.add(new Option(count, count));
  const asked = new URLSearchParams(location.hash.slice(1));
  steps.value = asked.get("steps") in model.sigmas ? asked.get("steps") : model.steps;
  seed.value = /^\d{1,9}$/.test(asked.get("seed")) ? asked.get("seed") : 0;
  const scale = Number(asked.get("guidance") ?? model.guidance);
  guidance.value = Number.isFinite(scale) ? scale : model.guidance;
  element("guided").hidden = !model.unlabeled;
  addClasses(asked.get("label"));
  element("card").textContent = model.card;
  element("about").hidden = !model.card;
  form.hidden = element("same").hidden = element("steps-shown").hidden = false;
  const chosen = form.querySelector(":checked + span");
  if (chosen) chosen.closest(".choices").scrollTop = chosen.offsetTop;
  generate();
  navigator.serviceWorker?.register("offline.js").catch(() => {}); // Without it the page needs the network.
}

function addClasses(asked) {
  const names = [...model.class_names.entries(), ...(model.unlabeled ? [[-1, "any"]] : [])];
  const choices = document.querySelector("#classes .choices");
  for (const [index, name] of names) {
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "label", value: index });
    radio.checked = String(index) === asked;
    const label = document.createElement("label");
    label.append(radio, Object.assign(document.createElement("span"), { textContent: name }));
    choices.append(label);
  }
  const first = choices.querySelector("input");
  if (first && !choices.querySelector(":checked")) first.checked = true;
  element("classes").hidden = !first;
  element("filter").hidden = names.length <= 30;
}

function settings() {
  const label = Number(form.elements.label?.value ?? -1);
  const scale = model.unlabeled && label >= 0 ? Number(guidance.value) : 1;
  return { seed: Number(seed.value), label, steps: Number(steps.value), guidance: scale };
}

function generate() {
  if (!seed.validity.valid) return;
  showGuidance();
  const asked = settings();
  film.replaceChildren();
  save.disabled = true;
  [progress.value, progress.max] = [0, asked.steps];
  status.textContent = `Step 0 of ${asked.steps}`;
  showCommand(asked);
  worker.postMessage({ id: ++id, ...asked });
}

function showStep({ step, steps: total, sigma, ms, noisy, clean }) {
  draw(image, step < total ? noisy : clean);
  const small = document.createElement("canvas");
  draw(small, clean);
  small.title = `step ${step}, down to noise level ${sigma.toPrecision(3)}, ${ms.toFixed(1)} ms`;
  const item = document.createElement("li");
  item.append(small, String(step));
  film.append(item);
  progress.value = step;
  status.textContent = `Step ${step} of ${total}: ${ms.toFixed(0)} ms`;
}

function done({ steps: total, evaluations, ms }) {
  save.disabled = false;
  history.replaceState(null, "", `#${new URLSearchParams(settings())}`); // A link to this image.
  image.setAttribute("aria-label", `${className()}, seed ${seed.value}`.replace(/^, /, ""));
  const counted = `${total} step${total > 1 ? "s" : ""}, ${evaluations} evaluation${evaluations > 1 ? "s" : ""} of the network`;
  status.textContent = `Made in ${ms.toFixed(0)} ms: ${(ms / total).toFixed(1)} ms a step (${counted}).`;
}

function showGuidance() {
  guidance.nextElementSibling.value = Number(guidance.value).toFixed(1);
}

function showCommand({ seed: s, label, steps: n, guidance: scale }) {
  const named = label < 0 ? "none" : /^[\w-]+$/.test(className()) ? className() : label;
  const words = [`undiffuse sample ${model.name}`, "--count 1", `--seed ${s}`, `--sampler ${model.sampler}`, `--steps ${n}`];
  if (model.class_names.length) words.push(`--label ${named}`);
  if (model.unlabeled && label >= 0) words.push(`--guidance ${scale}`);
  const spans = words.map((word) => Object.assign(document.createElement("span"), { textContent: word }));
  element("command").replaceChildren(...spans.flatMap((span) => [span, " "]));
  element("noise").textContent = s < model.seeds
    ? `Seeds 0 to ${model.seeds - 1} start from the command line's noise, which this page has with it.`
    : `From seed ${model.seeds} on the noise is this page's own: here the command line makes another image.`;
}

function className() {
  return form.querySelector('input[name="label"]:checked + span')?.textContent ?? "";
}

function draw(canvas, rgba) {
  const [, height, width] = model.shape;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
}

function fail(reason) {
  status.textContent = `This page cannot run: ${reason}. Reload it to try again.`;
}

form.addEventListener("change", ({ target }) => target.id !== "filter" && generate());
guidance.addEventListener("input", showGuidance);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  seed.value = Number(seed.value) + 1;
  generate();
});
element("filter").addEventListener("input", ({ target }) => {
  for (const label of document.querySelectorAll("#classes label")) {
    label.hidden = !label.textContent.toLowerCase().includes(target.value.toLowerCase());
  }
});
save.addEventListener("click", () => image.toBlob((blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${[model.name, className(), seed.value].filter(Boolean).join("-").replace(/[^\w-]+/g, "_")}.png`;
  link.click();
  URL.revokeObjectURL(link.href);
}));
