"""Uses the server through OpenAI's client for Python, and through LangChain's.

openai_client.py URL URL_WITH_KEY PHOTO...: the second server has the key "secret".
"""

import asyncio
import base64
import json
import struct
import sys
import urllib.request

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types import CreateEmbeddingResponse

url, locked, *paths = sys.argv[1:]
photos = ["data:image/jpeg;base64," + base64.b64encode(open(p, "rb").read()).decode() for p in paths]
requests = []
client = openai.OpenAI(
    base_url=url + "/v1", api_key="none", http_client=openai.DefaultHttpxClient(event_hooks={"request": [requests.append]})
)


def own(route, **body):
    """What the server's own form says."""
    r = urllib.request.Request(url + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(r))


def bits(rows):
    return [struct.pack(f"<{len(row)}f", *row) for row in rows]


def refused(kind, code, says, ask):
    """Checks that a request fails with an exception of a kind, and was not sent again."""
    before = len(requests)
    try:
        ask()
    except kind as e:
        assert type(e) is kind and e.code == code and says in str(e), (type(e), e.code, str(e))
        assert len(requests) == before + 1, "the client sent it again"
        return e
    raise AssertionError(f"no {kind.__name__}")


def models():
    assert [m.id for m in client.models.list()] == ["world", "world:direct", "world:textualised"]
    assert client.models.retrieve("world:direct").id == "world:direct"
    refused(openai.NotFoundError, "model_not_found", "world", lambda: client.models.retrieve("gpt-5"))


def embeddings():
    texts = ["a red cup", "a blue bird on a table"]
    want = bits(own("/features", texts=texts, normalize=True)["texts"])

    got = client.embeddings.create(model="world", input=texts)
    assert b'"encoding_format":"base64"' in requests[-1].read().replace(b" ", b""), "the client does not ask for base64 any more"
    assert bits(d.embedding for d in got.data) == want
    assert got.usage.total_tokens == 15 and [d.index for d in got.data] == [0, 1]

    got = client.embeddings.create(model="world", input=texts, encoding_format="float", dimensions=512, user="me")
    assert bits(d.embedding for d in got.data) == want
    got = client.embeddings.create(model="world", input=texts, extra_body={"normalize": False})
    assert bits(d.embedding for d in got.data) == bits(own("/features", texts=texts)["texts"])
    got = client.embeddings.create(model="world", input="cat " * 100, extra_body={"truncate": True})
    assert bits(d.embedding for d in got.data) == bits(own("/features", texts=["cat " * 100], normalize=True)["texts"])

    want = bits(own("/features", images=photos, normalize=True)["images"])
    got = client.embeddings.create(model="world", input=photos, extra_body={"modality": "image"})
    assert bits(d.embedding for d in got.data) == want
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": photos[0]}}]}
    got = client.post("/embeddings", body={"model": "world", "messages": [message]}, cast_to=CreateEmbeddingResponse)
    assert bits(d.embedding for d in got.data) == bits(own("/features", images=photos[:1], normalize=True)["images"])

    create = client.embeddings.create
    refused(openai.BadRequestError, "token_array", "check_embedding_ctx_length=False", lambda: create(model="world", input=[[1, 2]]))
    e = refused(openai.BadRequestError, "invalid_value", "512", lambda: create(model="world", input="a", dimensions=8))
    assert e.param == "dimensions"
    refused(openai.BadRequestError, "context_length_exceeded", "truncate", lambda: create(model="world", input="cat " * 100))
    broken = "data:image/jpeg;base64,aGVsbG8="
    refused(openai.BadRequestError, "invalid_image", "input[0]", lambda: create(model="world", input=broken, extra_body={"modality": "image"}))
    refused(openai.NotFoundError, "model_not_found", "world", lambda: create(model="text-embedding-3-small", input="a"))


def chat(n=1):
    content = [{"type": "text", "text": "What is this?"}]
    content += [{"type": "image_url", "image_url": {"url": p, "detail": "low"}} for p in photos[:n]]
    return {"model": "world", "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": content}]}


def captions(n=1, **options):
    return [p["captions"][0] for p in own("/caption", model="world:textualised", images=photos[:n], **options)["photos"]]


