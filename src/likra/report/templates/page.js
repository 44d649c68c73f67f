// Charts and controls of likra's pages. The data is in the page; nothing is fetched.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 36rem)");
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const OPEN = ["", "-open", "-dot", "-open-dot"]; // markers of sources, where colours are runs
const modes = new Map(data.modes.map((mode) => [mode.name, mode]));
const state = { metric: data.metric, n: data.n, source: data.source, mode: data.weightMode, sourceMode: data.sourceMode };
const off = new Set(); // what is switched off in the legends: "modes/likra"

const byId = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colorOf = (item) => (dark.matches ? item.dark : item.color);
const fade = (color, alpha) => color + Math.round(alpha * 255).toString(16).padStart(2, "0");
const points = (value) => value.toFixed(3);
const interval = (value, low, high) => `<b>${points(value)}</b> [${points(low)}, ${points(high)}]`;
const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// ---------------------------------------------------------------------------------------------
// Charts

function layout(extra) {
  const axis = (more) => ({
    gridcolor: css("--line"), linecolor: css("--strong"), zeroline: false, fixedrange: true,
    ticks: "outside", ticklen: 4, spikecolor: css("--strong"), spikethickness: 1, tickcolor: css("--strong"), automargin: true, ...more,
    title: { text: more?.title ?? "", standoff: 10, font: { size: 13 } },
  });
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: css("--text") },
    paper_bgcolor: css("--paper"), plot_bgcolor: css("--paper"),
    margin: { l: 52, r: 14, t: 10, b: 48 }, showlegend: false, dragmode: false,
    hoverlabel: {
      bgcolor: css("--raised"), bordercolor: css("--line"), align: "left",
      font: { color: css("--text"), size: narrow.matches ? 11 : 12 }, namelength: -1,
    },
    ...extra, xaxis: axis(extra.xaxis), yaxis: axis(extra.yaxis),
  };
}

function draw(id, traces, options) {
  const element = byId(id);
  if (element) Plotly.react(element, traces, layout(options), { displayModeBar: false, responsive: true });
}

/** Ticks of a logarithmic axis that have room; the last one always. */
function ticksOf(numbers, element) {
  const width = element.clientWidth - 70, octaves = Math.log2(numbers.at(-1) / numbers[0]) || 1;
  const chosen = [];
  for (const n of [...numbers].reverse()) {
    const gap = chosen.length ? (Math.log2(chosen.at(-1) / n) / octaves) * width : Infinity;
    if (gap > 14 + 7 * String(n).length) chosen.push(n);
  }
  return chosen.reverse();
}

function logAxis(numbers, element) {
  const ends = [Math.log10(numbers[0]), Math.log10(numbers.at(-1))];
  const margin = Math.max(0.04 * (ends[1] - ends[0]), 0.04);
  const ticks = ticksOf(numbers, element);
  return {
    type: "log", title: "training examples per head (log scale)", tickvals: ticks, ticktext: ticks.map(String),
    range: [ends[0] - margin, ends[1] + margin], unifiedhovertitle: { text: "<b>n = %{x}</b>" },
  };
}

function accuracyRange(lines) {
  const values = lines.flatMap((line) => [...line.value, ...(line.seeds ?? []).flat()]);
  if (!values.length) return [0, 1];
  const low = Math.min(...values), high = Math.max(...values), margin = 0.06 + 0.1 * (high - low);
  return [Math.max(low - margin, -0.02), Math.min(high + margin, 1.02)];
}

/** A line, its interval as a band, and its single seeds. */
function lineTraces(line, x, look) {
  const flat = line.n.length === 1 && line.n[0] === 0;
  const spread = (values) => (flat ? x.map(() => values[0]) : values);
  const [value, low, high] = [line.value, line.low, line.high].map(spread);
  const across = flat ? x : line.n;
  const band = {
    x: [...across, ...[...across].reverse()], y: [...high, ...[...low].reverse()],
    fill: "toself", fillcolor: fade(look.color, flat ? 0.07 : 0.11), line: { width: 0 }, mode: "lines", hoverinfo: "skip",
  };
  const seeds = {
    x: line.n.flatMap((n, i) => line.seeds[i].map(() => n)), y: line.seeds.flat(), mode: "markers",
    marker: { color: fade(look.color, 0.45), size: 4, symbol: look.symbol }, hoverinfo: "skip",
  };
  const main = {
    x: across, y: value, name: look.name, mode: flat ? "lines" : "lines+markers",
    line: { color: look.color, width: 2.4, dash: look.dash }, marker: { size: 8, symbol: look.symbol },
    customdata: value.map((v, i) => interval(v, low[i], high[i])),
    hovertemplate: `${escape(look.name)} %{customdata}<extra></extra>`,
  };
  return flat ? [band, main] : [band, seeds, main];
}

