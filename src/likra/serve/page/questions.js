// Files of questions as rows: {id, place, question, options} or {place, fault}.

const QUESTION = ["question", "prompt", "query", "question_stem"];
const OPTIONS = ["options", "choices", "candidates", "answers"];
// Columns with one option each, such as A, option_1, choiceB or answer3.
const OPTION = /^(?:[A-J]|(?:option|choice|candidate|answer|ending)_?(?:[A-Ja-j]|\d+))$/;

/** The rows of a file, by its ending; throws a sentence where nothing can be read. */
export function readQuestions(name, bytes) {
  const kind = /\.[^.]+$/.exec(name.toLowerCase())?.[0];
  const readers = { ".jsonl": jsonLines, ".json": json, ".csv": table, ".tsv": table };
  if (!(kind in readers)) throw new Error(`${name} has an unknown ending. Known are .jsonl, .json, .csv and .tsv.`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${name} is not in UTF-8. Save it in that encoding.`);
  }
  const rows = readers[kind](text, name);
  if (rows.length === 0) throw new Error(`${name} has no questions.`);
  return rows;
}

function jsonLines(text) {
  const lines = text.split("\n").map((line, i) => [`line ${i + 1}`, line]).filter(([, line]) => line.trim());
  return lines.map(([place, line]) => {
    try {
      return rowOf(place, JSON.parse(line));
    } catch {
      return { place, fault: "this is not JSON" };
    }
  });
}

function json(text, name) {
  let rows;
  try {
    rows = JSON.parse(text);
  } catch {
    throw new Error(`${name} is not JSON.`);
  }
  if (!Array.isArray(rows)) throw new Error(`${name} is not a list of questions.`);
  return rows.map((row, i) => rowOf(`row ${i + 1}`, row));
}

function table(text, name) {
  const [header, ...lines] = cells(text, name);
  const names = header?.values.map((value) => value.trim()) ?? [];
  if (!QUESTION.some((known) => names.includes(known))) {
    throw new Error(`${name} has no column question in its first line.`);
  }
  return lines.map(({ line, values }) => {
    const place = `line ${line}`;
    if (values.length > names.length) {
      return { place, fault: `${values.length} values for ${names.length} columns` };
    }
    const row = Object.fromEntries(names.map((name, i) => [name, values[i] ?? ""]));
    for (const list of OPTIONS) {
      if (row[list]?.trim().startsWith("[")) {
        try {
          row[list] = JSON.parse(row[list]);
        } catch { /* it is said below that this is no list */ }
      }
    }
    return rowOf(place, row);
  });
}

/** The values of a table, with the line at which each row begins (RFC 4180). */
function cells(text, name) {
  const separator = separatorOf(text.split("\n", 1)[0], name);
  const rows = [];
  let row = { line: 1, values: [] }, value = "", line = 1, quoted = false;
  const endRow = () => {
    row.values.push(value);
    if (row.values.some((own) => own.trim())) rows.push(row);
    row = { line: line + 1, values: [] };
    value = "";
  };
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (quoted) {
      if (character !== '"') value += character;
      else if (text[i + 1] === '"') value += text[++i];
      else quoted = false;
    } else if (character === '"' && value === "") quoted = true;
    else if (character === separator) {
      row.values.push(value);
      value = "";
    } else if (character === "\n") endRow();
    else if (character !== "\r") value += character;
    if (character === "\n") line++;
  }
  if (quoted) throw new Error(`${name} has a quotation mark in the row of line ${row.line} that is not closed.`);
  if (value || row.values.length) endRow();
  return rows;
}

function separatorOf(header, name) {
  if (/\.tsv$/i.test(name)) return "\t";
  const count = (separator) => header.split(separator).length;
  return [",", ";", "\t"].reduce((best, own) => (count(own) > count(best) ? own : best));
}

function rowOf(place, row) {
  if (row === null || typeof row !== "object" || Array.isArray(row)) return { place, fault: "this is not an object" };
  const question = QUESTION.map((name) => row[name]).find((own) => own !== undefined);
  if (typeof question !== "string" || !question.trim()) return { place, fault: "it has no question, as a text" };
  const options = optionsOf(row);
  if (options === null) return { place, fault: "it has no list of options" };
  if (options.length < 2) return { place, fault: "it has fewer than two options" };
  const { id } = row;
  return { id: id === undefined || id === null || id === "" ? place : String(id), place, question, options };
}

function optionsOf(row) {
  let list = OPTIONS.map((name) => row[name]).find((own) => own !== undefined);
  if (list === undefined) list = Object.keys(row).filter((name) => OPTION.test(name)).map((name) => row[name]).filter((own) => own !== "");
  if (Array.isArray(list?.text)) list = list.text;
  if (!Array.isArray(list)) return null;
  const texts = list.map((own) => (typeof own === "number" ? String(own) : own?.text ?? own));
  return texts.every((own) => typeof own === "string") ? texts : null;
}
