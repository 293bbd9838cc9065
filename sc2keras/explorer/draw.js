"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
});
const READERS = {
  uint8: (buffer) => new Uint8Array(buffer),
  int32: (buffer) => new Int32Array(buffer),
  float32: (buffer) => new Float32Array(buffer),
  float16: (buffer) => {
    const halves = new Uint16Array(buffer);
    return fill(new Float32Array(halves.length), (index) => HALVES[halves[index]]);
  },
};

/* In place of Array.from, which takes ten times as long. */
function fill(made, valueAt) {
  for (let index = 0; index < made.length; index++) made[index] = valueAt(index);
  return made;
}

async function unpack(packed) {
  if (!packed) return null;
  const letters = atob(packed.data);
  const bytes = fill(new Uint8Array(letters.length), (index) => letters.charCodeAt(index));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const read = READERS[packed.dtype](await new Response(stream).arrayBuffer());
  const { scale, offset } = packed;
  const isPlain = scale === 1 && offset === 0;
  const values = isPlain ? read : fill(new Float32Array(read.length), (index) => offset + scale * read[index]);
  const width = packed.shape[1] || 1;
  return { values, n: packed.shape[0], row: (index) => values.subarray(index * width, (index + 1) * width) };
}

function element(tag, properties = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const format = (value, digits = 3) => {
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  const far = magnitude >= 1e5 || magnitude < 1e-3;
  const text = far ? value.toExponential(digits - 1) : Number(value.toPrecision(digits)).toString();
  return text.replaceAll("-", "−");
};
const percent = (share) => `${format(100 * share)}%`;

/* Colours: those of the style, so that they follow light and dark. */
let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["negative", "zero", "positive", "soft", "ink"]) {
    const hex = style.getPropertyValue(`--${name}`).trim();
    colours[name] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }
}
const css = (name) => `rgb(${colours[name].join(" ")})`;

function about(share, channel) {
  const end = (share < 0 ? colours.negative : colours.positive)[channel];
  const strength = Math.min(1, Math.abs(share));
  return colours.zero[channel] + strength * (end - colours.zero[channel]);
}

/* Which values are black and white, or which magnitude has the full colour. */
function levels(values, kind) {
  const [low, high] = data.range || [0, 1];
  if (kind === "sample") return { low, high };
  if (kind === "difference") return { most: high - low };
  let most = 1e-12;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return { most };
}

function drawImage(canvas, values, kind) {
  const { height, width, channels } = data.image;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const { low, high, most } = levels(values, kind);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = values[channels === 3 ? 3 * pixel + channel : pixel];
      let level;
      if (kind === "sample") level = (255 * (value - low)) / (high - low);
      else if (channels === 3) level = 127.5 * (1 + value / most);
      else level = about(value / most, channel);
      pixels.data[4 * pixel + channel] = level;
    }
    pixels.data[4 * pixel + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

function drawBars(canvas, values, kind, large) {
  const [width, height] = large ? [720, 220] : [240, 100];
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const { low, high, most } = levels(values, kind);
  const [bottom, top] = kind === "sample" ? [Math.min(0, low), Math.max(0, high)] : [-most, most];
  const y = (value) => height * (0.96 - (0.92 * (value - bottom)) / (top - bottom || 1));
  const step = width / values.length;
  const bar = Math.max(1, step > 4 ? step - 2 : step);
  values.forEach((value, index) => {
    context.fillStyle = kind === "sample" ? css("ink") : css(value < 0 ? "negative" : "positive");
    context.fillRect(index * step, Math.min(y(value), y(0)), bar, Math.abs(y(value) - y(0)));
  });
  context.fillStyle = css("soft");
  context.fillRect(0, y(0), width, large ? 2 : 1);
}

function draw(canvas, values, kind, large = false) {
  canvas.again = () => draw(canvas, values, kind, large);
  if (data.image) drawImage(canvas, values, kind);
  else drawBars(canvas, values, kind, large);
  return canvas;
}
function drawAllAgain() {
  readColours();
  for (const canvas of document.querySelectorAll("canvas")) canvas.again();
}

/* A list of options of which one is chosen: one stop of the tabulator, arrows inside. */
function listbox(box, choose) {
  const options = () => [...box.children];
  const columns = () => {
    const tops = options().map((option) => option.offsetTop);
    const second = tops.findIndex((top) => top > tops[0]);
    return second < 0 ? tops.length : second;
  };
  function select(option, byUser = true) {
    for (const other of options()) {
      other.setAttribute("aria-selected", other === option);
      other.tabIndex = other === option ? 0 : -1;
    }
    if (byUser) option.focus({ preventScroll: false });
    choose(Number(option.dataset.index));
  }
  box.addEventListener("click", (event) => {
    const option = event.target.closest(".option");
    if (option) select(option);
  });
  box.addEventListener("keydown", (event) => {
    const all = options();
    const now = all.indexOf(document.activeElement);
    if (now < 0) return;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
    const ends = { Home: 0, End: all.length - 1, " ": now, Enter: now };
    const to = event.key in moves ? now + moves[event.key] : ends[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (all[to]) select(all[to]);
  });
  return {
    fill(made) {
      box.replaceChildren(...made);
      for (const option of made) option.tabIndex = -1;
      if (made.length) made[0].tabIndex = 0;
    },
    append(made) {
      for (const option of made) option.tabIndex = -1;
      box.append(...made);
    },
    mark(index) {
      const found = options().find((option) => Number(option.dataset.index) === index);
      for (const other of options()) other.setAttribute("aria-selected", other === found);
      if (!found) return;
      for (const other of options()) other.tabIndex = other === found ? 0 : -1;
    },
    select,
  };
}
