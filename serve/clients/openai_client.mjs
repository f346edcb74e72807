// Uses the server through OpenAI's client for JavaScript.
//
// openai_client.mjs URL PHOTO...: the client is in the folder CYCLECAP_CLIENTS.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const OpenAI = createRequire(process.env.CYCLECAP_CLIENTS + "/")("openai").OpenAI;
const [url, ...paths] = process.argv.slice(2);
const photos = paths.map((path) => "data:image/jpeg;base64," + readFileSync(path, "base64"));
const sent = [];
const client = new OpenAI({
  baseURL: url + "/v1",
  apiKey: "none",
  fetch: (to, how) => {
    sent.push(how.body);
    return fetch(to, how);
  },
});

// What the server's own form says.
async function own(route, body) {
  const answer = await fetch(url + route, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return answer.json();
}

const f32 = (rows) => rows.map((row) => Array.from(Float32Array.from(row)));

// The request fails with an exception of a kind, and is not sent again.
async function refused(kind, code, says, ask) {
  const before = sent.length;
  await assert.rejects(ask, (e) => {
    assert.ok(e instanceof kind && e.code === code && e.message.includes(says), `${e.constructor.name} ${e.code} ${e.message}`);
    return true;
  });
  assert.equal(sent.length, before + 1);
}

const ids = [];
for await (const m of client.models.list()) ids.push(m.id);
assert.deepEqual(ids, ["world", "world:direct", "world:textualised"]);
assert.equal((await client.models.retrieve("world:direct")).id, "world:direct");

// Embeddings.
const input = ["a red cup", "a blue bird on a table"];
const texts = f32((await own("/features", { texts: input, normalize: true })).texts);
let got = await client.embeddings.create({ model: "world", input });
assert.ok(sent.at(-1).includes("base64"), "the client does not ask for base64 any more");
assert.deepEqual(f32(got.data.map((d) => d.embedding)), texts);
assert.equal(got.usage.total_tokens, 15);
got = await client.embeddings.create({ model: "world", input, encoding_format: "float" });
assert.deepEqual(f32(got.data.map((d) => d.embedding)), texts);
got = await client.embeddings.create({ model: "world", input: photos, modality: "image" });
assert.deepEqual(f32(got.data.map((d) => d.embedding)), f32((await own("/features", { images: photos, normalize: true })).images));
await refused(OpenAI.BadRequestError, "token_array", "check_embedding_ctx_length=False", () => client.embeddings.create({ model: "world", input: [1, 2] }));
await refused(OpenAI.BadRequestError, "invalid_image", "input[0]", () => client.embeddings.create({ model: "world", input: "aGVsbG8=", modality: "image" }));
await refused(OpenAI.NotFoundError, "model_not_found", "world", () => client.embeddings.create({ model: "gpt-5", input: "a" }));

// Captions.
const chat = { model: "world", messages: [{ role: "user", content: [{ type: "text", text: "?" }, { type: "image_url", image_url: { url: photos[0] } }] }] };
const caption = async (options) => (await own("/caption", { model: "world:textualised", images: photos.slice(0, 1), ...options })).photos[0].captions[0];
const greedy = await caption({});
let answer = await client.chat.completions.create({ ...chat, logprobs: true });
assert.equal(answer.choices[0].message.content, greedy.text);
assert.deepEqual(answer.choices[0].logprobs.content.map((t) => [t.token, t.logprob]), greedy.tokens.map((t) => [t.text, t.logprob]));
const beams = await caption({ decode: "beam" });
answer = await client.chat.completions.create({ ...chat, n: 3 });
assert.deepEqual(answer.choices.map((c) => c.message.content), [beams.text, ...beams.alternatives.slice(0, 2).map((a) => a.text)]);
await refused(OpenAI.BadRequestError, "unsupported_parameter", "stop", () => client.chat.completions.create({ ...chat, stop: "." }));

let said = "";
let parts = 0;
let usage;
for await (const part of await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } })) {
  parts++;
  said += part.choices[0]?.delta.content ?? "";
  usage = part.usage ?? usage;
}
assert.equal(said, greedy.text);
assert.ok(parts > greedy.tokens.length);
assert.equal(usage.completion_tokens, greedy.tokens.length);

// The client's own code puts the answer together.
const final = await client.chat.completions.stream({ ...chat, n: 2 }).finalChatCompletion();
assert.deepEqual(final.choices.map((c) => c.message.content), [beams.text, beams.alternatives[0].text]);

// A stream that is left early.
const left = await client.chat.completions.create({ ...chat, stream: true });
for await (const part of left) break;
assert.equal((await client.chat.completions.create(chat)).choices[0].message.content, greedy.text);
console.log("ok");
