"""Trains small tokenizers of SigLIP's and SigLIP 2's kinds and writes what transformers makes of texts.

    python make_siglip.py FOLDER [--count N] [--seed N]

It needs transformers, tokenizers, sentencepiece and protobuf; the first line of FOLDER's
cases.jsonl.gz records their versions. FOLDER gets spiece.model and tokenizer.json with a
tokenizer_config.json each (siglip/, siglip2/). Each other line of cases.jsonl.gz is a text with
the ids of SiglipTokenizer and Siglip2Tokenizer with padding="max_length", truncation and
max_length=64 (one and two), and without truncation and padding (one_all and two_all).

siglip_test.go reads them; `go test -siglip FOLDER` reads another folder, so that any number of
fresh texts can be tested.
"""

import argparse
import gzip
import json
import pathlib
import random
import warnings

import google.protobuf
import sentencepiece
import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
HERE = pathlib.Path(__file__).parent
parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--count", type=int, default=400)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()
rng = random.Random(args.seed)

captions = [c for one in json.loads((HERE / "../../../testdata/photos/captions.json").read_text())["annotations"] for c in [one["caption"]]]
corpus = captions * 3 + ["Übergrößen, naïve café — 'quoted' \"text\"!", "мама мыла раму", "一只猫 坐在垫子上", "ﬁne ﬂow №5 ½ ™ ①", "1234 567 89.0", "don't won't it's"] * 4

one, two = args.folder / "siglip", args.folder / "siglip2"
for f in (one, two):
    f.mkdir(parents=True, exist_ok=True)

# SigLIP's own model was trained like T5's: unigram, NFKC and lower case by its charsmap apart.
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(corpus), model_prefix=str(one / "spiece"), vocab_size=400, model_type="unigram", character_coverage=0.998,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", minloglevel=2, hard_vocab_limit=False)
(one / "spiece.vocab").unlink()
special = lambda s: {"content": s, "lstrip": True, "normalized": False, "rstrip": True, "single_word": False, "special": True}
(one / "tokenizer_config.json").write_text(json.dumps({
    "added_tokens_decoder": {"1": special("</s>"), "2": special("<unk>")}, "do_lower_case": True, "eos_token": "</s>", "model_input_names": ["input_ids"],
    "model_max_length": 64, "pad_token": "</s>", "tokenizer_class": "SiglipTokenizer", "unk_token": "<unk>"}, indent=1))

specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
bpe = Tokenizer(models.BPE(fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
bpe.normalizer = normalizers.Replace(" ", "▁")
bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
bpe.train_from_iterator([c.lower() for c in corpus], trainers.BpeTrainer(
    vocab_size=900, special_tokens=specials + [f"<0x{b:02X}>" for b in range(256)], max_token_length=8, show_progress=False, limit_alphabet=60))
file = json.loads(bpe.to_str())
added = lambda i, s: {"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": s in specials}
vocab = file["model"]["vocab"]
more = ["\n", "\n\n", "▁▁", "<table>", "[@BOS@]"]
for s in more:
    vocab.setdefault(s, len(vocab))
file["added_tokens"] = [added(vocab[s], s) for s in specials + more]
file["post_processor"] = {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}}}
(two / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False))
(two / "tokenizer_config.json").write_text(json.dumps({
    "add_bos_token": False, "add_eos_token": True, "added_tokens_decoder": {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in file["added_tokens"]},
    "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>", "padding_side": "right",
    "model_input_names": ["input_ids"], "tokenizer_class": "GemmaTokenizer"}, ensure_ascii=False, indent=1))
first, second = SiglipTokenizer.from_pretrained(one), Siglip2Tokenizer.from_pretrained(two)

PARTS = captions + [
    " ", "  ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u200b", "\ufeff", "\u00ad", "▁", "▁▁", "▁a", "</s>", " </s> ", "<unk>",
    "</S>", "<eos>", " <eos>", "<EOS>", "<pad>", "<bos>x", "<table>", "[@BOS@]", "<0x41>", "<|endoftext|>", "<", "</", "_", "!", "...", "'s", "\"", "@#$", "A", "İstanbul", "ΣΑΣ ΟΔΟΣ",
    "straße", "ǅ", "ﬁ", "½", "①", "№", "Å", "A\u030a", "é", "e\u0301", "한국어", "ｆｕｌｌ", "カタカナ", "ｶﾞ", "🙂", "👩‍👩‍👧", "\U0001d54f", "العربية", "עברית", "हिन्दी", "\ufffd",
    "\x00", "\x07", "\x7f", "0", "3.14", "10,000", "aaaaaaaaaaaaaaaa", "zzzzqqqq", "xyz" * 30, "a cat " * 40, "…", "—", "“quotes”", "\u1680", "\u0130\u0307", "ẞ", "Ω", "K",
]


def text():
    out = ""
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4, 8])):
        part = rng.choice(PARTS)
        kind = rng.random()
        if kind < 0.1:
            part = part.upper()
        elif kind < 0.15:
            part = part.title()
        elif kind < 0.2 and part:
            at = rng.randrange(len(part))
            part = part[:at] + chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA0, 0x2000), rng.randrange(0x2000, 0x3100), rng.randrange(0xA640, 0xD7FF), rng.randrange(0x1F300, 0x1FA00)])) + part[at:]
        out += part + rng.choice(["", "", " ", "  "])
    return out


texts = ["", " ", "▁", "a", "a photo of a cat"] + PARTS[-75:] + [text() for _ in range(args.count)]
versions = {m.__name__: m.__version__ for m in (transformers, tokenizers, sentencepiece, google.protobuf)}
lines = [json.dumps(versions)]
for t in texts:
    how = dict(padding="max_length", truncation=True, max_length=64)
    lines.append(json.dumps({"text": t, "one": first(t, **how)["input_ids"], "two": second(t, **how)["input_ids"],
                             "one_all": first(t)["input_ids"], "two_all": second(t)["input_ids"]}))
with gzip.GzipFile(args.folder / "cases.jsonl.gz", "wb", 9, mtime=0) as f:
    f.write("\n".join(lines).encode() + b"\n")
print(len(texts), "texts;", len(first), "and", len(second), "tokens")
