/* A sample, its code under sliders, and the signal that the code stands for. */
const SLIDERS = 12;
let place = 0;
let ofModel = new Float32Array();
let code = new Float32Array();
let listed = [];
let sampleList;
let pictures;

const isNonzero = (entry) => Math.abs(entry) > data.threshold;
const byMagnitude = (entries) =>
  [...entries.keys()].filter((j) => entries[j] !== 0).sort((a, b) => Math.abs(entries[b]) - Math.abs(entries[a]));

/* x̂ = s D, and what a code of zeros stands for. */
function decode(entries) {
  const signal = Float32Array.from(arrays.offset.values);
  entries.forEach((entry, j) => {
    if (entry !== 0) arrays.atoms.row(j).forEach((value, index) => (signal[index] += entry * value));
  });
  return signal;
}

/* What an entry costs: one weight, or one an atom, and the ℓ2 term. */
function costOf(entry, j) {
  const weight = Array.isArray(data.l1) ? data.l1[j] : data.l1;
  return weight * Math.abs(entry) + 0.5 * data.l2 * entry * entry;
}

function figuresOf(entries) {
  const x = arrays.x.row(place);
  const reconstruction = decode(entries);
  const difference = x.map((value, index) => value - reconstruction[index]);
  const error = 0.5 * difference.reduce((sum, value) => sum + value * value, 0);
  const norm = entries.reduce((sum, entry) => sum + Math.abs(entry), 0);
  const nonzero = entries.reduce((count, entry) => count + isNonzero(entry), 0);
  const objective = data.l1 === null ? null : entries.reduce((sum, entry, j) => sum + costOf(entry, j), error);
  return { reconstruction, difference, objective, error, norm, nonzero };
}

function render() {
  const now = figuresOf(code);
  draw(pictures.x, arrays.x.row(place), "sample", true);
  draw(pictures.reconstruction, now.reconstruction, "sample", true);
  draw(pictures.difference, now.difference, "difference", true);
  const before = figuresOf(ofModel);
  before.error = arrays.error.values[place];
  const table = [["½‖x − x̂‖²", "error"], ["‖s‖₁", "norm"], ["nonzero entries", "nonzero"]];
  if (data.l1 !== null) {
    table.unshift(["objective", "objective"]);
    before.objective = arrays.objective.values[place];
  }
  const cells = (name, ...values) =>
    element("tr", {}, [element("th", { scope: "row", textContent: name }), ...values.map((text) => element("td", { textContent: text }))]);
  byId("sample-figures").replaceChildren(
    ...table.map(([name, key]) => cells(name, format(before[key], 4), format(now[key], 4))),
    ...(arrays.gap ? [cells("duality gap", percent(arrays.gap.values[place]), "–")] : []),
  );
  byId("reset").disabled = code.every((entry, j) => entry === ofModel[j]);
}

function rangeOf(j) {
  const ends = [0, arrays.low.values[j], arrays.high.values[j], ofModel[j], code[j]];
  const low = Math.min(...ends);
  const high = Math.max(...ends);
  return low === high ? [-1, 1] : [1.25 * low, 1.25 * high];
}

function slider(j) {
  const [min, max] = rangeOf(j);
  const id = `entry-${j}`;
  const input = element("input", { type: "range", id, min, max, step: "any" });
  const output = element("output", { htmlFor: id });
  const row = element("div", { className: "slider" }, [
    draw(element("canvas", { "aria-hidden": "true" }), arrays.atoms.row(j), "atom"),
    element("label", { htmlFor: id, textContent: atomName(j) }),
    input,
    output,
  ]);
  row.refresh = () => {
    input.value = code[j];
    output.textContent = format(code[j]);
  };
  input.addEventListener("input", () => {
    code[j] = Number(input.value);
    output.textContent = format(code[j]);
    render();
  });
  row.refresh();
  return row;
}

function fillSliders(n) {
  byId("sliders").replaceChildren(...listed.slice(0, n).map(slider));
  const left = listed.length - byId("sliders").children.length;
  byId("more-sliders").hidden = left <= 0;
  byId("more-sliders").textContent = `Show ${left} more entries`;
}

function refresh() {
  for (const row of byId("sliders").children) row.refresh();
  render();
}

function showKept() {
  byId("keep-value").textContent = `${byId("keep").value} of ${byId("keep").max}`;
}

function keep() {
  const kept = new Set(byMagnitude(ofModel).slice(0, Number(byId("keep").value)));
  code = ofModel.map((entry, j) => (kept.has(j) ? entry : 0));
  showKept();
  refresh();
}

function reset() {
  code = Float32Array.from(ofModel);
  listed = byMagnitude(ofModel);
  byId("keep").max = listed.length;
  byId("keep").value = listed.length;
  showKept();
  fillSliders(SLIDERS);
  render();
}

function chooseSample(index) {
  place = index;
  ofModel = arrays.codes.row(place);
  const name = `sample ${arrays.rows.values[place]}`;
  byId("sample-name").textContent = name[0].toUpperCase() + name.slice(1);
  const says = { x: `Signal x, ${name}`, reconstruction: "Its reconstruction", difference: "Their difference" };
  for (const [key, label] of Object.entries(says)) pictures[key].setAttribute("aria-label", label);
  reset();
}

function showSample(index) {
  chooseSample(index);
  sampleList.mark(index);
  byId("codes-title").focus();
  byId("codes").scrollIntoView();
}

function addAtom() {
  const j = chosen;
  if (!listed.includes(j)) listed = [j, ...listed];
  else listed = [j, ...listed.filter((other) => other !== j)];
  if (code[j] === 0) code[j] = arrays.mean.values[j] * Math.sign(arrays.largest.values[j]) || 1;
  fillSliders(Math.max(SLIDERS, byId("sliders").children.length));
  render();
  byId(`entry-${j}`).focus();
}

function sampleOption(index) {
  const label = `sample ${arrays.rows.values[index]}`;
  const option = element("div", { className: "option", role: "option", "aria-label": label, title: label }, [
    draw(element("canvas"), arrays.x.row(index), "sample"),
  ]);
  option.dataset.index = index;
  return option;
}

function startCodes() {
  pictures = {};
  for (const [key, caption] of [["x", "x"], ["reconstruction", "x̂"], ["difference", "x − x̂"]]) {
    pictures[key] = element("canvas", { className: "picture", role: "img" });
    byId("three").append(element("figure", {}, [pictures[key], element("figcaption", { textContent: caption })]));
  }
  sampleList = listbox(byId("strip"), chooseSample);
  sampleList.fill([...Array(data.samples.n_spread).keys()].map(sampleOption));
  byId("keep").addEventListener("input", keep);
  byId("reset").addEventListener("click", reset);
  byId("add").addEventListener("click", addAtom);
  byId("more-sliders").addEventListener("click", () => fillSliders(listed.length));
  sampleList.mark(0);
  chooseSample(0);
}

async function start() {
  const packed = { atoms: data.atoms, offset: data.offset, norm: data.norm, ...data.figures };
  if (data.samples) {
    const { rows, x, codes, objective, error, gap } = data.samples;
    Object.assign(packed, { rows, x, codes, objective, error, gap });
  }
  for (const [name, array] of Object.entries(packed)) arrays[name] = await unpack(array);
  document.body.classList.toggle("bars", !data.image);
  readColours();
  startAtoms();
  if (data.samples) startCodes();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAllAgain);
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  byId("problem").hidden = false;
  byId("problem").textContent = `This page cannot be shown (${error}). Open it in a current browser.`;
});
