// Requests to the server, and what is said where there is no answer.

const KEY = "likra-key";
const OF_STATUS = {
  401: () => "This server needs a key. Give it above.",
  413: () => "This is too large for the server. Ask for fewer or shorter answers.",
  429: (seconds) => `Too many requests wait at the server. Try again in ${seconds === 1 ? "a second" : `${seconds} seconds`}.`,
  503: () => "The server is too busy for this now, or is shutting down. Try again later.",
  504: () => "The server did not finish this in time. Ask for fewer or shorter answers.",
};

/** There is no answer; `status` is 0 where the server was not reached. */
export class ApiError extends Error {
  constructor(status, message, seconds = 1) {
    super(message);
    this.status = status;
    this.seconds = seconds;
  }
}

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch { /* a browser that keeps nothing */ }

/** Sends this key from now on; the tab keeps it. */
export function useKey(given) {
  key = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch { /* it is kept until the page is left */ }
}

/** The JSON that the server answers to a POST of `body`, or to a GET without one. */
export async function call(path, body, signal) {
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  const options = { headers, signal };
  if (body !== undefined) {
    options.method = "POST";
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(path, options);
    if (response.ok) return await response.json();
    throw await errorOf(response);
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached. See whether it runs, and try again.");
  }
}

async function errorOf(response) {
  const { status } = response;
  const seconds = Number(response.headers.get("Retry-After")) || 1;
  if (status === 401 && key !== null) return new ApiError(401, "The server does not take this key. Give another one above.");
  if (status in OF_STATUS) return new ApiError(status, OF_STATUS[status](seconds), seconds);
  const answer = await response.json().catch(() => null);
  const message = answer?.error?.message ?? `the server answered with status ${status} and gave no reason`;
  return new ApiError(status, sentence(message));
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** With a capital letter and a full stop. */
export const sentence = (text) => capital(text) + (/[.!?]$/.test(text) ? "" : ".");