def chats():
    create = client.chat.completions.create
    want = captions()[0]
    got = create(**chat(), logprobs=True)
    choice = got.choices[0]
    assert choice.message.content == want["text"] and choice.finish_reason == "stop"
    assert [(t.token, t.logprob, bytes(t.bytes).decode()) for t in choice.logprobs.content] == [(t["text"], t["logprob"], t["text"]) for t in want["tokens"]]
    assert got.usage.completion_tokens == len(want["tokens"])
    assert create(**chat(2)).choices[0].message.content == "\n".join(c["text"] for c in captions(2))

    beams = captions(decode="beam")[0]
    got = create(**chat(), n=3)
    assert [c.message.content for c in got.choices] == [beams["text"]] + [a["text"] for a in beams["alternatives"][:2]]
    sampled = create(**chat(), temperature=0.9, top_p=0.9, seed=3).choices[0].message.content
    assert sampled == captions(decode="sample", temperature=0.9, top_p=0.9, seed=3)[0]["text"]
    cut = create(**chat(), max_completion_tokens=3).choices[0]
    assert cut.finish_reason == "length" and cut.message.content == captions(max_tokens=3)[0]["text"]

    parts = list(create(**chat(), stream=True, logprobs=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == want["text"]
    assert len(parts) > len(want["tokens"]) and parts[-1].usage.completion_tokens == len(want["tokens"])
    told = [t.logprob for p in parts if p.choices and p.choices[0].logprobs for t in p.choices[0].logprobs.content]
    assert told == [t["logprob"] for t in want["tokens"]]

    # The client's own code puts the answer together.
    with client.chat.completions.stream(**chat(), n=2, logprobs=True) as stream:
        deltas = [e for e in stream if e.type == "content.delta"]
        final = stream.get_final_completion()
    assert len(deltas) > 3
    assert [c.message.content for c in final.choices] == [beams["text"], beams["alternatives"][0]["text"]]
    assert [c.finish_reason for c in final.choices] == ["stop", "stop"]
    assert [t.logprob for t in final.choices[0].logprobs.content] == [t["logprob"] for t in beams["tokens"]]

    # A stream that is left early.
    stream = create(**chat(), stream=True)
    next(iter(stream))
    stream.close()
    assert create(**chat()).choices[0].message.content == want["text"]

    refused(openai.BadRequestError, "unsupported_parameter", "stop", lambda: create(**chat(), stop=["."]))
    refused(openai.BadRequestError, "unsupported_parameter", "top_logprobs", lambda: create(**chat(), logprobs=True, top_logprobs=2))
    refused(openai.BadRequestError, "invalid_value", "64", lambda: create(**chat(), n=100))
    text = [{"role": "user", "content": "Hello"}]
    refused(openai.BadRequestError, "no_image", "image", lambda: create(model="world", messages=text, stream=True))


async def together():
    """Several streams at once."""
    many = openai.AsyncOpenAI(base_url=url + "/v1", api_key="none")

    async def one():
        stream = await many.chat.completions.create(**chat(), stream=True)
        return "".join([p.choices[0].delta.content or "" async for p in stream])

    assert set(await asyncio.gather(*(one() for _ in range(4)))) == {captions()[0]["text"]}


def keys():
    assert openai.OpenAI(base_url=locked + "/v1", api_key="secret").models.list().data
    wrong = openai.OpenAI(base_url=locked + "/v1", api_key="wrong")
    try:
        wrong.models.list()
    except openai.AuthenticationError as e:
        assert e.code == "invalid_api_key", e.code
    else:
        raise AssertionError("a wrong key is let in")


def langchain():
    texts = ["a red cup", "a blue bird on a table"]
    embed = OpenAIEmbeddings(model="world", base_url=url + "/v1", api_key="none", check_embedding_ctx_length=False)
    assert bits(embed.embed_documents(texts)) == bits(own("/features", texts=texts, normalize=True)["texts"])
    model = ChatOpenAI(model="world", base_url=url + "/v1", api_key="none")
    message = [HumanMessage(content=chat()["messages"][1]["content"])]
    want = captions()[0]["text"]
    answer = model.invoke(message)
    assert answer.content == want and answer.usage_metadata["output_tokens"] == len(captions()[0]["tokens"])
    parts = [p.content for p in model.stream(message)]
    assert "".join(parts) == want and len(parts) > 3


models()
embeddings()
chats()
asyncio.run(together())
keys()
langchain()
print("ok")
