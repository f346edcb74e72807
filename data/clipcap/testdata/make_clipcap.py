"""Writes small files of features in the formats of ClipCap's parse_coco.py
(half precision, ids as strings) and parse_conceptual.py (older pickle, file
names), hostile files, and the contents of the good ones (clipcap.json).

    python data/clipcap/testdata/make_clipcap.py
"""

import io
import json
import os
import pathlib
import pickle

import torch

here = pathlib.Path(__file__).parent
torch.manual_seed(2)

expected = {"torch": torch.__version__, "files": {}}


def write(name, embeddings, captions, **how):
    data = {"clip_embedding": torch.cat(embeddings, dim=0), "captions": captions}
    (here / name).write_bytes(pickle.dumps(data, **how))
    expected["files"][name] = {"rows": data["clip_embedding"].float().tolist(), "captions": captions}


captions = [
    {"image_id": "318556", "id": 48, "caption": "A very clean and well decorated empty bathroom", "clip_embedding": 0},
    {"image_id": "116100", "id": 67, "caption": "A panoramic view of a kitchen – and all of its appliances. 😀", "clip_embedding": 1},
    {"image_id": "318556", "id": 126, "caption": "A blue and white bathroom with butterfly themed wall tiles.", "clip_embedding": 2},
]
write("clipcap.pkl", [torch.randn(1, 6).half() for _ in captions], captions)
write(
    "clipcap-conceptual.pkl",
    [torch.randn(1, 6) for _ in range(2)],
    [
        {"image_id": 7, "caption": "a cat", "clip_embedding": 1, "filename": "./7.jpg", "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6},
        {"image_id": 9, "caption": "", "clip_embedding": 0, "filename": "./9.jpg"},
    ],
    protocol=3,
)
(here / "clipcap.json").write_text(json.dumps(expected, indent=1) + "\n")

# A number that overflowed in half precision, and the zeros that parse_conceptual.py
# leaves for a photo that it cannot read.
broken = [torch.randn(1, 6).half() for _ in captions]
broken[0][0, 4] = float("nan")
broken[1].zero_()
(here / "clipcap-broken.pkl").write_bytes(pickle.dumps({"clip_embedding": torch.cat(broken), "captions": captions}))


class System:
    def __reduce__(self):
        return os.system, ("touch /tmp/cyclecap-was-here",)


class Load:
    """A storage whose bytes are those of a hostile file."""

    def __reduce__(self):
        magic = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        return torch.storage._load_from_bytes, (magic + pickle.dumps(System(), 2) + pickle.dumps([], 2),)


(here / "clipcap-system.pkl").write_bytes(pickle.dumps({"clip_embedding": torch.zeros(1, 2), "captions": [System()]}))
(here / "clipcap-nested.pkl").write_bytes(pickle.dumps({"clip_embedding": Load(), "captions": []}))
