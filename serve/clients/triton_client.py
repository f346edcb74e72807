"""Uses a server as programs with tritonclient do: triton_client.py URL KEY PHOTO...

It prints what it gets as JSON, which the Go test compares with the server's own routes."""

import base64
import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

url, key, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
client = triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4)
HEADERS = {"Authorization": f"Bearer {key}"}  # the client adds to what it is given
files = [open(p, "rb").read() for p in paths]
texts = ["a red cup", "a blue bird on a table"]
OPTIONS = {"decode": "beam", "beam": 3}


def tensor(name, values, binary=True):
    t = triton.InferInput(name, [len(values)], "BYTES")
    t.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
    return t


def listed(result, names):
    out = {}
    for name in names:
        a = result.as_numpy(name)
        out[name] = [s.decode() if isinstance(s, bytes) else s for s in a] if a.dtype == object else a.astype(np.float64).ravel().tolist()
    return out


def refused(f):
    """The status and the message of what must fail."""
    try:
        f()
    except InferenceServerException as e:
        return {"status": e.status(), "message": e.message()}
    raise SystemExit("no error")


meta = client.get_model_metadata("cyclecap/world", headers=dict(HEADERS))
names = [o["name"] for o in meta["outputs"]]
inputs = [tensor("IMAGE", files), tensor("TEXT", [t.encode() for t in texts])]
as_json = [tensor("IMAGE", [base64.b64encode(f) for f in files], False), tensor("TEXT", [t.encode() for t in texts], False)]


def infer(inputs, **options):
    return client.infer("cyclecap/world", inputs, headers=dict(HEADERS), parameters=OPTIONS, **options)


def ask(names, binary=True):
    return [triton.InferRequestedOutput(n, binary_data=binary) for n in names]


pending = [client.async_infer("cyclecap/world", inputs, headers=dict(HEADERS), parameters=OPTIONS) for _ in range(4)]
together = [p.get_result() for p in pending]
json.dump(
    {
        "live": client.is_server_live(headers=dict(HEADERS)),
        "ready": client.is_server_ready(headers=dict(HEADERS)),
        "model_ready": client.is_model_ready("cyclecap/world", headers=dict(HEADERS)),
        "version_ready": client.is_model_ready("cyclecap/world", "1", headers=dict(HEADERS)),
        "other_ready": client.is_model_ready("other", headers=dict(HEADERS)),
        "server": client.get_server_metadata(headers=dict(HEADERS)),
        "model": meta,
        "index": client.get_model_repository_index(headers=dict(HEADERS)),
        "answers": {
            "binary": listed(infer(inputs), names),
            "binary, listed": listed(infer(inputs, outputs=ask(names)), names),
            "JSON": listed(infer(as_json, outputs=ask(names, False)), names),
            "gzip": listed(infer(inputs, request_compression_algorithm="gzip", response_compression_algorithm="gzip"), names),
            "deflate": listed(infer(as_json, request_compression_algorithm="deflate"), names),
            "together": listed(together[-1], names),
        },
        "id": infer(inputs, request_id="my-id").get_response()["id"],
        "no key": refused(lambda: client.get_server_metadata()),
        "bad picture": refused(lambda: infer([tensor("IMAGE", [b"hello"])])),
        "no model": refused(lambda: client.infer("other", inputs, headers=dict(HEADERS))),
        "version": refused(lambda: client.get_model_metadata("cyclecap/world", "2", headers=dict(HEADERS))),
    },
    sys.stdout,
)
