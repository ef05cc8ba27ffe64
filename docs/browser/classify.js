// Classifies a dropped picture with an exported network, by onnxruntime-web.
//
// `?model=FOLDER` names the folder of quantized.onnx, preprocessor_config.json and classes.json.
// `?runtime=FOLDER` names the folder of onnxruntime-web, in place of the one below.

const asked = new URLSearchParams(location.search);
const folder = asked.get("model") ?? "digits";
const runtime = asked.get("runtime") ?? "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist";
const shown = Object.fromEntries(
  ["model", "drop", "file", "seen", "classes", "time"].map((id) => [id, document.getElementById(id)]),
);

/** Width and height that a picture is resized to. Where the network resizes nothing, its crop is filled. */
function resized({ width, height }, { size, crop_size: crop, do_resize: resize }) {
  if (resize !== false && !size.shortest_edge) return [size.width, size.height];
  const shorter = resize === false ? crop.width : size.shortest_edge;
  const factor = shorter / Math.min(width, height);
  return [Math.round(width * factor), Math.round(height * factor)];
}

/** Draws what the network sees: the picture resized, and its middle cut out. */
function drawCrop(picture, preprocessing) {
  const { width: cropWidth, height: cropHeight } = preprocessing.crop_size;
  const [width, height] = resized(picture, preprocessing);
  const canvas = shown.seen;
  [canvas.width, canvas.height, canvas.hidden] = [cropWidth, cropHeight, false];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const [left, top] = [Math.round((cropWidth - width) / 2), Math.round((cropHeight - height) / 2)];
  context.drawImage(picture, left, top, width, height);
  return context.getImageData(0, 0, cropWidth, cropHeight);
}

/** Pixels [height * width * 4] as normalised floats [channels * height * width]. */
function asInput({ data, width, height }, { image_mean: mean, image_std: std }) {
  const count = width * height;
  const values = new Float32Array(mean.length * count);
  for (let pixel = 0; pixel < count; pixel++) {
    const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
    const channels =
      mean.length === 1 ? [Math.round(0.299 * red + 0.587 * green + 0.114 * blue)] : [red, green, blue];
    channels.forEach((value, channel) => {
      values[channel * count + pixel] = (value / 255 - mean[channel]) / std[channel];
    });
  }
  return values;
}

/** Probabilities of classes. One output is the log odds of the second of two. */
function softmax(outputs) {
  const logits = outputs.length > 1 ? outputs : [0, ...outputs];
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function showClasses(probabilities, names) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
  shown.classes.replaceChildren(
    ...order.map((index) => {
      const item = document.createElement("li");
      const share = document.createElement("span");
      share.textContent = `${(100 * probabilities[index]).toFixed(1)} %`;
      item.append(names?.[index] ?? `class ${index}`, share);
      return item;
    }),
  );
}

async function readJson(name) {
  const answer = await fetch(`${folder}/${name}`);
  if (!answer.ok) throw new Error(`${folder}/${name} is missing`);
  return answer.json();
}

async function start() {
  const ort = await import(`${runtime}/ort.wasm.bundle.min.mjs`);
  ort.env.wasm.wasmPaths = new URL(`${runtime}/`, location.href).href;
  ort.env.wasm.numThreads = 1;
  const preprocessing = await readJson("preprocessor_config.json");
  const names = await readJson("classes.json");
  const session = await ort.InferenceSession.create(`${folder}/quantized.onnx`);
  shown.model.textContent = `Ready: ${folder}.`;

  async function classify(file) {
    const pixels = drawCrop(await createImageBitmap(file), preprocessing);
    const shape = [1, preprocessing.image_mean.length, pixels.height, pixels.width];
    const input = new ort.Tensor("float32", asInput(pixels, preprocessing), shape);
    const began = performance.now();
    const { logits } = await session.run({ pixel_values: input });
    shown.time.textContent = `${(performance.now() - began).toFixed(0)} ms`;
    showClasses(softmax(logits.data), names);
  }

  const tried = (file) => classify(file).catch((error) => (shown.time.textContent = `${error}`));
  shown.file.addEventListener("change", () => shown.file.files[0] && tried(shown.file.files[0]));
  shown.drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    shown.drop.classList.add("over");
  });
  shown.drop.addEventListener("dragleave", () => shown.drop.classList.remove("over"));
  shown.drop.addEventListener("drop", (event) => {
    event.preventDefault();
    shown.drop.classList.remove("over");
    if (event.dataTransfer.files[0]) tried(event.dataTransfer.files[0]);
  });
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  shown.model.textContent = `${error}`;
});
