"""Uses the server through Ollama's client for Python: ollama_client.py URL PHOTO..."""

import base64
import json
import struct
import sys
import urllib.request

import ollama

url, *paths = sys.argv[1:]
client = ollama.Client(host=url)


def own(route, **body):
    """What the server's own form says."""
    r = urllib.request.Request(url + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(r))


def bits(rows):
    return [struct.pack(f"<{len(row)}f", *row) for row in rows]


def captions(n=1, **options):
    images = [base64.b64encode(open(p, "rb").read()).decode() for p in paths[:n]]
    return [p["captions"][0] for p in own("/caption", model="world:textualised", images=images, **options)["photos"]]


def refused(status, says, ask):
    try:
        ask()
    except ollama.ResponseError as e:
        assert e.status_code == status and says in e.error, (e.status_code, e.error)
        return
    raise AssertionError("no ResponseError")


def generate():
    want = captions()[0]
    got = client.generate(model="world", prompt="Describe the picture.", images=[paths[0]], logprobs=True)
    assert got.response == want["text"] and got.done and got.done_reason == "stop"
    assert [(t.token, t.logprob) for t in got.logprobs] == [(t["text"], t["logprob"]) for t in want["tokens"]]
    assert got.eval_count == len(want["tokens"]) and 0 < got.eval_duration < got.total_duration and got.prompt_eval_duration > 0
    parts = list(client.generate(model="world:latest", prompt="?", images=[open(paths[0], "rb").read()], stream=True))
    assert "".join(p.response for p in parts) == want["text"] and len(parts) > len(want["tokens"])
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    options = {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "seed": 3, "num_ctx": 2048}
    got = client.generate(model="world", prompt="?", images=[paths[0]], options=options)
    del options["num_ctx"]
    assert got.response == captions(decode="sample", **options)[0]["text"]
    got = client.generate(model="world", prompt="?", images=[paths[0]], options=ollama.Options(num_predict=3))
    assert got.response == captions(max_tokens=3)[0]["text"] and got.done_reason == "length"
    assert client.generate(model="world", keep_alive="5m").done_reason == "load"
    refused(404, "world", lambda: client.generate(model="llava", prompt="?", images=[paths[0]]))
    refused(400, "no image", lambda: client.generate(model="world", prompt="Why is the sky blue?"))
    refused(400, "images[0]", lambda: client.generate(model="world", prompt="?", images=[b"hello"]))
    refused(400, "not JSON", lambda: client.generate(model="world", prompt="?", images=[paths[0]], format="json"))
    refused(400, "no image", lambda: list(client.generate(model="world", prompt="?", stream=True)))


def chat():
    want = "\n".join(c["text"] for c in captions(2))
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "?", "images": paths[:2]}]
    got = client.chat(model="world", messages=messages)
    assert got.message.content == want and got.message.role == "assistant" and got.done_reason == "stop"
    parts = list(client.chat(model="world", messages=messages, stream=True))
    assert "".join(p.message.content for p in parts) == want and len(parts) > 5 and parts[-1].eval_count > 0
    refused(400, "tools", lambda: client.chat(model="world", messages=messages, tools=[captions]))


def embed():
    texts = ["a red cup", "a blue bird on a table"]
    got = client.embed(model="world", input=texts)
    assert bits(got.embeddings) == bits(own("/features", texts=texts, normalize=True)["texts"]) and got.prompt_eval_count == 15
    got = client.embed(model="world", input=texts[0])
    assert bits(got.embeddings) == bits(own("/features", texts=texts[:1], normalize=True)["texts"])
    got = client.embeddings(model="world", prompt=texts[0])
    assert bits([got.embedding]) == bits(own("/features", texts=texts[:1])["texts"])
    refused(400, "truncate", lambda: client.embed(model="world", input="a " * 100, truncate=False))


def models():
    names = ["world:latest", "world:direct", "world:textualised"]
    listed = client.list().models
    assert [m.model for m in listed] == names and all(m.size > 0 and m.digest and m.modified_at for m in listed)
    assert [m.name for m in client.ps().models] == names
    shown = client.show("world")
    assert "vision" in shown.capabilities and "embedding" in shown.capabilities
    assert shown.modelinfo["clip.embedding_length"] == 512 and shown.details.family == "clipcap"
    for change in (
        lambda: client.pull("llava"),
        lambda: client.push("llava"),
        lambda: client.create("mine", from_="world"),
        lambda: client.copy("world", "mine"),
        lambda: client.delete("world"),
    ):
        refused(400, "cannot add, change or remove", change)


generate()
chat()
embed()
models()
print("ok")
