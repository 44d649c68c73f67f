// The form, its link, and the key.

import { call, useKey } from "./api.js";
import { startFileForm } from "./file.js";
import { element, percent, showRanking } from "./results.js";

const EXAMPLE = ["Who wrote The Old Man and the Sea?", ["J. R. R. Tolkien", "Ernest Hemingway", "William Shakespeare", "Leo Tolstoy"]];
const FIELDS = 4; // of an empty form
const $ = (id) => document.getElementById(id);
let onKey = null; // what is done when there is a key
let current = null; // the request whose answer is awaited

// ---------------------------------------------------------------------------------------------
// The form

const fields = () => [...$("answers").querySelectorAll("input")];

function number() {
  fields().forEach((field, i) => {
    field.setAttribute("aria-label", `Answer ${i + 1}`);
    field.nextElementSibling.setAttribute("aria-label", `Remove answer ${i + 1}`);
  });
}

/** A new field after another one, or at the end. */
function addField(text = "", after = null) {
  const field = element("input", { autocomplete: "off", enterkeyhint: "next" });
  field.value = text;
  const remove = element("button", { type: "button", class: "remove" }, "\u00d7");
  const item = element("li", {}, field, remove);
  remove.addEventListener("click", () => removeField(field));
  if (after) after.parentElement.after(item);
  else $("answers").append(item);
  number();
  return field;
}

function removeField(field) {
  const place = fields().indexOf(field);
  field.parentElement.remove();
  if (fields().length === 0) addField();
  number();
  fields()[Math.max(0, place - 1)].focus();
}

function fill(question, answers) {
  $("question").value = question;
  $("answers").replaceChildren();
  const empty = Array(Math.max(0, (answers.length ? 2 : FIELDS) - answers.length)).fill("");
  [...answers, ...empty].forEach((text) => addField(text));
}

$("answers").addEventListener("keydown", (event) => {
  const field = event.target;
  if (field.tagName !== "INPUT" || event.isComposing) return;
  if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    const own = fields();
    (own[own.indexOf(field) + 1] ?? addField()).focus();
  }
  if (event.key === "Backspace" && field.value === "" && fields().length > 2) {
    event.preventDefault();
    removeField(field);
  }
});

$("answers").addEventListener("paste", (event) => {
  const lines = event.clipboardData.getData("text").split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  if (lines.length < 2) return;
  event.preventDefault();
  let field = event.target;
  field.setRangeText(lines.shift(), field.selectionStart, field.selectionEnd, "end");
  for (const line of lines) field = addField(line, field);
  field.focus();
});

$("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
$("add").addEventListener("click", () => addField().focus());
$("example").addEventListener("click", () => {
  fill(...EXAMPLE);
  $("rank").focus();
});

// ---------------------------------------------------------------------------------------------
// Ranking

function complain(message, field = null) {
  $("problem").textContent = message;
  for (const one of [$("question"), ...fields()]) one.removeAttribute("aria-invalid");
  field?.setAttribute("aria-invalid", "true");
  field?.focus();
}

async function rank({ pushes = true, moves = true } = {}) {
  complain("");
  const question = $("question").value.trim();
  const answers = fields().map((field) => field.value.trim()).filter(Boolean);
  if (!question) return complain("Type a question first.", $("question"));
  if (answers.length < 2) {
    return complain("Give at least two answers, to be ranked against one another.", fields().find((field) => !field.value.trim()) ?? addField());
  }
  current?.abort();
  const own = (current = new AbortController());
  $("status").textContent = "Ranking.";
  try {
    const { results } = await call("v1/rank", { question, candidates: answers }, own.signal);
    const link = linkOf(question, answers);
    if (pushes && link !== location.hash) history.pushState(null, "", link);
    showRanking(question, results, (error) => report(error, null));
    $("copied").textContent = "";
    $("link").hidden = true;
    const [best] = results;
    $("status").textContent = `Of ${results.length} answers, \u201c${best.text}\u201d is ranked first, with ${percent(best.probability)}.`;
    document.title = `${question} \u2013 likra`;
    if (moves) $("results-title").focus();
  } catch (error) {
    if (error.name === "AbortError") return;
    $("status").textContent = "";
    $("results").hidden = true;
    complain(error.message);
    report(error, () => rank({ pushes, moves }));
  }
}

// ---------------------------------------------------------------------------------------------
// The link: the question and its answers lie in the fragment, which is not sent to the server

function linkOf(question, answers) {
  return `#${new URLSearchParams([["q", question], ...answers.map((text) => ["a", text])])}`;
}

function openLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const question = link.get("q") ?? "", answers = link.getAll("a");
  fill(question, answers);
  $("results").hidden = true;
  complain("");
  $("status").textContent = "";
  if (question && answers.length > 1) rank({ pushes: false, moves: false });
}

addEventListener("hashchange", openLink);

$("copy").addEventListener("click", async () => {
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const where = local ? " It opens on this computer alone, for so does the server." : "";
  try {
    await navigator.clipboard.writeText(location.href);
    $("copied").textContent = `The link is copied.${where}`;
  } catch { // not allowed, or not over HTTPS
    $("link").hidden = false;
    $("link").value = location.href;
    $("link").select();
    $("copied").textContent = `The browser copies nothing by itself here. Copy the link below.${where}`;
  }
});

// ---------------------------------------------------------------------------------------------
// The key and the model

/** Asks for a key where an error says that it is missing, and then goes on with `again`. */
function report(error, again = onKey) {
  if (error.status !== 401) return;
  onKey = again;
  $("key-form").hidden = false;
  $("key-note").textContent = `${error.message.replace(" above", " here")} This browser tab keeps it until it is closed.`;
  $("key").focus();
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) {
    $("key-note").textContent = "A key is made of ASCII characters, without spaces.";
    $("key").focus();
    return;
  }
  useKey(key);
  $("key-form").hidden = true;
  $("key").value = "";
  $("question").focus();
  if (await showModel()) onKey?.();
});

/** Whether the server told which model it serves. */
async function showModel() {
  try {
    const { data: [model] } = await call("v1/models");
    $("model").textContent = `likra, with the model ${model.id}`;
    $("score-note").textContent = `The negative one's weight is ${model.weight}. The probabilities ${
      model.calibrated ? "are calibrated on questions of the fit" : "were not calibrated"}.`;
    return true;
  } catch (error) {
    if (error.status !== 401) $("status").textContent = error.message;
    report(error);
    return false;
  }
}

startFileForm((error) => report(error, null));
showModel();
openLink();