const FEW = 3; // curves whose intervals can still be told apart
const placeOf = (source) => Math.max(data.sources.findIndex((item) => item.name === source), 0);
const switchedOn = (line) => data.runs ? !off.has(`runs/${line.run}`) && !off.has(`sources/${line.source}`) : !line.source || line.source === state.source;
const shown = (line) => !off.has(`modes/${line.mode}`) && switchedOn(line);

function look(line) {
  const mode = modes.get(line.mode);
  const short = mode.label.split(" (")[0];
  if (data.runs) {
    const run = data.runs[line.run], place = data.modes.indexOf(mode);
    return { color: colorOf(run), dash: DASHES[place % DASHES.length], symbol: mode.symbol + OPEN[line.source ? placeOf(line.source) % OPEN.length : 0], name: `${run.name}: ${short}${line.source && line.many ? ` (${line.source})` : ""}` };
  }
  return { color: colorOf(mode), symbol: mode.symbol, name: short, dash: line.n.length === 1 && line.n[0] === 0 ? "dash" : "solid" };
}

function drawCurves() {
  const element = byId("curves");
  if (!element) return;
  const all = data.lines[state.metric], lines = all.filter(shown);
  const axis = logAxis(data.snapshots, element);
  const ends = [10 ** axis.range[0], ...data.snapshots, 10 ** axis.range[1]];
  const traces = lines.flatMap((line) => lineTraces(line, ends, look(line)));
  const chance = data.chance === null ? [] : [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: data.chance, y1: data.chance,
    line: { color: css("--strong"), width: 1, dash: "dot" },
    label: { text: "blind guess", textposition: "end", yanchor: "bottom", font: { size: 11, color: css("--soft") } },
  }];
  draw("curves", traces, {
    hovermode: "x unified", shapes: chance, xaxis: axis,
    yaxis: { title: `accuracy (${state.metric})`, range: accuracyRange(lines.length ? lines : all) },
  });
}

/** The curves of one mode, coloured by source. */
function drawSources() {
  const element = byId("sources");
  if (!element) return;
  const all = data.lines[state.metric].filter((line) => line.mode === state.sourceMode && line.source);
  const lines = all.filter((line) => !off.has(`sources/${line.source}`));
  const traces = lines.flatMap((line) => {
    const source = data.sources[placeOf(line.source)];
    const parts = lineTraces(line, line.n, { color: colorOf(source), symbol: source.symbol, name: source.name, dash: "solid" });
    return lines.length > FEW ? parts.slice(-1) : parts;
  });
  for (const line of data.lines[state.metric].filter((line) => ["sft", "base"].includes(line.mode))) {
    const flat = line.mode === "base", mode = modes.get(line.mode);
    const [main] = lineTraces(line, data.snapshots, { color: css("--soft"), symbol: mode.symbol, name: mode.label.split(" (")[0], dash: flat ? "dash" : "dot" }).slice(-1);
    traces.unshift({ ...main, mode: "lines", line: { ...main.line, width: 1.4 } });
  }
  draw("sources", traces, {
    hovermode: "x unified", xaxis: logAxis(data.snapshots, element),
    yaxis: { title: `accuracy (${state.metric})`, range: accuracyRange(lines.length ? lines : all) },
  });
}

/** From light to dark (or dark to light) with the number of examples. */
function shade(i, count) {
  const part = count > 1 ? i / (count - 1) : 1;
  const [from, to] = dark.matches ? [[84, 94, 128], [255, 214, 102]] : [[158, 202, 225], [8, 48, 107]];
  return "#" + from.map((c, k) => Math.round(c + (to[k] - c) * part).toString(16).padStart(2, "0")).join("");
}

