/* The grid of atoms, and the panel of the one that is chosen. */
const AT_A_TIME = 240;
const arrays = {};
let chosen = 0;
let order = [];
let shown = 0;
let atomList;

const SORTS = {
  fires: ["how often it fires", (j) => -arrays.fires.values[j]],
  mean: ["mean magnitude when it fires", (j) => -arrays.mean.values[j]],
  largest: ["largest magnitude", (j) => -Math.abs(arrays.largest.values[j])],
  norm: ["norm", (j) => -arrays.norm.values[j]],
  index: ["index", (j) => j],
};

const isDead = (j) => Boolean(data.samples) && arrays.fires.values[j] === 0;
const atomName = (j) => `atom ${j}`;

function describeAtom(j) {
  if (!data.samples) return `${atomName(j)}, norm ${format(arrays.norm.values[j])}`;
  if (isDead(j)) return `${atomName(j)}, dead`;
  return `${atomName(j)}, fires for ${percent(arrays.fires.values[j])} of the samples`;
}

function atomOption(j) {
  const share = data.samples ? arrays.fires.values[j] : arrays.norm.values[j];
  const bar = element("i", { style: `width: ${100 * Math.min(1, share)}%` });
  const option = element("div", { className: "option", role: "option", "aria-label": describeAtom(j), title: describeAtom(j) }, [
    draw(element("canvas"), arrays.atoms.row(j), "atom"),
    element("span", { className: "meter" }, [bar]),
    element("span", { className: "name", textContent: isDead(j) ? "dead" : data.samples ? percent(share) : format(share) }),
  ]);
  option.classList.toggle("dead", isDead(j));
  option.dataset.index = j;
  option.setAttribute("aria-selected", j === chosen);
  return option;
}

function arrange() {
  const key = SORTS[byId("sort").value][1];
  const wanted = { all: () => true, alive: (j) => !isDead(j), dead: isDead }[byId("show").value];
  order = [...arrays.norm.values.keys()].filter(wanted).sort((a, b) => key(a) - key(b) || a - b);
  shown = 0;
  atomList.fill([]);
  showMore();
  atomList.mark(chosen);
  if (!byId("grid").querySelector('[tabindex="0"]') && byId("grid").firstChild) byId("grid").firstChild.tabIndex = 0;
}

function showMore() {
  const next = order.slice(shown, shown + AT_A_TIME);
  atomList.append(next.map(atomOption));
  shown += next.length;
  const left = order.length - shown;
  byId("count").textContent = order.length ? `${shown} of ${arrays.norm.n} atoms` : "There is none.";
  byId("more").hidden = left === 0;
  byId("more").textContent = `Show ${Math.min(left, AT_A_TIME)} more`;
}

function rows(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([name, value]) =>
      element("div", {}, [element("dt", { textContent: name }), element("dd", { textContent: value })]),
    ),
  );
}

function chooseAtom(j) {
  chosen = j;
  byId("atom-title").replaceChildren(`Atom ${j}`, ...(isDead(j) ? [element("span", { className: "badge", textContent: "dead" })] : []));
  draw(byId("atom-picture"), arrays.atoms.row(j), "atom", true);
  byId("atom-picture").setAttribute("aria-label", `Picture of atom ${j}`);
  const figures = [["norm", format(arrays.norm.values[j])]];
  if (data.samples) {
    figures.unshift(
      ["fires for", `${percent(arrays.fires.values[j])} of samples`],
      ["mean magnitude", format(arrays.mean.values[j])],
      ["largest entry", format(arrays.largest.values[j])],
    );
    drawHistogram(j);
    fillTop(j);
  }
  rows(byId("atom-figures"), figures);
  fillWeights(j);
  fillAlike(j);
  if (data.samples) byId("add").textContent = `Add atom ${j} to the code below`;
}

