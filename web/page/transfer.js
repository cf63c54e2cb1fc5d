// Chats from files: our own, llama.cpp's web UI's, ChatGPT's, and zip files of them. What a chat is, the server decides.
import { ask, sentence } from "./api.js";
import { size } from "./words.js";

const BATCH_BYTES = 4e6; // of JSON, sent at once
const ITEM_BYTES = 8e6; // the server takes 8 MiB

class Unreadable extends Error {}

// `tell` is called with the number of chats so far. Returns {n, failed: [{name, message}]}.
export async function importFiles(files, tell) {
  const told = { n: 0, failed: [] };
  for (const file of files) {
    try {
      await send(await read(file), told, tell);
    } catch (error) {
      told.failed.push({ name: file.name, message: error instanceof Unreadable ? error.message : sentence(error) });
    }
  }
  return told;
}

async function read(file) {
  if ((await file.slice(0, 4).text()) !== "PK\x03\x04") return items(await file.text());
  const all = (await entries(file)).filter(({ name }) => /\.jsonl?$/i.test(name));
  const chatgpt = all.filter(({ name }) => /(^|\/)conversations[^/]*\.json$/.test(name)); // beside much else
  const found = [];
  for (const entry of chatgpt.length ? chatgpt : all) found.push(...items(await unpacked(file, entry)));
  if (!found.length) throw new Unreadable("There are no chats in it.");
  return found;
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

const view = async (file, from, n) => new DataView(await file.slice(from, from + n).arrayBuffer());

// What a zip file's directory, at its end, says is in it.
async function entries(file) {
  const tail = await view(file, Math.max(0, file.size - 65557), 65557); // a comment may follow
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at) !== 0x504b0506) at--;
  if (at < 0) throw new Unreadable("This zip file is not whole.");
  const directory = await view(file, tail.getUint32(at + 16, true), tail.getUint32(at + 12, true));
  const found = [];
  for (let p = 0; p + 46 <= directory.byteLength; ) {
    const [method, n_name, n_extra, n_comment] = [10, 28, 30, 32].map((offset) => directory.getUint16(p + offset, true));
    const [packed, offset] = [20, 42].map((offset) => directory.getUint32(p + offset, true));
    found.push({ name: new TextDecoder().decode(directory.buffer.slice(p + 46, p + 46 + n_name)), method, packed, offset });
    p += 46 + n_name + n_extra + n_comment;
  }
  return found;
}

async function unpacked(file, { method, packed, offset }) {
  const head = await view(file, offset, 30);
  const begin = offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const data = file.slice(begin, begin + packed);
  if (method === 0) return data.text();
  if (method !== 8) throw new Unreadable("This zip file is packed in a way that is not known here.");
  return new Response(data.stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
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
