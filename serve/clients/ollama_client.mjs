// Uses the server through Ollama's client for JavaScript.
//
// ollama_client.mjs URL PHOTO...: the client is in the folder CYCLECAP_CLIENTS.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { Ollama } = createRequire(process.env.CYCLECAP_CLIENTS + "/")("ollama");
const [url, ...paths] = process.argv.slice(2);
const client = new Ollama({ host: url });

// What the server's own form says.
async function own(route, body) {
  const answer = await fetch(url + route, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return answer.json();
}

const images = [readFileSync(paths[0], "base64")];
const want = (await own("/caption", { model: "world:textualised", images })).photos[0].captions[0];
const whole = await client.generate({ model: "world", prompt: "?", images });
assert.equal(whole.response, want.text);
assert.equal(whole.eval_count, want.tokens.length);
let said = "";
let parts = 0;
for await (const part of await client.chat({ model: "world", messages: [{ role: "user", content: "?", images }], stream: true })) {
  parts++;
  said += part.message.content;
}
assert.equal(said, want.text);
assert.ok(parts > want.tokens.length);
const input = ["a red cup", "a dog"];
assert.deepEqual((await client.embed({ model: "world", input })).embeddings, (await own("/features", { texts: input, normalize: true })).texts);
assert.deepEqual((await client.list()).models.map((m) => m.name), ["world:latest", "world:direct", "world:textualised"]);
assert.ok((await client.show({ model: "world" })).capabilities.includes("vision"));
await assert.rejects(client.generate({ model: "world", prompt: "?" }), (e) => e.status_code === 400 && e.message.includes("no image"));
console.log("ok");
