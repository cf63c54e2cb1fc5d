// Asks the server again and again how it is, while somebody looks: often while something runs.
import { ask } from "./api.js";

const pauses = { busy_ms: 2000, idle_ms: 10000 }; // between two looks
const LONGEST_MS = 60000; // where the server is away
const told = [];
const failed = [];
let last = null; // as it was told
let n_failed = 0; // looks in a row
let timer = null;
let asking = null; // the look that is under way

// Called with each answer of GET /status, and with the last one at once.
export function onStatus(callback) {
  told.push(callback);
  if (last) callback(last);
}

// Called with the error, and how many there were in a row, when a look has failed.
export const onFailure = (callback) => failed.push(callback);

// For a page that shows nothing else.
export const lookEvery = (ms) => Object.assign(pauses, { busy_ms: ms, idle_ms: ms });

// Looks at once, not when it is due. Returns when it has.
export function pollNow() {
  clearTimeout(timer);
  asking ??= look().finally(() => (asking = null));
  return asking;
}

async function look() {
  let pause_ms = pauses.idle_ms;
  try {
    last = await ask("/status");
    n_failed = 0;
    if (last.slots.busy || last.queue.waiting) pause_ms = pauses.busy_ms;
  } catch (error) {
    n_failed += 1;
    for (const callback of failed) callback(error, n_failed);
    if (error.status === 401) return; // who enters the key looks again
    pause_ms = Math.min(LONGEST_MS, pauses.busy_ms * 2 ** (n_failed - 1));
  }
  if (!n_failed) for (const callback of told) callback(last);
  if (!document.hidden) timer = setTimeout(pollNow, pause_ms);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : pollNow()));
