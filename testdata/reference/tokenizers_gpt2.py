"""Writes byte-level BPE tokenizers in the forms in which GPT-2-shaped models have
them, and what Python's tokenizers and transformers make of odd strings, for the
tests of data/tokenizer.

    tokenizers_gpt2.py OUT                    writes the fixtures (data/tokenizer/testdata/gpt2)
    tokenizers_gpt2.py OUT --strings N --seed S   adds N random strings, for a test by hand
"""

import argparse
import json
import pathlib
import random

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

CORPUS = [
    "Un cane corre nel prato verde con la palla.",
    "L'aquilone è sopra la città, perché no? È così.",
    "这只狗在公园里跑。一个人骑着自行车。",
    "A man's riding a wave; they're all watching, aren't they?",
    "Zwei Hunde spielen 2 Stunden im Schnee... 100 %!",
    "    return [x for x in range(10)]\n\n\tpass\r\n",
]

STRINGS = [
    "", " ", "  ", "\n", "\t\t x", "a", " a", "a ", "a  b", "a   b", "A man's riding a wave.", "it's 'S 'll'd", "''re",
    "perché no", "cittàcittà", "狗在跑", " 狗", "e\u0301", "\u00a0", "\u2028x", "x\u3000y", "🐕‍🦺 dog", "\x00", "½²", "٣٤", "Ⅷ",
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|ENDOFTEXT|>", "<|endoftext",
    "<pad>", "<mask>", "x  <mask>  y", "x <mask>\n", "<mask><mask>", " <sep> a", "a <sep>   b", "<sep>", "<sepx>", "<sep2>", "<sep><sep2>",
    "[NEW]", "a[NEW]b", " [NEW] ", "NEW", "Ġ", "é", "à", "[é]", "x[é]y", "0123456789", "100 %!", "....", "...!?", "_a_", "a_b",
    "return [x for x in range(10)]", "\r\n\r\n", "    x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "la palla la palla la palla" * 4, "\u200d", "\ufeffx", "İ", "ß", "ﬁ", "\U0001f1ee\U0001f1f9", "a\u0300a", "ǆ", "\x7f", "\x85x", "\x1cx",
]  # fmt: skip


def random_strings(n, seed):
    r = random.Random(seed)
    pieces = STRINGS + CORPUS + list("abcdefghij .,'!?\n\t0123456789éèà狗跑") + [chr(c) for c in (0x300, 0x1F415, 0x2009, 0xAD, 0xE01)]
    return ["".join(r.choice(pieces) for _ in range(r.randint(1, 12))) for _ in range(n)]


def trained(size, prefix=False):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>", "<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    t.train_from_iterator(CORPUS, trainer)
    return t


def twice(t):
    """Adds merges that make tokens which other merges make already, out of order."""
    j = json.loads(t.to_str())
    vocab, merges = j["model"]["vocab"], j["model"]["merges"]
    more = []
    for left, right in merges:
        whole = left + right
        for cut in range(1, len(whole)):
            pair = [whole[:cut], whole[cut:]]
            if pair != [left, right] and pair[0] in vocab and pair[1] in vocab:
                more.append(pair)
    for k, pair in enumerate(more):
        merges.insert((k * 37) % (len(merges) + 1), pair)
    return Tokenizer.from_str(json.dumps(j))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--strings", type=int, default=0)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    strings = STRINGS + random_strings(a.strings or 60, a.seed)
    made = {"versions": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}, "cases": {}}

    def case(name, tok):
        rows = []
        for s in strings:
            ids = tok(s, add_special_tokens=False)["input_ids"]
            rows.append([s, ids, tok.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)])
        # Single tokens, also those that are not whole characters.
        for i in range(0, len(tok), 7):
            rows.append([None, [i], tok.decode([i], skip_special_tokens=False, clean_up_tokenization_spaces=False)])
        plain = [s for s in strings if "<" not in s and "[" not in s]
        made["cases"][name] = {"rows": rows, "plain": len(plain)}

    # As save_pretrained of this version writes it.
    folder = a.out / "saved"
    base = trained(420)
    j = json.loads(base.to_str())
    tok = GPT2Tokenizer(vocab=j["model"]["vocab"], merges=[tuple(m) for m in j["model"]["merges"]], pad_token="<pad>")
    tok.add_tokens(["[NEW]", AddedToken("<sep>", rstrip=True), AddedToken("<sep2>", normalized=False)])
    tok.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    tok.save_pretrained(folder)
    case("saved", AutoTokenizer.from_pretrained(folder))

    # vocab.json and merges.txt, as older versions write them.
    folder = a.out / "files"
    folder.mkdir(parents=True, exist_ok=True)
    base.model.save(str(folder))
    n = base.get_vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": n, "<mask>": n + 1}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<pad>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "model_max_length": 1024,
        "added_tokens_decoder": {
            "0": {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": True},
            str(n): {"content": "[NEW]", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False},
            str(n + 1): {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False, "special": True},
        }}))
    case("files", AutoTokenizer.from_pretrained(folder))

    # A tokenizer.json of the tokenizers library alone, with a space before each text
    # and merges that make the same tokens in several ways.
    folder = a.out / "prefix"
    t = twice(trained(400, prefix=True))
    t.add_tokens([AddedToken("[NEW]", normalized=True), AddedToken("<sep>", rstrip=True, lstrip=True), AddedToken("<sep2>", normalized=False), AddedToken("[é]")])
    tok = PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|endoftext|>")
    tok.save_pretrained(folder)
    case("prefix", AutoTokenizer.from_pretrained(folder))

    if not a.strings:
        for f in a.out.glob("*/chat_template*"):
            f.unlink()
    (a.out / "cases.json").write_text(json.dumps(made, ensure_ascii=True))


main()
