"""Writes features as clip-retrieval does, and reads those that cyclecap wrote.

    embeddings.py make DIR    writes the fixture data/embeddings/testdata/clip-retrieval
    embeddings.py check DIR   reads a folder that `cyclecap features -o DIR/` wrote, and prints it as JSON

It needs numpy, pandas and pyarrow, and makes the calls of clip-retrieval's writer
(clip_retrieval/clip_inference/writer.py): numpy.save and DataFrame.to_parquet.
"""

import json
import pathlib
import sys

import numpy as np
import pandas as pd


def make(folder):
    rng = np.random.default_rng(1)
    expected = {"rows": [], "names": []}
    for sub in ("img_emb", "metadata"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for part, n in enumerate((5, 3)):
        x = rng.standard_normal((n, 8)).astype(np.float32)
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
        np.save(folder / f"img_emb/img_emb_{part}.npy", x)
        names = [f"0000{part}/{i:09d}" for i in range(n)]
        pd.DataFrame(
            {
                "image_path": names,
                "caption": [None if i == 1 else f"caption {i} é" for i in range(n)],
                "url": ["http://example.com/a.jpg"] * n,
                "width": range(n),
            }
        ).to_parquet(folder / f"metadata/metadata_{part}.parquet")
        expected["rows"] += x.astype(np.float32).tolist()
        expected["names"] += names
    np.save(folder / "float32.npy", np.array(expected["rows"], np.float32))
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


def check(folder):
    out = {}
    for npy in sorted(folder.glob("**/*.npy")):
        x = np.load(npy, mmap_mode="r")
        out[npy.name] = {"dtype": x.dtype.str, "rows": x.astype(np.float32).tolist()}
    for table in sorted(folder.glob("**/*.parquet")):
        columns = pd.read_parquet(table).astype(object)
        out[table.name] = columns.where(columns.notna(), None).to_dict("list")
    print(json.dumps(out))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
