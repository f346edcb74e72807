"""Uses a server as programs with kserve's client do: kserve_client.py URL KEY PHOTO...

It prints what it gets as JSON, which the Go test compares with the server's own routes."""

import asyncio
import base64
import json
import sys

import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, key, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
headers = {"Authorization": f"Bearer {key}"}
files = [open(p, "rb").read() for p in paths]
texts = ["a red cup", "a blue bird on a table"]
NAMES = ["IMAGE_FEATURES", "TEXT_FEATURES", "TEXTUALISED_FEATURES", "DIRECT", "DIRECT_LOGPROB", "TEXTUALISED", "TEXTUALISED_LOGPROB"]


def request(binary):
    images = files if binary else [base64.b64encode(f) for f in files]
    inputs = []
    for name, values in (("IMAGE", images), ("TEXT", [t.encode() for t in texts])):
        t = InferInput(name, [len(values)], "BYTES")
        t.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
        inputs.append(t)
    outputs = [RequestedOutput(n, parameters={"binary_data": binary}) for n in NAMES]
    return InferRequest("cyclecap/world", inputs, request_outputs=outputs, parameters={"decode": "beam", "beam": 3})


def listed(answer):
    out = {}
    for o in answer.outputs:
        a = o.as_numpy()
        out[o.name] = [s.decode() if isinstance(s, bytes) else s for s in a] if a.dtype == object else a.astype(np.float64).ravel().tolist()
    return out


async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers = {}
        for name, binary in (("binary", True), ("JSON", False)):
            answers[name] = listed(await client.infer(url, request(binary), model_name="cyclecap/world", headers=dict(headers)))  # it adds to them
        json.dump(
            {
                "live": await client.is_server_live(url, headers=headers),
                "ready": await client.is_server_ready(url, headers=headers),
                "model_ready": await client.is_model_ready(url, "cyclecap/world", headers=headers),
                "answers": answers,
            },
            sys.stdout,
        )


asyncio.run(main())