const SVG = "http://www.w3.org/2000/svg";
function drawing(tag, properties, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function drawHistogram(j) {
  const counts = arrays.counts.row(j);
  const low = arrays.low.values[j];
  const high = arrays.high.values[j];
  const box = byId("histogram");
  byId("histogram-note").textContent = isDead(j) ? "" : "where it is not zero";
  if (isDead(j)) {
    box.replaceChildren(element("p", { className: "note", textContent: "It fires for no sample." }));
    return;
  }
  const most = Math.max(...counts);
  const svg = drawing("svg", {
    viewBox: "0 0 360 112",
    role: "img",
    "aria-label": `Histogram of the entry of atom ${j}, from ${format(low)} to ${format(high)}; at most ${most} samples in a bin`,
  });
  const step = 360 / counts.length;
  counts.forEach((count, bin) => {
    const height = (84 * count) / most;
    const bar = drawing("rect", { class: "bar", x: bin * step + 0.5, y: 90 - height, width: step - 1, height });
    bar.append(drawing("title", {}, `${count} samples`));
    svg.append(bar);
  });
  svg.append(drawing("line", { x1: 0, x2: 360, y1: 90.5, y2: 90.5 }));
  if (low < 0 && high > 0) {
    const zero = (-360 * low) / (high - low);
    svg.append(drawing("line", { x1: zero, x2: zero, y1: 2, y2: 94, "stroke-dasharray": "3 3" }));
    svg.append(drawing("text", { x: zero, y: 107, "text-anchor": "middle" }, zero > 60 && zero < 300 ? "0" : ""));
  }
  svg.append(drawing("text", { x: 0, y: 107 }, format(low)));
  svg.append(drawing("text", { x: 360, y: 107, "text-anchor": "end" }, format(high)));
  box.replaceChildren(svg);
}

function thumb(values, kind, caption, label, act) {
  const button = element("button", { type: "button", className: "thumb", "aria-label": label, title: label }, [
    draw(element("canvas"), values, kind),
    caption,
  ]);
  button.addEventListener("click", act);
  return element("li", {}, [button]);
}

function fillTop(j) {
  const places = [...arrays.top.row(j)].filter((place) => place >= 0);
  const thumbs = places.map((place) => {
    const entry = arrays.codes.row(place)[j];
    const label = `Show sample ${arrays.rows.values[place]}, entry ${format(entry)}`;
    return thumb(arrays.x.row(place), "sample", format(entry, 2), label, () => showSample(place));
  });
  const none = isDead(j) ? "There is none." : "None of them is held in this page.";
  byId("top").replaceChildren(...(thumbs.length ? thumbs : [element("li", { className: "note", textContent: none })]));
}

function featureName(index) {
  return data.features ? data.features[index] : `feature ${index}`;
}

function fillWeights(j) {
  byId("weights-part").hidden = Boolean(data.image);
  if (data.image) return;
  const weights = [...arrays.atoms.row(j)].map((weight, index) => [weight, index]);
  weights.sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
  byId("weights").replaceChildren(
    ...weights.slice(0, 6).map(([weight, index]) =>
      element("li", {}, [element("span", { textContent: featureName(index) }), element("span", { textContent: format(weight) })]),
    ),
  );
}

function mostAlike(j, n) {
  const atom = arrays.atoms.row(j);
  const cosines = [];
  for (let other = 0; other < arrays.norm.n; other++) {
    if (other === j) continue;
    let product = 0;
    arrays.atoms.row(other).forEach((value, index) => (product += value * atom[index]));
    cosines.push([product / (arrays.norm.values[j] * arrays.norm.values[other] || 1), other]);
  }
  return cosines.sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, n);
}

function fillAlike(j) {
  byId("alike").replaceChildren(
    ...mostAlike(j, data.image ? 8 : 4).map(([cosine, other]) => {
      const label = `Show atom ${other}, cosine ${format(cosine)}`;
      return thumb(arrays.atoms.row(other), "atom", format(cosine, 2), label, () => showAtom(other));
    }),
  );
}

function showAtom(j) {
  chooseAtom(j);
  atomList.mark(j);
  byId("atom-title").focus();
}

function startAtoms() {
  const names = data.samples ? Object.keys(SORTS) : ["norm", "index"];
  byId("sort").append(...names.map((name) => element("option", { value: name, textContent: SORTS[name][0] })));
  const key = (name, text) => element("span", {}, [element("i", { style: `background: var(--${name})` }), ` ${text}`]);
  const signed = !data.image || data.image.channels === 1;
  byId("legend").append(...(signed ? [key("negative", "negative"), key("positive", "positive")] : ["Grey is zero. "]));
  byId("legend").append(data.samples ? "The bar: how often it fires." : "The bar: its norm.");
  atomList = listbox(byId("grid"), chooseAtom);
  byId("sort").addEventListener("change", arrange);
  byId("show").addEventListener("change", arrange);
  byId("more").addEventListener("click", showMore);
  arrange();
  atomList.mark(order[0]);
  chooseAtom(order[0]);
}
