// Ranking a file: a few questions at a time, so that the server can rank them together.

import { ApiError, call, capital, sentence } from "./api.js";
import { readQuestions } from "./questions.js";

const AT_ONCE = 6; // requests, as many as browsers send to one server
const TRIES = 30; // of a request that the server is too busy for
const FAULTS_SHOWN = 200;
const $ = (id) => document.getElementById(id);
const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

let running = null;

/** Connects the form; `onKeyNeeded` is called where the server refuses the key. */
export function startFileForm(onKeyNeeded) {
  $("file").addEventListener("change", () => {
    $("rank-file").disabled = $("file").files.length === 0;
  });
  $("cancel").addEventListener("click", () => running?.abort());
  $("file-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = $("file").files[0];
    if (!file || running) return;
    running = new AbortController();
    begin();
    try {
      await rankFile(file, running, onKeyNeeded);
    } finally {
      running = null;
      end();
    }
  });
  addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault();
  });
}

function begin() {
  for (const id of ["file-status", "file-problem", "count"]) $(id).textContent = "";
  for (const id of ["faults", "download"]) $(id).hidden = true;
  $("rank-file").disabled = $("file").disabled = true;
  $("cancel").hidden = false;
  $("cancel").focus();
}

function end() {
  const focused = document.activeElement === $("cancel");
  $("rank-file").disabled = $("file").disabled = false;
  $("cancel").hidden = $("progress").hidden = true;
  if (focused) ($("download").hidden ? $("rank-file") : $("download")).focus();
}

async function rankFile(file, controller, onKeyNeeded) {
  let rows;
  try {
    rows = readQuestions(file.name, await file.arrayBuffer());
  } catch (error) {
    const isRead = !(error instanceof DOMException); // one that was changed or removed meanwhile is not
    $("file-problem").textContent = isRead ? error.message : `${file.name} cannot be read. Choose it again.`;
    return;
  }
  $("file-status").textContent = `Ranking ${count(rows.length, "question")}.`;
  $("progress").hidden = false;
  $("bar").max = rows.length;
  const { ranked, faults, stop } = await rankRows(rows, controller, showProgress);
  if (stop) $("file-problem").textContent = stop.message;
  if (stop?.status === 401) onKeyNeeded(stop);
  offer(file.name, ranked.filter(Boolean));
  showFaults(faults.filter(Boolean));
  $("file-status").textContent = summary(rows.length, ranked.filter(Boolean).length, faults.filter(Boolean).length);
}

function showProgress(done, all) {
  $("bar").value = done;
  $("count").textContent = `${done.toLocaleString("en")} of ${all.toLocaleString("en")}`;
}

function summary(all, ranked, left) {
  const rest = all - ranked - left;
  const parts = [`${ranked.toLocaleString("en")} of ${count(all, "question")} ranked`];
  if (left) parts.push(`${left.toLocaleString("en")} left out`);
  if (rest) parts.push(`${rest.toLocaleString("en")} not asked`);
  return `${parts.join(", ")}.`;
}

/** What came of each row, at its place. One that fails leaves the others alone; without a server or
 * a key, and when cancelled, it stops. */
async function rankRows(rows, controller, onProgress) {
  const ranked = [], faults = [];
  let next = 0, done = 0, stop = null;
  async function work() {
    while (next < rows.length && !controller.signal.aborted) {
      const place = next++;
      const row = rows[place];
      try {
        if (row.fault) throw new ApiError(422, sentence(row.fault));
        ranked[place] = { id: row.id, ...await patiently(row, controller.signal) };
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof ApiError) || error.status === 0 || error.status === 401) {
          stop ??= error;
          controller.abort();
          return;
        }
        faults[place] = `${capital(row.place)}: ${error.message}`;
      }
      onProgress(++done, rows.length);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { ranked, faults, stop };
}

/** Asks again where the server is busy, when it says. */
async function patiently({ question, options }, signal) {
  for (let tries = 1; ; tries++) {
    try {
      const { results } = await call("v1/rank", { question, candidates: options }, signal);
      return asRow(results);
    } catch (error) {
      if (![429, 503].includes(error.status) || tries === TRIES) throw error;
      await pause(1000 * error.seconds, signal);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** As `likra rank` writes a row. */
function asRow(results) {
  const options = results.map(({ index, ...option }) => option);
  return { prediction: options[0].text, probability: options[0].probability, options };
}

function offer(name, ranked) {
  const link = $("download");
  if (link.href) URL.revokeObjectURL(link.href);
  link.hidden = ranked.length === 0;
  const lines = ranked.map((row) => `${JSON.stringify(row)}\n`);
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = `${name.replace(/\.[^.]+$/, "")}.ranked.jsonl`;
}

function showFaults(faults) {
  const details = $("faults");
  details.hidden = faults.length === 0;
  details.querySelector("summary").textContent = `${count(faults.length, "question")} left out`;
  const items = faults.slice(0, FAULTS_SHOWN);
  if (faults.length > items.length) items.push(`and ${count(faults.length - items.length, "other")}`);
  details.querySelector("ul").replaceChildren(...items.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}
