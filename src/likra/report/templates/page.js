// Charts and controls of likra's pages. The data is in the page; nothing is fetched.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const STROKES = Object.keys(DASHES);
const FEW = 3; // curves whose intervals can still be told apart
const HEADS = ["base", "positive", "negative"];
const REFERENCES = ["likra", "sft", "base"]; // in every panel of modes
const modes = new Map(data.modes.map((mode) => [mode.name, mode]));
const state = { metric: data.metric, n: data.n, source: data.source, weight_mode: data.weight_mode, source_mode: data.source_mode };
const off = new Set(); // what is switched off in the legends: "modes/likra"

const byId = (id) => document.getElementById(id);
const short = (label) => label.split(" (")[0];
const interval = (value, low, high) => `${decimals(value, 3)} [${decimals(low, 3)}, ${decimals(high, 3)}]`;
const isUntrained = (line) => line.n.length === 1 && line.n[0] === 0;

const untrained = new Set(data.curves[data.metric].filter(isUntrained).map((line) => line.mode));
const SOFT = { color: "var(--soft)", dark: "var(--soft)" };

// ---------------------------------------------------------------------------------------------
// Looks: colours are modes or sources; in a comparison they are runs, and dashes are modes

function modeLook(name) {
  const mode = modes.get(name), isFlat = untrained.has(name);
  if (data.runs) return { ...SOFT, marker: mode.marker, dash: STROKES[data.modes.indexOf(mode) % STROKES.length] };
  return { ...mode, dash: isFlat ? "dashed" : "solid", marker: isFlat ? "" : mode.marker };
}

function sourceLook(name) {
  const place = Math.max(data.sources.findIndex((item) => item.name === name), 0);
  return data.runs ? { ...SOFT, marker: "o", fill: place % 4 } : data.sources[place];
}

function snapshotLook(n) {
  const place = data.snapshots.indexOf(n);
  return { ...data.shades[place], dash: STROKES[place % 4] };
}

const ANSWERS = ["right", "wrong"];
const answersLook = (kind) => ({ color: `var(--${kind})`, dark: `var(--${kind})`, dash: STROKES[ANSWERS.indexOf(kind)] });

const LOOKS = { modes: modeLook, sources: sourceLook, snapshots: (n) => snapshotLook(Number(n)), runs: (number) => data.runs[number] };

/** A line with its marker, for the legend. */
function swatch(look) {
  const line = svg("path", { class: "line", d: "M0 7H28", "stroke-dasharray": DASHES[look.dash] });
  const marker = look.marker ? [drawMarker(look, { x: 14, y: 7, size: 4 }, Number, Number)] : [];
  return svg("svg", { viewBox: "0 0 28 14", class: "swatch", "aria-hidden": "true" }, svg("g", toned(look), line, ...marker));
}

// ---------------------------------------------------------------------------------------------
// Charts

/** The numbers of examples as a logarithmic axis; its ticks have room, the last one always. */
function examplesAxis(numbers, element) {
  const [first, last] = [numbers[0], numbers.at(-1)].map(Math.log2), octaves = last - first || 1;
  const width = element.clientWidth - 80, margin = Math.max(0.04 * (last - first), 0.12);
  const ticks = [];
  for (const n of [...numbers].reverse()) {
    const gap = ticks.length ? (Math.log2(ticks.at(-1) / n) / octaves) * width : Infinity;
    if (gap > 14 + 7 * String(n).length) ticks.push(n);
  }
  return {
    title: "training examples per head (log scale)", log: true,
    range: [2 ** (first - margin), 2 ** (last + margin)], ticks: ticks.reverse().map((n) => [n, String(n)]),
  };
}

function accuracyAxis(lines) {
  const axis = { title: `accuracy (${state.metric})`, range: [0, 1] };
  const values = lines.flatMap((line) => [...line.value, ...(line.seeds ?? []).flat()]);
  if (!values.length) return axis;
  const low = Math.min(...values), high = Math.max(...values), margin = 0.06 + 0.1 * (high - low);
  return { ...axis, range: [Math.max(low - margin, -0.02), Math.min(high + margin, 1.02)] };
}

/** A learning curve; what is not trained runs along all of `across`. */
function curve(line, across, style) {
  const point = (x, i, at) => ({
    x, y: line.value[i], low: line.low[i], high: line.high[i], text: `${at}: ${interval(line.value[i], line.low[i], line.high[i])}`,
  });
  if (isUntrained(line)) return { ...style, marker: "", points: across.map((x) => point(x, 0, "untrained")) };
  const dots = line.n.flatMap((n, i) => line.seeds[i].map((value) => [n, value]));
  return { ...style, points: line.n.map((n, i) => point(n, i, `n = ${n}`)), dots: style.band ? dots : [] };
}

const switchedOn = (line) => data.runs ? !off.has(`runs/${line.run}`) && !off.has(`sources/${line.source}`) : !line.source || line.source === state.source;
const isShown = (line) => !off.has(`modes/${line.mode}`) && switchedOn(line);

