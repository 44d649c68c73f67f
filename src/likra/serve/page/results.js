// A ranking, and the words of its answers.

import { call } from "./api.js";

const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const rounded = (value) => Number(value.toFixed(2)); // what is shown as 0.00 has no sign

export function signed(value) {
  const sign = Math.sign(rounded(value));
  return `${["\u2212", "", "+"][sign + 1]}${Math.abs(value).toFixed(2)}`;
}

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

const SAYS = ["against", "neither", "for"]; // also the classes of page.css
const says = (score) => SAYS[Math.sign(rounded(score)) + 1];

function inWords(words, worst) {
  const scores = words.map((word) => word.score);
  const least = Math.min(...scores), most = Math.max(...scores);
  if (says(least) === "against") return `\u201c${worst}\u201d speaks most against this answer (${signed(least)}).`;
  if (says(most) === "neither") return "No word speaks for this answer or against it.";
  const best = words[scores.indexOf(most)].text.trim();
  return `\u201c${best}\u201d speaks most for this answer (${signed(most)}), and no word against it.`;
}

/** Each word above its share: blue and underlined if it speaks for the answer, orange and
 * underlined by a wave if against. */
function colouredWords(words) {
  const largest = Math.max(...words.map((word) => Math.abs(word.score))) || 1;
  const marks = words.map(({ text, score }) => {
    const mark = element("mark", { class: says(score) }, text.trim());
    mark.style.setProperty("--s", `${Math.round((40 * Math.abs(score)) / largest)}%`);
    return element("span", {}, mark, element("small", {}, signed(score)));
  });
  return element("div", { class: "words", "aria-hidden": "true" }, ...marks);
}

function wordTable(words) {
  const head = ["word", "share", "speaks", "log p+", "log p\u2212"].map((name) => element("th", { scope: "col" }, name));
  const rows = words.map((word) => tableRow(
    word.text.trim(), signed(word.score), says(word.score),
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
