// Interactive line charts as SVG, without dependencies. Colours come from page.css, so that
// light, dark and printed pages need no redrawing.
"use strict";

const DASHES = { solid: undefined, dashed: "8 5", dotted: "2 4", dashdot: "9 4 2 4", longdash: "15 5" };
const CORNERS = { s: [4, 45], D: [4, 0], "^": [3, 0], v: [3, 180], "<": [3, 270], ">": [3, 90], p: [5, 0], h: [6, 0] };

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const px = (value) => Number(value.toFixed(2));
const toned = (style) => ({ class: "tone", style: `--light:${style.color};--dark:${style.dark}` });
const decimals = (value, digits) => value.toFixed(digits).replace("-", "\u2212");

// ---------------------------------------------------------------------------------------------
// Scales and axes

/** From values in `range` to pixels between `from` and `to`. */
function scale({ range, log }, from, to) {
  const unit = log ? Math.log2 : (value) => value;
  const [low, high] = range.map(unit);
  return (value) => px(from + ((unit(value) - low) / (high - low || 1)) * (to - from));
}

/** About `count` round numbers in the range: [[value, text], ...]. */
function roundTicks([low, high], count) {
  const least = (high - low) / count, power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const first = Math.ceil(low / step - 1e-6), last = Math.floor(high / step + 1e-6);
  return Array.from({ length: last - first + 1 }, (_, i) => {
    const value = (first + i) * step;
    return [value, decimals(value, digits)];
  });
}

