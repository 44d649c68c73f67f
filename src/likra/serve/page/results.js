// A ranking, and the words of its answers.

import { call } from "./api.js";

const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const signed = (value) => `${value > 0 ? "+" : value < 0 ? "\u2212" : ""}${Math.abs(value).toFixed(2)}`;

/** As percent; what is not quite 0 or 100 % is not shown as such. */
export function percent(probability) {
  const text = (100 * probability).toFixed(1);
  if (text === "0.0" && probability > 0) return "< 0.1 %";
  if (text === "100.0" && probability < 1) return "> 99.9 %";
  return `${text} %`;
}

/** Shows a ranking; `report(error)` is told what goes wrong later. */
export function showRanking(question, results, report) {
  $("asked").textContent = question;
  $("ranking").replaceChildren(...results.map((one, i) => answerItem(question, one, i, report)));
  $("scores").querySelector("tbody").replaceChildren(...results.map((one) => tableRow(
    one.text, percent(one.probability), signed(one.score), signed(one.positive_logprob), signed(one.negative_logprob),
  )));
  $("results").hidden = false;
}

function tableRow(head, ...values) {
  return element("tr", {}, element("th", { scope: "row" }, head), ...values.map((value) => element("td", {}, value)));
}

function answerItem(question, one, place, report) {
  const panel = element("div", { id: `words-${place}`, class: "words-panel", "aria-live": "polite", hidden: "" });
  const bar = element("span", { class: "share", "aria-hidden": "true" });
  bar.style.setProperty("--p", `${100 * one.probability}%`);
  const button = element(
    "button",
    { type: "button", class: "answer", "aria-expanded": "false", "aria-controls": panel.id },
    element("span", { class: "text" }, one.text), " ",
    element("span", { class: "percent" }, percent(one.probability)), bar,
  );
  button.addEventListener("click", async () => {
    const opens = panel.hidden;
    panel.hidden = !opens;
    button.setAttribute("aria-expanded", String(opens));
    if (opens && !panel.querySelector(".words")) await explain(question, one.text, panel, report);
  });
  return element("li", {}, button, panel);
}

async function explain(question, answer, panel, report) {
  panel.replaceChildren(element("p", {}, "Reading its words."));
  try {
    const { words, gives_away: worst } = await call("v1/explain", { question, answer });
    panel.replaceChildren(element("p", { class: "says" }, inWords(words, worst)), colouredWords(words), wordTable(words));
  } catch (error) {
    panel.replaceChildren(element("p", { class: "problem" }, error.message));
    report(error);
  }
}

function inWords(words, worst) {
  const least = Math.min(...words.map((word) => word.score));
  if (least < 0) return `\u201c${worst}\u201d speaks most against this answer (${signed(least)}).`;
  return words.length === 1
    ? `\u201c${worst}\u201d speaks for this answer (${signed(least)}).`
    : `No word speaks against this answer; least for it speaks \u201c${worst}\u201d (${signed(least)}).`;
}

/** Each word above its share: blue and underlined if it speaks for the answer, orange and
 * underlined by a wave if against. */
function colouredWords(words) {
  const largest = Math.max(...words.map((word) => Math.abs(word.score))) || 1;
  const marks = words.map(({ text, score }) => {
    const mark = element("mark", { class: score < 0 ? "against" : "for" }, text.trim());
    mark.style.setProperty("--s", `${Math.round((40 * Math.abs(score)) / largest)}%`);
    return element("span", {}, mark, element("small", {}, signed(score)));
  });
  return element("div", { class: "words", "aria-hidden": "true" }, ...marks);
}

function wordTable(words) {
  const head = ["word", "share", "says", "log p+", "log p\u2212"].map((name) => element("th", { scope: "col" }, name));
  const rows = words.map((word) => tableRow(
    word.text.trim(), signed(word.score), word.score < 0 ? "against" : "for",
    signed(word.positive_logprob), signed(word.negative_logprob),
  ));
  return element(
    "details", {}, element("summary", {}, "As a table"),
    element(
      "div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Shares of the words" },
      element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
    ),
  );
}
