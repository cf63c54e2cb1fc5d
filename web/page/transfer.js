// Chats from files: our own, llama.cpp's web UI's, ChatGPT's, and zip files of them. What a chat is, the server decides.
import { ask, sentence } from "./api.js";
import { size } from "./words.js";

const BATCH_BYTES = 4e6; // of JSON, sent at once
const ITEM_BYTES = 8e6; // the server takes 8 MiB
const FILE_BYTES = 5e8; // unpacked; a text of a browser's cannot be much longer
const UNWHOLE = "This zip file is not whole.";

class Unreadable extends Error {}

function refuse(words) {
  throw new Unreadable(words);
}

const tooLarge = (n_bytes) => `It is too large (${size(n_bytes)}).`;

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
  if (!zipped) return [() => file.size > FILE_BYTES ? refuse(tooLarge(file.size)) : file.text()];
  const all = (await entries(file)).filter(({ name }) => /\.jsonl?$/i.test(name));
  const chatgpt = all.filter(({ name }) => /(^|\/)conversations[^/]*\.json$/.test(name)); // beside much else
  const wanted = chatgpt.length ? chatgpt : all;
  if (!wanted.length) refuse("There are no chats in it.");
  const n_bytes = wanted.reduce((sum, entry) => sum + entry.n_bytes, 0);
  if (n_bytes > FILE_BYTES) refuse(tooLarge(n_bytes));
  return wanted.map((entry) => () => unpacked(file, entry));
}

function items(text) {
  const lines = text.trim().split("\n");
  if (parsed(lines[0])?.type === "session") return sessions(lines.map(parsed));
  const whole = parsed(text);
  if (whole === undefined) refuse("It is not JSON.");
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

const wellFormed = (_, value) => (typeof value === "string" ? value.toWellFormed() : value); // half a character is none

function parsed(text) {
  try {
    return JSON.parse(text, wellFormed);
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error; // RangeError: too deep
  }
}

async function view(file, from, n) {
  if (from + n > file.size) refuse(UNWHOLE);
  return new DataView(await file.slice(from, from + n).arrayBuffer());
}

// What a zip file's directory, at its end, says is in it.
async function entries(file) {
  const n_tail = Math.min(file.size, 65557); // a comment may follow
  const tail = await view(file, file.size - n_tail, n_tail);
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at) !== 0x504b0506) at--;
  if (at < 0) refuse(UNWHOLE);
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
  const data = file.slice(begin, begin + packed).stream();
  if (![0, 8].includes(method)) refuse("This zip file is packed in a way that is not known here.");
  const stream = method ? data.pipeThrough(new DecompressionStream("deflate-raw")) : data;
  let left = n_bytes;
  const held = new TransformStream({
    transform(piece, controller) {
      left -= piece.length;
      if (left < 0) refuse(UNWHOLE);
      controller.enqueue(piece);
    },
  });
  return new Response(stream.pipeThrough(held)).text().catch(() => refuse(UNWHOLE)); // what makes no sense fails too
}

async function send(all, told, tell) {
  for (const batch of batches(all, told.failed)) {
    const { chats, failed } = await ask("/api/chats/import", "POST", { items: batch.map(({ item }) => item) });
    for (const { index, message } of failed) told.failed.push({ name: batch[index].name, message });
    tell((told.n += chats.length));
  }
}

function* batches(all, failed) {
  let batch = [];
  let bytes = 0;
  for (const [n, item] of all.entries()) {
    const name = item?.title || item?.conv?.name || `chat ${n + 1}`;
    const length = new Blob([JSON.stringify(item)]).size;
    if (length > ITEM_BYTES) {
      failed.push({ name, message: tooLarge(length) });
      continue;
    }
    if (bytes + length > BATCH_BYTES && batch.length) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push({ item, name });
    bytes += length;
  }
  if (batch.length) yield batch;
}