function drawAxes(spec, xTicks, yTicks, x, y, box) {
  const axes = svg("g", { class: "axes", "aria-hidden": "true" });
  for (const [value, text] of xTicks) {
    axes.append(svg("path", { class: "grid", d: `M${x(value)} ${box.top}V${box.bottom}` }));
    axes.append(svg("text", { x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, text));
  }
  for (const [value, text] of yTicks) {
    axes.append(svg("path", { class: "grid", d: `M${box.left} ${y(value)}H${box.right}` }));
    axes.append(svg("text", { x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  const middle = (box.top + box.bottom) / 2;
  axes.append(
    svg("path", { class: "frame", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }),
    svg("text", { class: "title", x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, spec.x.title),
    svg("text", { class: "title", transform: `translate(14 ${middle}) rotate(-90)`, "text-anchor": "middle" }, spec.y.title),
  );
  return axes;
}

/** A dotted line between two points, [x, y] each, with a text at its end. */
function drawRule({ from, to, text }, x, y) {
  const [x0, y0, x1, y1] = [x(from[0]), y(from[1]), x(to[0]), y(to[1])];
  const rule = svg("g", { class: "rule" }, svg("path", { d: `M${x0} ${y0}L${x1} ${y1}` }));
  if (text) rule.append(svg("text", { x: x1 - 4, y: y1 - 6, "text-anchor": "end" }, text));
  return rule;
}

// ---------------------------------------------------------------------------------------------
// Series

/** The outline of a marker (named as in matplotlib) around 0, 0. */
function outline(marker, radius) {
  const ring = (count, turn, reach) => Array.from({ length: count }, (_, i) => {
    const angle = ((turn + (360 * i) / count) * Math.PI) / 180;
    return `${px(reach(i) * Math.sin(angle))} ${px(-reach(i) * Math.cos(angle))}`;
  });
  const polygon = (points) => `M${points.join("L")}Z`;
  if (marker === "*") return polygon(ring(10, 0, (i) => radius * (i % 2 ? 0.5 : 1.3)));
  if (marker === "P" || marker === "X") {
    const [long, short] = [1.2 * radius, 0.4 * radius], turn = marker === "X" ? 45 : 0;
    const near = Math.SQRT2 * short, far = Math.hypot(long, short), lean = (Math.atan2(short, long) * 180) / Math.PI;
    const corners = [0, 90, 180, 270].flatMap((quarter) => [
      ...ring(1, turn + quarter - lean, () => far), ...ring(1, turn + quarter + lean, () => far),
      ...ring(1, turn + quarter + 45, () => near),
    ]);
    return polygon(corners);
  }
  if (marker in CORNERS) {
    const [count, turn] = CORNERS[marker];
    return polygon(ring(count, turn, () => radius * (count < 5 ? 1.25 : 1.1)));
  }
  return `M${-radius} 0A${radius} ${radius} 0 1 1 ${radius} 0A${radius} ${radius} 0 1 1 ${-radius} 0Z`;
}

/** A marker; `fill` 0: solid, 1: hollow, 2: hollow with a solid core, 3: with a hollow core. */
function drawMarker(series, point, x, y) {
  const radius = point.size ?? 4, fill = series.fill ?? 0;
  const mark = svg("g", { class: "marker", transform: `translate(${x(point.x)} ${y(point.y)})` },
    svg("path", { class: fill ? "hollow" : "solid", d: outline(series.marker, radius) }));
  if (fill > 1) mark.append(svg("path", { class: fill > 2 ? "hollow" : "solid", d: outline(series.marker, radius * 0.4) }));
  return mark;
}

function drawSeries(series, x, y) {
  const points = series.points, path = (list, end) => list.map((p) => `${x(p.x)} ${y(end(p))}`).join("L");
  const group = svg("g", { ...toned(series), "data-series": series.name });
  if (series.band) {
    const back = [...points].reverse();
    group.append(svg("path", { class: "band", d: `M${path(points, (p) => p.high)}L${path(back, (p) => p.low)}Z` }));
  }
  if (series.area) {
    const [first, last] = [points[0], points.at(-1)];
    group.append(svg("path", { class: "band", d: `M${x(first.x)} ${y(0)}L${path(points, (p) => p.y)}L${x(last.x)} ${y(0)}Z` }));
  }
  for (const [at, value] of series.dots ?? []) group.append(svg("circle", { class: "dot", cx: x(at), cy: y(value), r: 2 }));
  group.append(svg("path", {
    class: "line", d: `M${path(points, (p) => p.y)}`, "stroke-dasharray": DASHES[series.dash], "stroke-width": series.width,
  }));
  if (series.marker) group.append(...points.map((point) => drawMarker(series, point, x, y)));
  return group;
}

// ---------------------------------------------------------------------------------------------
// Tooltip: the nearest point, by mouse, touch or arrow keys

function addTooltip(element, picture, series, x, y, box) {
  const ring = svg("circle", { class: "ring", r: 7, visibility: "hidden" });
  const tip = document.createElement("div");
  tip.className = "tooltip";
  tip.hidden = true;
  picture.append(ring);
  element.append(tip);
  const targets = series.flatMap((s, row) => s.points.map((point) => ({ row, point, x: x(point.x), y: y(point.y) })));
  const inside = targets.filter((t) => t.x >= box.left - 1 && t.x <= box.right + 1);
  let current = null;

  const nearest = (list, distance) => list.reduce((best, t) => (!best || distance(t) < distance(best) ? t : best), null);
  function hide() {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  }
  function show(target, announce = false) {
    if (!target) return;
    current = target;
    const { name, ...style } = series[target.row], title = document.createElement("b");
    title.textContent = name;
    tip.replaceChildren(title, document.createElement("br"), target.point.text);
    tip.hidden = false;
    tip.style.setProperty("--light", style.color);
    tip.style.setProperty("--dark", style.dark);
    for (const [key, value] of [["cx", target.x], ["cy", target.y], ["visibility", "visible"]]) ring.setAttribute(key, value);
    const left = target.x + 14 + tip.offsetWidth > element.clientWidth ? target.x - 14 - tip.offsetWidth : target.x + 14;
    tip.style.left = `${Math.max(0, Math.min(left, element.clientWidth - tip.offsetWidth))}px`;
    const above = target.y - 12 - tip.offsetHeight;
    tip.style.top = `${above < 0 ? target.y + 14 : above}px`;
    if (announce) document.getElementById("status").textContent = `${name}, ${target.point.text}`;
  }
  function step(key) {
    const row = inside.filter((t) => t.row === current.row), place = row.indexOf(current);
    if (key === "ArrowRight" || key === "ArrowLeft") return row[place + (key === "ArrowRight" ? 1 : -1)];
    const column = series.map((_, i) => nearest(inside.filter((t) => t.row === i), (t) => Math.abs(t.x - current.x)));
    const ranked = column.filter(Boolean).sort((a, b) => b.y - a.y || a.row - b.row);
    return ranked[ranked.findIndex((t) => t.row === current.row) + (key === "ArrowUp" ? 1 : -1)];
  }

  const follow = (event) => {
    const frame = element.getBoundingClientRect();
    const [left, top] = [event.clientX - frame.left, event.clientY - frame.top];
    show(nearest(inside, (t) => Math.hypot(t.x - left, t.y - top)));
  };
  element.onpointermove = follow;
  element.onpointerdown = follow;
  element.onpointerleave = (event) => { if (event.pointerType === "mouse") hide(); };
  element.onblur = hide;
  element.onfocus = () => { if (element.matches(":focus-visible")) show(current ?? inside[0], true); };
  element.onkeydown = (event) => {
    if (event.key === "Escape") hide();
    if (!event.key.startsWith("Arrow") || !inside.length) return;
    event.preventDefault();
    show(current ? step(event.key) ?? current : inside[0], true);
  };
}

/**
 * Draw a chart into an element, in place of the one before.
 *
 * x, y: axes: title, range, and ticks ([[value, text], ...]) or none; x may be log (base 2).
 * series: name, color, dark, points ({ x, y, low, high, size, text }), and the look: dash, width,
 *   marker, fill, band, area, dots ([[x, y], ...]).
 * rules: dotted lines, see drawRule.
 */
function chart(element, spec) {
  const [width, height] = [element.clientWidth, element.clientHeight];
  if (!width || !height) return;
  const box = { top: 10, bottom: height - 48, right: width - 14 };
  const yTicks = spec.y.ticks ?? roundTicks(spec.y.range, Math.max(3, Math.round((box.bottom - box.top) / 45)));
  box.left = 34 + 7 * Math.max(...yTicks.map(([, text]) => text.length));
  const xTicks = spec.x.ticks ?? roundTicks(spec.x.range, Math.max(3, Math.round((box.right - box.left) / 75)));
  const x = scale(spec.x, box.left, box.right), y = scale(spec.y, box.bottom, box.top);
  const clip = `${element.id}-clip`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("clipPath", { id: clip }, svg("rect", { x: box.left, y: box.top - 6, width: box.right - box.left + 6, height: box.bottom - box.top + 7 })),
    drawAxes(spec, xTicks, yTicks, x, y, box),
    svg("g", { "clip-path": `url(#${clip})` },
      ...(spec.rules ?? []).map((rule) => drawRule(rule, x, y)),
      ...spec.series.map((series) => drawSeries(series, x, y))));
  element.replaceChildren(picture);
  addTooltip(element, picture, spec.series, x, y, box);
}
