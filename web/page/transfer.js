// Chats from files: our own, llama.cpp's web UI's, ChatGPT's, and zip files of them. What a chat is, the server decides.
import { ask, sentence } from "./api.js";
import { size } from "./words.js";

const BATCH_BYTES = 4e6; // of JSON, sent at once
const ITEM_BYTES = 8e6; // the server takes 8 MiB
const FILE_BYTES = 5e8; // unpacked; a text of a browser's cannot be much longer
const UNWHOLE = "This zip file is not whole.";

class Unreadable extends Error {}

// `tell` is called with the number of chats so far. Returns {n, failed: [{name, message}]}.
export async function importFiles(files, tell) {
  const told = { n: 0, failed: [] };
  for (const file of files) {
    try {
      for (const text of await texts(file)) await send(items(await text()), told, tell);
    } catch (error) {
      told.failed.push({ name: file.name, message: error instanceof Unreadable ? error.message : sentence(error) });
    }
  }
  return told;
}

// Functions that read what is in a file, one text each: all of them together may be large.
async function texts(file) {
  const zipped = (await file.slice(0, 4).text()) === "PK\x03\x04";
  if (!zipped) return [() => file.size > FILE_BYTES ? tooLarge(file.size) : file.text()];
  const all = (await entries(file)).filter(({ name }) => /\.jsonl?$/i.test(name));
  const chatgpt = all.filter(({ name }) => /(^|\/)conversations[^/]*\.json$/.test(name)); // beside much else
  const wanted = chatgpt.length ? chatgpt : all;
  if (!wanted.length) throw new Unreadable("There are no chats in it.");
  const n_bytes = wanted.reduce((sum, entry) => sum + entry.n_bytes, 0);
  return n_bytes > FILE_BYTES ? tooLarge(n_bytes) : wanted.map((entry) => () => unpacked(file, entry));
}

function tooLarge(n_bytes) {
  throw new Unreadable(`It is too large (${size(n_bytes)}).`);
}

function items(text) {
  const lines = text.trim().split("\n");
  if (parsed(lines[0])?.type === "session") return sessions(lines.map(parsed));
  const whole = parsed(text);
  if (whole === undefined) throw new Unreadable("It is not JSON.");
  return [(whole?.format === "linnet-chats" && whole.chats) || whole].flat();
}

// A record for each conversation, followed by one for each of its messages.
function sessions(records) {
  const found = [];
  for (const { type, message, ...conv } of records.filter(Boolean)) {
    if (type === "session") found.push({ conv, messages: [] });
    else if (type === "message") found.at(-1).messages.push(message);
  }
  return found;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
}

async function view(file, from, n) {
  if (from + n > file.size) throw new Unreadable(UNWHOLE);
  return new DataView(await file.slice(from, from + n).arrayBuffer());
}

// What a zip file's directory, at its end, says is in it.
async function entries(file) {
  const n_tail = Math.min(file.size, 65557); // a comment may follow
  const tail = await view(file, file.size - n_tail, n_tail);
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at) !== 0x504b0506) at--;
  if (at < 0) throw new Unreadable(UNWHOLE);
  const directory = await view(file, tail.getUint32(at + 16, true), tail.getUint32(at + 12, true));
  const found = [];
  for (let p = 0; p + 46 <= directory.byteLength; ) {
    const [method, n_name, n_extra, n_comment] = [10, 28, 30, 32].map((offset) => directory.getUint16(p + offset, true));
    const [packed, n_bytes, offset] = [20, 24, 42].map((offset) => directory.getUint32(p + offset, true));
    const name = new TextDecoder().decode(directory.buffer.slice(p + 46, p + 46 + n_name));
    found.push({ name, method, packed, n_bytes, offset });
    p += 46 + n_name + n_extra + n_comment;
  }
  return found;
}

// Its text. What the directory says of its size is held to: a few bytes can be packed so that they fill all memory.
async function unpacked(file, { method, packed, n_bytes, offset }) {
  const head = await view(file, offset, 30);
  const begin = offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const data = file.slice(begin, begin + packed);
  if (![0, 8].includes(method)) throw new Unreadable("This zip file is packed in a way that is not known here.");
  const stream = method ? data.stream().pipeThrough(new DecompressionStream("deflate-raw")) : data.stream();
  const pieces = [];
  let left = n_bytes;
  for (const reader = stream.getReader(); ; ) {
    const { value, done } = await reader.read().catch(() => ({ value: { length: Infinity } })); // it makes no sense
    if (done) break;
    left -= value.length;
    if (left < 0) {
      reader.cancel().catch(() => {}); // it may have failed already
      throw new Unreadable(UNWHOLE);
    }
    pieces.push(value);
  }
  return new Blob(pieces).text();
}

const wellFormed = (_, value) => (typeof value === "string" ? value.toWellFormed() : value); // half a character is none

async function send(all, told, tell) {
  let batch = [];
  let bytes = 0;
  const flush = async () => {
    if (!batch.length) return;
    const { chats, failed } = await ask("/api/chats/import", "POST", { items: batch.map(({ item }) => item) });
    for (const { index, message } of failed) told.failed.push({ name: batch[index].name, message });
    tell((told.n += chats.length));
    batch = [];
    bytes = 0;
  };
  for (const [n, given] of all.entries()) {
    const json = JSON.stringify(given, wellFormed);
    const length = new Blob([json]).size;
    const name = given?.title || given?.conv?.name || `chat ${n + 1}`;
    if (length > ITEM_BYTES) {
      told.failed.push({ name, message: `It is too large (${size(length)}).` });
      continue;
    }
    if (bytes + length > BATCH_BYTES) await flush();
    batch.push({ item: JSON.parse(json), name });
    bytes += length;
  }
  await flush();
}
