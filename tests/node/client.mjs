// A program written for OpenAI's API, unchanged: node client.mjs BASE_URL. Prints what it was told as one JSON object.
// It does not judge; tests/test_clients.py does.

import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = "demo";
const messages = [{ role: "user", content: "What is the capital of France?" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome"] }, metric: { type: "boolean" } },
  required: ["city", "metric"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", description: "The weather of a city.", parameters } }];

async function chat() {
  const whole = await client.chat.completions.create({ model, messages });
  let streamed = "";
  let usage = null;
  for await (const chunk of await client.chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  })) {
    streamed += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  return { whole: whole.choices[0].message.content, streamed, wholeUsage: whole.usage, usage };
}

async function streamHelper() {
  const heard = [];
  const stream = client.chat.completions.stream({ model, messages });
  stream.on("content", (delta) => heard.push(delta));
  const completion = await stream.finalChatCompletion(); // the events come before it
  return { heard, completion };
}

async function toolCall() {
  const pieces = [];
  const stream = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", parallel_tool_calls: false });
  stream.on("tool_calls.function.arguments.delta", (event) => pieces.push(event.arguments_delta));
  const [choice] = (await stream.finalChatCompletion()).choices;
  return { pieces, choice };
}

// The runner calls the function itself; with a named one it ends after the call.
async function toolRunner() {
  const called = [];
  const weather = (where) => {
    called.push(where);
    return "sunny";
  };
  const runner = client.chat.completions.runTools({
    model,
    messages,
    stream: true,
    tools: [{ type: "function", function: { ...tools[0].function, function: weather, parse: JSON.parse } }],
    tool_choice: { type: "function", function: { name: "weather" } },
  });
  await runner.done();
  return { called, roles: runner.messages.map((message) => message.role) };
}

async function structured() {
  const response_format = { type: "json_schema", json_schema: { name: "weather", strict: true, schema: parameters } };
  const parsed = await client.chat.completions.parse({ model, messages, response_format });
  return parsed.choices[0].message.parsed;
}

async function embeddings() {
  const input = ["a fox", "a hedgehog"];
  const base64 = await client.embeddings.create({ model, input }); // asks for base64 and decodes it
  const float = await client.embeddings.create({ model, input, encoding_format: "float" });
  return [base64, float].map((answer) => answer.data.map((one) => one.embedding));
}

async function listed() {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  return names;
}

async function refused() {
  try {
    await client.chat.completions.create({ model: "gpt-9", messages });
  } catch (error) {
    return { isNotFound: error instanceof OpenAI.NotFoundError, status: error.status, code: error.code, param: error.param };
  }
  return null;
}

const acts = { chat, streamHelper, toolCall, toolRunner, structured, embeddings, listed, refused };
const told = {};
for (const [name, act] of Object.entries(acts)) told[name] = await act();
console.log(JSON.stringify(told));
