#!/usr/bin/env python3
"""Composes difficult strings and writes the output of the reference tokenizers for them.

    python3 compose.py --count 3000 --seed 1 --vocab BPE.txt.gz --gpt2 DIR composed.jsonl.gz

BPE.txt.gz is OpenAI's bpe_simple_vocab_16e6.txt.gz, DIR holds GPT-2's vocab.json
and merges.txt. Needs: ftfy, regex, openai-clip (its simple_tokenizer only),
tokenizers, tiktoken. The first line of the output records their versions.

Each other line is one string with the references' output:
  t  the text                      f  ftfy.fix_text(t), left out if equal to t
  c  t as CLIP's tokenizer cleans it            clip  ids by CLIP's SimpleTokenizer
  clip_text, gpt2_text  the references' decoding of the ids
  gpt2  ids by GPT-2's pattern (regex) and merges (tiktoken); the whole text is plain
  gpt2_special  ids by Hugging Face's tokenizers, left out if equal to gpt2

composed_test.go reads them; `go test -composed FILE` reads another file, so that
any number of fresh strings can be tested.
"""
import argparse
import gzip
import html
import importlib.metadata
import importlib.util
import json
import platform
import random
import sys
import types
import unicodedata

import ftfy
import ftfy.badness
import ftfy.bad_codecs
import regex
import tiktoken
import tokenizers

# ---------------------------------------------------------------- references


def clip_reference(vocab):
    # The module alone: the package around it wants torch.
    spec = importlib.util.find_spec("clip")
    path = spec.submodule_search_locations[0] + "/simple_tokenizer.py"
    module_spec = importlib.util.spec_from_file_location("simple_tokenizer", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module, module.SimpleTokenizer(vocab)


GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def gpt2_reference(folder):
    vocab = json.load(open(folder + "/vocab.json", encoding="utf-8"))
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    letters = {chr(b): b for b in printable}
    letters.update({chr(256 + k): b for k, b in enumerate(b for b in range(256) if b not in printable)})
    ranks = {bytes(letters[c] for c in token): i for token, i in vocab.items() if i != 50256}
    enc = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    hf = tokenizers.ByteLevelBPETokenizer(folder + "/vocab.json", folder + "/merges.txt")
    hf.add_special_tokens(["<|endoftext|>"])
    return enc, hf


# ------------------------------------------------------------------- strings

WORDS = """a an the man woman dog cat red blue riding on top of in front with bike skateboard kitchen table
photo street sign train two three people standing next to giraffe pizza plate umbrella's it's don't we'll they've
I'm he'd YOU'RE O'Neil rock'n'roll 'tis don't’ can’t 12 3,000 5:30pm 1st 2nd 4x4 A4 #hashtag @user e-mail
http://example.com/a?b=c&d=e foo_bar C++ 50% $9.99 100,000.50 ... ?! -- -- "quoted" (brackets) [x] {y} <b>""".split()

SOUND = """L’été à Noël, où ça coûte 3 € — déjà vu… «garçon» ÀÉÈÊÇ œuvre Œdipe naïve|größer über Straße Äpfel Öl “Fuß” ‘ja’ ß
El niño comió piñas ¿qué? ¡Sí! año señor|não são coração às vezes àquele pão à la mode|Příliš žluťoučký kůň úpěl ďábelské ódy
Zażółć gęślą jaźń|árvíztűrő tükörfúrógép|İstanbul'da çiğ köfte ŞİŞLİ ığdır|Ķekava žagars šķūnis ēst ļoti|Съешь ещё этих мягких французских булок
Привет, мир! Это «текст» — №5|Україна має ґрунт її|Ψάχνω ΤΟΝ ΘΗΣΑΥΡΌ σας Οδυσσέας ΐΰ Ά|ΣΊΣΥΦΟΣ ΑΣ.ΒΣ Σ ΑΣ́ ΟΔΥΣΣΕΥΣ|שלום עולם|العربية لغة جميلة ١٢٣
हिन्दी में लिखा|বাংলা লেখা|தமிழ் எழுத்து|ไทยภาษา|中文字幕 一只狗。|日本語のテキスト、カタカナ「引用」|한국어 텍스트|😀 👩‍👩‍👧🏽 🇫🇷 ❤️ 👍🏿 🏴󠁧󠁢󠁷󠁬󠁳󠁿|½ cup ¼ tsp 10² ×3 ÷ ± 5µm ©®™ §5 ¶ °C € £ ¥ ¢ • … – —
“double” ‘single’ „low‟ ‚x‛ it’s 5′ 6″|√ ∞ ≈ ≠ ≤ ≥ ∑ ∏ ∫ ◊ † ‡ ‰|╔══╗║█▓▒░│┤ ┻━┻ ︵ ヽ(°□°ヽ)|( ͡° ͜ʖ ͡°) ¯\\_(ツ)_/¯ ಠ_ಠ|Ǆ ǅ ǆ Ǳ ĳ ŉ ﬁ ﬂ ﬃ ﬆ ſ|ＬＯＵＤ　ＮＯＩＳＥＳ ｶﾞｷﾞ ﾊﾟ ￥￡￣ ￨""".replace("\n", "|").split("|")

BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0xFF), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xEFF), (0x1000, 0x11FF), (0x1D00, 0x1FFF), (0x2000, 0x206F),
    (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xF8FF), (0xF900, 0xFDFF),
    (0xFE00, 0xFFFF), (0x10000, 0x1FFFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0xE0000, 0xE01EF), (0, 0x10FFFF),
]