function lineLook(line) {
  const name = short(modes.get(line.mode).label);
  if (!data.runs) return { ...modeLook(line.mode), name, band: true };
  const run = data.runs[line.run], source = line.source && line.many ? ` (${line.source})` : "";
  const fill = line.source ? sourceLook(line.source).fill : 0;
  return { ...modeLook(line.mode), ...run, name: `${run.name}: ${name}${source}`, fill, band: true };
}

/** The curves of a panel's modes; all panels have the same axes, and the references without bands. */
function drawCurves(element, group) {
  const all = data.curves[state.metric], lines = all.filter(isShown), x = examplesAxis(data.snapshots, element);
  const isOwn = (line) => !group || group.includes(line.mode);
  const across = [x.range[0], ...data.snapshots, x.range[1]];
  const rules = data.chance === null ? [] : [{ from: [x.range[0], data.chance], to: [x.range[1], data.chance], text: "chance" }];
  const here = lines.filter((line) => isOwn(line) || REFERENCES.includes(line.mode));
  const series = here.map((line) => curve(line, across, isOwn(line) ? lineLook(line) : { ...lineLook(line), band: false, marker: "" }));
  series.reverse(); // the first one on top
  chart(element, { x, y: accuracyAxis(lines.length ? lines : all), rules, series });
}

/** The curves of one mode, coloured by source, over those of SFT and the base in grey. */
function drawSources(element, group) {
  const all = data.curves[state.metric], ofMode = all.filter((line) => line.mode === state.source_mode && line.source);
  const lines = ofMode.filter((line) => !off.has(`sources/${line.source}`)), x = examplesAxis(data.snapshots, element);
  const across = [x.range[0], ...data.snapshots, x.range[1]];
  const others = all.filter((line) => ["sft", "base"].includes(line.mode)).map((line) => curve(line, across, {
    ...SOFT, name: short(modes.get(line.mode).label), width: 1.4, dash: line.mode === "base" ? "dashed" : "dotted",
  }));
  const here = lines.filter((line) => group.includes(line.source));
  const series = here.map((line) => curve(line, across, { ...sourceLook(line.source), name: line.source, band: here.length <= FEW }));
  chart(element, { x, y: accuracyAxis(lines.length ? lines : ofMode), series: [...others, ...series] });
}

function drawWeights(element) {
  const all = data.weight_curves[state.metric].filter((line) => line.mode === state.weight_mode && (!line.source || line.source === state.source));
  const lines = all.filter((line) => !off.has(`snapshots/${line.n}`)), y = accuracyAxis(all);
  const series = lines.map((line) => ({
    ...snapshotLook(line.n), name: `n = ${line.n}`,
    points: line.weight.map((w, i) => ({ x: w, y: line.value[i], text: `w = ${w}: ${interval(line.value[i], line.low[i], line.high[i])}` })),
  }));
  const weights = all.flatMap((line) => line.weight), rules = [{ from: [data.weight, y.range[0]], to: [data.weight, y.range[1]] }];
  chart(element, { x: { title: "weight w of the negative term", range: [Math.min(...weights), Math.max(...weights)] }, y, rules, series });
}

const isCurrent = (row) => (row.n === 0 || row.n === state.n) && (!row.source || row.source === state.source);

function drawDensities() {
  const panels = (data.separation ?? []).filter(isCurrent);
  const heads = panels.filter((panel) => HEADS.includes(panel.head)).map((panel) => panel.range);
  const range = [Math.min(...heads.map(([low]) => low)), Math.max(...heads.map(([, high]) => high))];
  const top = (some) => 1.08 * Math.max(...some.flatMap((panel) => [...panel.right, ...panel.wrong]));
  const highest = top(panels.filter((panel) => HEADS.includes(panel.head)));
  for (const panel of panels) {
    const isHead = HEADS.includes(panel.head), [low, high] = panel.range;
    const series = ANSWERS.map((kind) => ({
      name: `${kind} answers`, ...answersLook(kind), width: 2, area: true,
      points: panel[kind].map((density, k) => {
        const nats = low + ((high - low) * k) / (panel[kind].length - 1);
        return { x: nats, y: density, text: `${decimals(nats, 2)} nats: density ${density}` };
      }),
    }));
    chart(byId(`density-${panel.slot}`), {
      x: { title: isHead ? "log-likelihood (nats)" : "ratio (nats)", range: isHead ? range : panel.range },
      y: { title: "density", range: [0, isHead ? highest : top([panel])] }, series,
    });
  }
}

