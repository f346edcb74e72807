#!/usr/bin/env python3
"""Writes clip.merges and gpt2.merges from the two published vocabularies.

    python3 make_vocab.py bpe_simple_vocab_16e6.txt.gz merges.txt vocab.json

Byte-pair encoding needs only the list of merges: every other token follows
from it. So each file contains only the merges, as pairs of token ids
(unsigned 16 bit, little endian): first the left ids of all merges in order,
then the right ids. (gzip would save only 15 % of that.) Merge k creates the
token with id BASE+k, where BASE is 256 for GPT-2 (the single bytes) and 512
for CLIP (the single bytes, then the single bytes that end a word).

The script rejects input that would not survive the round trip exactly.
"""
import gzip
import hashlib
import json
import sys


def byte_letters():
    """The letters that stand for the 256 bytes in the published files, in token order.

    Printable Latin-1 characters stand for themselves and come first; the other
    bytes follow in order and are written as U+0100, U+0101, ...
    """
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    hidden = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + k) for k in range(len(hidden))]


def pack(singles, merges, name):
    ids = {token: i for i, token in enumerate(singles)}
    left, right = [], []
    for a, b in merges:
        left.append(ids[a])  # a KeyError here: the merge uses a token that does not exist yet
        right.append(ids[b])
        assert a + b not in ids, f"{a + b!r} is made twice"
        ids[a + b] = len(ids)
    raw = b"".join(i.to_bytes(2, "little") for i in left + right)
    with open(name, "wb") as f:
        f.write(raw)
    print(f"{name}: {len(merges)} merges, {len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}")
    return ids


def main(clip_file, gpt2_merges, gpt2_vocab):
    letters = byte_letters()

    lines = gzip.open(clip_file, "rt", encoding="utf-8").read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    pack(letters + [c + "</w>" for c in letters], merges, "clip.merges")

    lines = open(gpt2_merges, encoding="utf-8").read().split("\n")
    merges = [tuple(line.split()) for line in lines[1:] if line]
    ids = pack(letters, merges, "gpt2.merges")
    ids["<|endoftext|>"] = len(ids)
    assert ids == json.load(open(gpt2_vocab, encoding="utf-8")), "merges.txt and vocab.json disagree"


if __name__ == "__main__":
    main(*sys.argv[1:])