ENCODINGS = ["latin-1"] * 3 + ["sloppy-windows-1252"] * 5 + ["windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253",
             "sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437", "sloppy-windows-1255", "cp850", "iso-8859-15"]

SPECIAL = ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|ſtartoftext|>", "<|endoftext|", "<|im_end|>", "</w>", "<|startoftext|>x"]

MARKS = [c for c in map(chr, range(0x300, 0x370))] + list("\u0591\u05b0\u064b\u0651\u093c\u094d\u0e38\u3099\u309a\u20d0\u1dc0\u0f71\u0f74")


def character(r):
    while True:
        low, high = r.choice(BLOCKS)
        c = r.randint(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def soup(r):
    return "".join(character(r) for _ in range(r.randint(1, 12)))


def block(r):
    low, high = r.choice(BLOCKS)
    return "".join(chr(c) for c in (r.randint(low, high) for _ in range(r.randint(1, 10))) if not 0xD800 <= c < 0xE000)


def caption(r):
    words = [r.choice(WORDS) for _ in range(r.randint(1, 14))]
    words = [w.upper() if r.random() < 0.05 else w.capitalize() if r.random() < 0.1 else w for w in words]
    text = r.choice([" ", " ", " ", "  ", "\n", "\t"]).join(words)
    return text + r.choice(["", ".", " .", "!", "\n"])


def sound(r):
    text = r.choice(SOUND)
    if r.random() < 0.5:
        words = text.split(" ")
        a = r.randrange(len(words))
        text = " ".join(words[a : a + r.randint(1, 4)])
    return text


def cesu8(text):
    return b"".join(c.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass").encode("utf-8") if ord(c) < 0x10000 else
                    b"".join(chr(int.from_bytes(c.encode("utf-16-be")[k : k + 2], "big")).encode("utf-8", "surrogatepass") for k in (0, 2)) for c in text)


def mojibake(r):
    text = sound(r) if r.random() < 0.8 else soup(r)
    for _ in range(r.choice([1, 1, 1, 1, 2, 2, 3])):
        raw = cesu8(text) if r.random() < 0.08 else text.encode("utf-8")
        if r.random() < 0.05:
            raw = raw.replace(b"\0", b"\xc0\x80")
        if r.random() < 0.08:
            raw = raw[: r.randint(0, len(raw))]
        text = raw.decode(r.choice(ENCODINGS), r.choice(["replace", "replace", "ignore"]))
        text = "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)
    k = r.random()
    if k < 0.15:
        text = text.replace("\xa0", " ")
    elif k < 0.22:
        text = "".join(r.choice("?\ufffd\x1a") if ord(c) > 127 and r.random() < 0.1 else c for c in text)
    elif k < 0.27:
        text = text.replace("\x85", "...").replace("\xad", "")
    elif k < 0.32:
        text = " ".join(text.split())
    elif k < 0.36:
        text = text.lower() if r.random() < 0.5 else text.upper()
    return text


TRICKY = sorted({c for chars in ("".join(chr(i) for i in range(0x80, 0x100)),) for c in chars}
                | {bytes([b]).decode(e) for e in ("sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253",
                                                    "sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437") for b in range(0x80, 0x100)})


def neighbours(r):
    """Few characters of those that mojibake is made of, in any order."""
    return "".join(r.choice(TRICKY) if r.random() < 0.75 else r.choice("aZ .,?\n1_=\x1a\ufffd") for _ in range(r.randint(1, 7)))


NAMES = sorted(html.entities.html5)


def entity(r):
    k = r.random()
    if k < 0.35:
        name = r.choice(NAMES)
        if r.random() < 0.3:
            name = name.upper() if r.random() < 0.7 else name.lower()
        if r.random() < 0.2:
            name = name.rstrip(";")
        if r.random() < 0.1:
            name = name[: r.randint(1, len(name))]
        if r.random() < 0.1:
            name = name.rstrip(";") + r.choice(["x", "X;", "é", "1;", "é;", " ;"])
        text = "&" + name
    elif k < 0.6:
        n = r.choice([r.randint(0, 0x110010), r.randint(0, 300), r.randint(0x80, 0x9F), r.randint(0xD7FF, 0xE001), r.randint(0xFDCF, 0xFDF1), 0xFFFE, 0x1FFFF, 10**12, 38, 60, 59])
        form = r.choice(["&#%d", "&#%d;", "&#x%x", "&#x%x;", "&#X%X;", "&#0%d;", "&#x000%x;"])
        text = form % n + r.choice(["", "", "", "z", ";"])
    elif k < 0.8:
        text = "&" + "amp;" * r.randint(1, 4) + r.choice(["", "lt;", "quot;", "#39;", "eacute;", "notit;", "#x2019;", "EACUTE;", "nbsp;"])
    else:
        text = r.choice(["&", "&;", "&#;", "&#x;", "&#xg;", "& amp;", "&&amp;", "&amp", "&ampamp;", "&notin;", "&notinva;", "&AMP;&LT", "AT&T", "R&B;", "&copy2020", "&lt;b&gt;", "<b>&amp;</b>",
                         "&napos;", "&SZLIG;", "&FFILIG;", "&fjlig;", "&NGTV;", "&ngtv;", "&ThickSpace;", "&CounterClockwiseContourIntegral;", "&COUNTERCLOCKWISECONTOURINTEGRAL;"])
    return r.choice(["", "", "x", " "]) + text + r.choice(["", "", "x", " "])


def controls(r):
    return "".join(r.choice(["\x1b[31m", "\x1b[0m", "\x1b[1;5H", "\x1b[٣m", "\x1b[", "\x1b", "\r\n", "\r", "\n", "\u2028", "\u2029", "\x85", "\ufeff", "\x00", "\x07", "\x0b", "\x0c", "\x1c",
                               "\x1f", "\x7f", "\u206a", "\ufff9", "\ufffc", "\ufffd", "\u200b", "\u200d", "\u200f", "\u202e", "\xad", "\x92", "\x93hi\x94", "\x80", "\t", " ", "  ", "\xa0", "\u3000",
                               "\u2003", "\u180e", "\ufe0f", "a", "b", "’", "“", "ʼ", "‛", "‟", "ﬁ"]) for _ in range(r.randint(1, 8)))


def spaces(r):
    return "".join(r.choice([" ", "  ", "   ", "\n", "\n\n", "\t", "\xa0", "\u2009", "\r\n", "a", "'s", "'S", "'ſ", "'ll", "'re", "''ve", "1", "½", "٣", "Ⅷ", "x²", "!", "'", "…", "-", "é", "é", "İ", "Σ", "ΑΣ", "ᾳ"])
                    for _ in range(r.randint(1, 10)))


def stacked(r):
    return "".join(r.choice("aeouAZ가ᄀ각กक") + "".join(r.choice(MARKS) for _ in range(r.choice([0, 1, 1, 2, 3, 5, 40]))) for _ in range(r.randint(1, 5)))


def special(r):
    return r.choice(["", " ", "a", "A "]) + r.choice(SPECIAL) + r.choice(["", " ", "b", "  "])


def repeated(r):
    return r.choice(["a", "ab", "=", " ", "\n", "é", "😀", "1", "ha", "!?", "'s", "の", "Ã©", "the "]) * r.randint(2, 120)


def words(r):
    return "".join(r.choice("abcdefghijklmnopqrstuvwxyzetaoinshr") for _ in range(r.randint(1, 90)))


KINDS = [(caption, 10), (soup, 10), (block, 8), (sound, 6), (mojibake, 30), (neighbours, 20), (entity, 14), (controls, 8), (spaces, 8), (stacked, 5), (special, 3), (repeated, 2), (words, 3)]


def compose(r):
    kinds, weights = zip(*KINDS)
    parts = [k(r) for k in r.choices(kinds, weights, k=r.choice([1, 1, 1, 2, 2, 3]))]
    return r.choice(["", " ", " ", "\n"]).join(parts)


# ---------------------------------------------------------------------- main


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, required=True)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--vocab", required=True)
    p.add_argument("--gpt2", required=True)
    p.add_argument("output")
    a = p.parse_args()
    module, clip = clip_reference(a.vocab)
    enc, hf = gpt2_reference(a.gpt2)
    pattern = regex.compile(GPT2_PATTERN)
    versions = {k: importlib.metadata.version(k) for k in ("ftfy", "regex", "openai-clip", "tokenizers", "tiktoken")}
    versions.update(python=platform.python_version(), unicode=unicodedata.unidata_version, seed=a.seed)
    r = random.Random(a.seed)
    seen = set()
    disagree = [0, 0]
    with gzip.GzipFile(a.output, "wb", mtime=0) as f:
        def write(line):
            f.write((json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8"))
        write(versions)
        while len(seen) < a.count:
            t = compose(r)
            if t in seen:
                continue
            seen.add(t)
            line = {"t": t, "c": module.whitespace_clean(module.basic_clean(t)).lower()}
            fixed = ftfy.fix_text(t)
            if fixed != t:
                line["f"] = fixed
            line["clip"] = clip.encode(t)
            line["clip_text"] = clip.decode(line["clip"])
            line["gpt2"] = [i for piece in pattern.findall(t) for i in enc._core_bpe.encode_single_piece(piece.encode("utf-8"))]
            line["gpt2_text"] = enc.decode(line["gpt2"])
            s = hf.encode(t).ids
            if "<|endoftext|>" not in t:
                disagree[0] += s != line["gpt2"]
                disagree[1] += enc.encode_ordinary(t) != line["gpt2"]
                s = line["gpt2"]  # where only the Unicode versions of the two differ
            if s != line["gpt2"]:
                line["gpt2_special"] = s
            write(line)
    print(f"{len(seen)} strings; GPT-2 by tokenizers differs from the reference in {disagree[0]}, by tiktoken in {disagree[1]}")


if __name__ == "__main__":
    main()