function drawReliability(element) {
  const series = data.reliability.filter((row) => isCurrent(row) && !off.has(`modes/${row.mode}`)).map((row) => {
    const mode = modes.get(row.mode), total = row.count.reduce((a, b) => a + b, 0);
    return {
      ...mode, name: short(mode.label), marker: mode.marker || "o", width: 1.6, dash: row.n ? "solid" : "dashed",
      points: row.x.map((p, i) => ({
        x: p, y: row.y[i], size: 2.5 + 8 * Math.sqrt(row.count[i] / total),
        text: `probability ${decimals(p, 2)}, right ${decimals(row.y[i], 2)}, ${row.count[i]} predictions`,
      })),
    };
  });
  chart(element, {
    x: { title: "probability of the prediction", range: [0, 1.02] }, y: { title: "share of right predictions", range: [0, 1.04] },
    rules: [{ from: [0, 0], to: [1, 1] }], series: series.reverse(),
  });
}

const CHARTS = { curves: drawCurves, sources: drawSources, weights: drawWeights, reliability: drawReliability };

/** What is wider than the page scrolls in a box of its own, which the keyboard must reach. */
function letScroll() {
  for (const box of document.querySelectorAll(".wide")) {
    const scrolls = box.scrollWidth > box.clientWidth;
    const attributes = { tabindex: "0", role: "region", "aria-label": "A wide table: the arrow keys scroll it." };
    for (const [name, value] of Object.entries(attributes)) scrolls ? box.setAttribute(name, value) : box.removeAttribute(name);
  }
}

function drawAll() {
  for (const [id, draw] of Object.entries(CHARTS)) {
    for (const [i, group] of (data.groups?.[id] ?? [null]).entries()) {
      const element = byId(i ? `${id}-${i}` : id);
      if (element) draw(element, group);
    }
  }
  drawDensities();
  letScroll();
}

// ---------------------------------------------------------------------------------------------
// Controls

function update() {
  for (const control of document.querySelectorAll("[data-pick]")) {
    for (const button of control.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.value === String(state[control.dataset.pick])));
    }
  }
  for (const chip of document.querySelectorAll(".chip")) {
    chip.setAttribute("aria-pressed", String(!off.has(`${chip.parentElement.dataset.legend}/${chip.dataset.item}`)));
  }
  for (const element of document.querySelectorAll("[data-at-n], [data-at-source], [data-at-metric]")) {
    const { atN, atSource, atMetric } = element.dataset;
    element.hidden = (atN && atN !== "0" && Number(atN) !== state.n) || (atSource && atSource !== state.source) || (atMetric && atMetric !== state.metric);
  }
  drawAll();
}

function toggle(chip) {
  const name = `${chip.parentElement.dataset.legend}/${chip.dataset.item}`;
  if (!off.delete(name)) off.add(name);
  update();
}

/** A double click shows one alone, and then all again. Its two single clicks cancel out. */
function only(chip) {
  const group = chip.parentElement.dataset.legend;
  const names = [...chip.parentElement.querySelectorAll(".chip")].map((c) => `${group}/${c.dataset.item}`);
  const mine = `${group}/${chip.dataset.item}`, others = names.filter((name) => name !== mine);
  const alone = others.every((name) => off.has(name)) && !off.has(mine);
  names.forEach((name) => off.delete(name));
  if (!alone) others.forEach((name) => off.add(name));
  update();
}

async function copy(button) {
  const text = byId(button.dataset.from).textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // pages opened from a file may not have it
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  button.dataset.label ??= button.textContent;
  button.textContent = done ? "Copied ✓" : "Copying is not allowed here";
  button.dataset.done = "";
  byId("status").textContent = `${button.dataset.label}: ${button.textContent}`;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = button.dataset.label;
    delete button.dataset.done;
  }, 1800);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const pick = button.closest("[data-pick]");
  if (pick) {
    const value = button.dataset.value;
    state[pick.dataset.pick] = pick.dataset.pick === "n" ? Number(value) : value;
    update();
  } else if (button.matches(".chip")) event.shiftKey ? only(button) : toggle(button);
  else if (button.matches(".copy")) copy(button);
});
document.addEventListener("dblclick", (event) => {
  const chip = event.target.closest(".chip");
  if (chip) only(chip);
});
document.addEventListener("pointerdown", (event) => { // a touch beside a chart closes its tooltip
  for (const element of document.querySelectorAll(".chart")) if (!element.contains(event.target)) element.onblur?.();
});
for (const element of document.querySelectorAll(".js")) element.hidden = false;
for (const chip of document.querySelectorAll(".chip")) chip.prepend(swatch(LOOKS[chip.parentElement.dataset.legend](chip.dataset.item)));
for (const key of document.querySelectorAll("[data-key]")) key.prepend(swatch(answersLook(key.dataset.key)));
document.addEventListener("toggle", letScroll, true); // a table in what was folded
window.addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details")) folded.open = true; });
for (const name of data.off ?? []) off.add(name);
update();

let width = document.body.clientWidth;
new ResizeObserver(() => {
  if (document.body.clientWidth !== width) drawAll();
  width = document.body.clientWidth;
}).observe(document.body);