function drawWeights() {
  const wanted = data.weights?.[state.metric].filter((line) => line.mode === state.mode && (!line.source || line.source === state.source));
  if (!wanted) return;
  const lines = wanted.filter((line) => !off.has(`snapshots/${line.n}`));
  const traces = lines.map((line) => {
    const place = data.snapshots.indexOf(line.n), color = shade(place, data.snapshots.length);
    return {
      x: line.weight, y: line.value, name: `n = ${line.n}`, mode: "lines", line: { color, width: 2.4, dash: DASHES[place % 4] },
      customdata: line.value.map((v, i) => interval(v, line.low[i], line.high[i])),
      hovertemplate: `n = ${line.n} %{customdata}<extra></extra>`,
    };
  });
  draw("weights", traces, {
    hovermode: "x unified",
    shapes: [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: data.weight, x1: data.weight, line: { color: css("--strong"), width: 1, dash: "dot" } }],
    xaxis: { title: "weight w of the negative term", unifiedhovertitle: { text: "<b>w = %{x}</b>" } },
    yaxis: { title: `accuracy (${state.metric})`, range: accuracyRange(wanted) },
  });
  for (const chip of document.querySelectorAll('[data-legend="snapshots"] .chip')) {
    const place = data.snapshots.indexOf(Number(chip.dataset.item));
    chip.style.setProperty("--tone", shade(place, data.snapshots.length));
  }
}

function drawDensities() {
  const heads = ["base", "positive", "negative"];
  const current = (data.separation ?? []).filter((p) => (p.n === 0 || p.n === state.n) && (!p.source || p.source === state.source));
  const common = current.filter((p) => heads.includes(p.head));
  const range = [Math.min(...common.map((p) => p.x[0])), Math.max(...common.map((p) => p.x.at(-1)))];
  for (const panel of current) {
    const head = heads.includes(panel.head);
    const traces = ["right", "wrong"].map((kind, i) => ({
      x: panel.x, y: panel[kind], name: `${kind} answers`, mode: "lines", fill: "tozeroy", fillcolor: fade(css(`--${kind}`), 0.16),
      line: { color: css(`--${kind}`), width: 2, dash: DASHES[i] }, hovertemplate: `${kind} answers: %{y:.3g}<extra></extra>`,
    }));
    draw(`density-${head ? panel.head : "ratio"}`, traces, {
      hovermode: "x unified", margin: { l: 44, r: 10, t: 6, b: 40 },
      xaxis: { title: head ? "log-likelihood (nats)" : "ratio (nats)", range: head ? range : undefined, unifiedhovertitle: { text: "%{x:.2f} nats" } },
      yaxis: { title: "density", rangemode: "tozero", nticks: 5 },
    });
  }
}

function drawReliability() {
  const current = (data.reliability ?? []).filter((r) => (r.n === 0 || r.n === state.n) && (!r.source || r.source === state.source) && !off.has(`modes/${r.mode}`));
  const traces = current.map((r) => {
    const mode = modes.get(r.mode), total = r.count.reduce((a, b) => a + b, 0);
    return {
      x: r.x, y: r.y, name: mode.label.split(" (")[0], mode: "lines+markers", line: { color: colorOf(mode), width: 1.6, dash: r.n ? "solid" : "dash" },
      marker: { symbol: mode.symbol, size: r.count.map((c) => 5 + 17 * Math.sqrt(c / total)), opacity: 0.85 },
      customdata: r.count, hovertemplate: `<b>%{fullData.name}</b><br>probability %{x:.2f}<br>right %{y:.2f}<br>%{customdata} predictions<extra></extra>`,
    };
  });
  draw("reliability", traces, {
    hovermode: "closest",
    shapes: [{ type: "line", x0: 0, y0: 0, x1: 1, y1: 1, line: { color: css("--strong"), width: 1, dash: "dot" } }],
    xaxis: { title: "probability of the prediction", range: [0, 1.02] }, yaxis: { title: "share of right predictions", range: [0, 1.04] },
  });
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
  drawCurves(); drawSources(); drawWeights(); drawDensities(); drawReliability();
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
  byId("said").textContent = `${button.dataset.label}: ${button.textContent}`;
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
  } else if (button.matches(".chip")) toggle(button);
  else if (button.matches(".copy")) copy(button);
});
document.addEventListener("dblclick", (event) => {
  const chip = event.target.closest(".chip");
  if (chip) only(chip);
});
for (const query of [dark, narrow]) query.addEventListener("change", update);
for (const element of document.querySelectorAll(".js")) element.hidden = false;
for (const name of data.off ?? []) off.add(name);
update();
