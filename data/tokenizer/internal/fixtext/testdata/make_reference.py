#!/usr/bin/env python3
"""Writes reference.json.gz: the results of ftfy and of Python's own text functions, case by case.

    python3 make_reference.py reference.json.gz

It needs ftfy and regex. Every entry is the output of a call; whole texts are
compared with data/tokenizer/testdata/compose.py.
"""
import gzip
import html
import importlib.metadata
import itertools
import json
import platform
import random
import sys
import unicodedata

import ftfy
import ftfy.badness
import ftfy.chardata
import ftfy.fixes
import regex

CHARSETS = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253", "sloppy-windows-1254",
            "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437"]


def characters():
    return (chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)


def changes(f):
    """The characters that f changes, with what they become."""
    return {c: f(c) for c in characters() if f(c) != c}


def ranges(f):
    out = []
    for c in characters():
        if f(c):
            if out and out[-1][1] == ord(c) - 1:
                out[-1][1] = ord(c)
            else:
                out.append([ord(c), ord(c)])
    return out


def entities():
    """Every name of HTML5 in several spellings: [text, ftfy's reading, html.unescape's]."""
    texts = set()
    for name in html.entities.html5:
        bare = name.rstrip(";")
        for spelling in (bare, bare.upper(), bare.lower(), bare + "x"):
            texts |= {f"&{spelling};", f"&{spelling}"}
    for n in list(range(0x180)) + [0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFDCF, 0xFDD0, 0xFDEF, 0xFDF0, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE, 0x10FFFF, 0x110000, 10**20]:
        texts |= {f"&#{n};", f"&#{n}", f"&#x{n:x};", f"&#X{n:X}", f"&#x{n:x}z;"}
    texts |= {"&" + "a" * n + ";" for n in (0, 1, 23, 24, 25, 31, 32, 33)} | {"&amp" + "é" * n + ";" for n in (27, 28, 29, 30)}
    return sorted([t, ftfy.fixes.unescape_html(t), html.unescape(t)] for t in texts)


def badness():
    """For each character that mojibake is made of, the ones that are bad after it; and longer strings."""
    letters = sorted({bytes([b]).decode(c) for c in CHARSETS for b in range(0x80, 0x100)} | set("aZ 1.,?!=_\n\x1a\ufffdŒ一の"))
    pairs = {a: "".join(b for b in letters if ftfy.badness.is_bad("=" + a + b)) for a in letters}
    r = random.Random(1)
    strings = ["".join(r.choice(letters) for _ in range(r.randint(1, 4))) for _ in range(6000)]
    # Long patterns are rare by chance: take pieces of them too.
    pieces = ["Ø", "Ù", "Ã", "Â", "Г", "В", "Ђ", "ў", "ГўВЂВ", "Β", "Γ", "Ο", "€", "‚", "Ä", "ó", "√", "à", "β", "°", "µ", "»", "a", "Z", " ", "\n", ".", "=", "“", "²"]
    strings += ["".join(r.choice(pieces) for _ in range(r.randint(2, 6))) for _ in range(6000)]
    return pairs, [s for s in strings if ftfy.badness.is_bad(s)], [s for s in strings if not ftfy.badness.is_bad(s)]


def byte_repairs():
    """Random bytes, of those that the rules tell apart, in hex: [bytes, a0 restored, losses marked]."""
    r = random.Random(3)
    leads = [0x41, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xCE, 0xD0, 0xD9, 0xDF, 0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5]
    later = [0x20, 0x20, 0x20, 0x1A, 0x1A, 0x3F, 0x3F, 0x7F, 0x80, 0x84, 0x85, 0x86, 0x9F, 0xA0, 0xA1, 0xAF, 0xB0, 0xBF, 0xC0]
    texts = set()
    while len(texts) < 12000:
        text = b""
        for _ in range(r.randint(1, 3)):
            text += bytes([r.choice(leads)]) + bytes(r.choice(later) for _ in range(r.randint(0, 4)))
        texts.add(text)
    # Encoded surrogates with losses: all combinations.
    lost = (0x1A, 0x3F, 0x80, 0xBF, 0x20)
    texts |= {bytes((0xED,) + rest) for rest in itertools.product((0x9F, 0xA0, 0xAF, 0xB0), lost, (0xED, 0xEE), (0xAF, 0xB0, 0xBF, 0xC0), lost)}
    # "à" and what may follow it.
    for after in (b"", b" ", b"s ", b"s", b"quele", b"quela", b"quilo", b"quel", b"la", b" la"):
        texts |= {b"\xc3 " + after, b"x\xc3 " + after + b" \xc3 " + after, b"\xe2 \x80\xc3 " + after}

    # As in ftfy: the first repair only where its pattern is found at all.
    def restore(b):
        return ftfy.fixes.restore_byte_a0(b) if ftfy.chardata.ALTERED_UTF8_RE.search(b) else b

    return [[t.hex(), restore(t).hex(), ftfy.fixes.replace_lossy_sequences(t).hex()] for t in sorted(texts)]


def variants():
    """Bytes near the two variants of UTF-8, in hex, with their decoding or null."""
    r = random.Random(4)
    out = {}
    while len(out) < 6000:
        t = b"".join(r.choice([b"\xed", b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\xa0\xbd", b"\xed\xb8", b"\xed\x9f\xbf", b"\xc0", b"\xc0\x80", b"\xa0", b"\x80", b"\xb8", b"\n", b"a", b"\xf0\x9f\x98\x80", b"\xc3\xa9"]) for _ in range(r.randint(1, 6)))
        try:
            out[t.hex()] = t.decode("utf-8-variants")
        except UnicodeDecodeError:
            out[t.hex()] = None
    return out


def main():
    pairs, bad, sound = badness()
    r = random.Random(2)
    marks = [c for c in characters() if unicodedata.combining(c)]
    decomposed = [c for c in characters() if unicodedata.decomposition(c)]
    sequences = ["".join(r.choice(r.choice((marks, decomposed, "aeo가각각"))) for _ in range(r.choice([2, 3, 5, 60]))) for _ in range(800)]
    sigmas = ["".join(r.choice("ΣΣΣaA1 .'·:\u0301\u00ad\u200dʰªⅧ'’^一ǅ") for _ in range(r.randint(1, 6))) for _ in range(3000)]
    data = {
        "versions": {"ftfy": importlib.metadata.version("ftfy"), "regex": importlib.metadata.version("regex"), "python": platform.python_version(), "unicode": unicodedata.unidata_version},
        "charsets": {c: bytes(range(256)).decode(c) for c in CHARSETS},
        "entities": entities(),
        "pairs": pairs,
        "bytes": byte_repairs(),
        "variants": variants(),
        "bad": bad,
        "sound": sound,
        "fix": changes(ftfy.fix_text),
        "lower": changes(str.lower),
        "lower_strings": [[s, s.lower()] for s in sigmas],
        "nfc": [[s, unicodedata.normalize("NFC", s)] for s in decomposed + sequences],
        "strip": ranges(lambda c: not c.strip()),
        "space": ranges(regex.compile(r"\s").match),
        "letters": ranges(regex.compile(r"\p{L}").match),
        "numbers": ranges(regex.compile(r"\p{N}").match),
    }
    with gzip.GzipFile(sys.argv[1], "wb", mtime=0) as f:
        f.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))


if __name__ == "__main__":
    main()
