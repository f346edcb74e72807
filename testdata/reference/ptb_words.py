"""Measures which words CoreNLP 3.4.1's PTB tokenizer treats as special, from
outside: it hands it strings of letters in sentences and looks at the tokens.
Writes eval/ptb/words.txt.

    python testdata/reference/ptb_words.py JAR VOCABULARY...

JAR is stanford-corenlp-3.4.1.jar, or a Python that has pycocoevalcap 1.2, which
comes with it. VOCABULARY are text files (lists of words, captions, GPT-2's
vocab.json); every run of ASCII letters in them is a word. It needs Java, and
takes about five minutes on one core.

All strings of up to five letters are tried; longer ones only if they are
words of the vocabulary or abbreviations of one by prefix, prefix and end,
or consonants, with or without -s, or two abbreviations that were found as one.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "eval", "ptb", "words.txt")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHUNK = 500_000

# Abbreviations of six letters and more that no rule above makes out of a word.
LONG = """messrs bancorp bancshares archbp commdr mesdames cantab sergts lieuts engrs fedtn instns approx abbrev transl introd illust proceed
confed philos presby supvrs govts depts secys capts cmdrs colls techn""".split()


def run(jar, form, words, spell=str):
    """Pairs of word and output, in the order of words, for the form with the word for {}.
    No form ends or begins with anything that the tokenizer joins with its neighbour's."""
    print("measuring", form, file=sys.stderr)
    words = iter(words)
    while chunk := list(itertools.islice(words, CHUNK)):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", delete=False) as f:
            f.writelines(form.replace("{}", spell(w)) + "\n" for w in chunk)
        out = subprocess.run(["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", f.name],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode().split("\n")
        os.unlink(f.name)
        if len(out) != len(chunk) + 1:
            sys.exit("%d lines came back for %d" % (len(out) - 1, len(chunk)))
        yield from zip(chunk, out)


def strings(alphabet, *lengths):
    for n in lengths:
        for w in itertools.product(alphabet, repeat=n):
            yield "".join(w)


def longer(vocabulary):
    """Words, and abbreviations of them, of six letters and more."""
    found = set(LONG)
    for w in vocabulary:
        skeleton = w[0] + re.sub("[aeiouy]", "", w[1:])
        forms = {w, skeleton} | {w[:k] for k in range(5, len(w))} | {skeleton[:k] for k in range(5, len(skeleton))}
        forms |= {w[:k] + w[-n:] for k in range(3, len(w)) for n in (1, 2)}
        found |= forms | {x + "s" for x in forms}
    return sorted(w for w in found if len(w) >= 6)


def abbreviations(jar, vocabulary):
    """{behaviour: words} of abbreviations, and {word: tokens} of words that are two."""
    seen, split = [], {}

    def look(words):
        # "Word. 5" keeps the period wherever another spelling or what follows does: detail checks it for short words
        for w, out in run(jar, "{}. 5", words, str.capitalize):
            if out.startswith(w + ". "):
                seen.append(w)
            elif out != w + " . 5":
                split[w] = out[:-len(" . 5")].split(" ")

    look(strings(LETTERS, 2, 3, 4, 5))
    short = {w for w in seen if len(w) <= 4}
    look(longer(vocabulary))
    look({a + b for a in seen for b in seen if len(a + b) > 5} | {w + c for w in seen for c in LETTERS if len(w) > 4})
    seen[:] = sorted(set(seen))

    # No other context or spelling keeps a period that this one doesn't.
    for form in ("{}.", "{}. q", "{}. Q", "{}. 5"):
        for spell in (str.lower, str.capitalize, str.upper):
            more = {w for w, out in run(jar, form, strings(LETTERS, 2, 3, 4), spell) if out.startswith(w + ".")}
            if more - short:
                sys.exit("%r keeps the period of %s" % (form, sorted(more - short)))

    kept = {form: {w for w, out in run(jar, form, seen, str.capitalize) if (out + " ").startswith(w + ". ")}
            for form in ("{}.", "{}. q", "{}. Q", "{}. 5", "{}.5", "{}.a q")}
    patterns = [(w, p) for w in seen for p in itertools.product((False, True), repeat=len(w))]
    spelt = ["".join(c.upper() if big else c for c, big in zip(w, p)) for w, p in patterns]
    holds = {(w, p) for (w, p), (_, out) in zip(patterns, run(jar, "{}. 5", spelt)) if out.startswith(w + ". ")}

    found = {}
    for w in seen:
        how = tuple(w in kept[form] for form in kept)
        name = {(True, True, True, True, True, False): "always", (True, True, True, True, True, True): "twoFollow",
                (False, False, False, True, True, False): "beforeNumber"}.get(how)
        if name is None or len(w) > 8:
            sys.exit("%s: a behaviour that there is no name for: %s" % (w, how))
        mine = [p for v, p in holds if v == w]
        for k in range(len(w)):
            if not any(not p[k] for p in mine):
                if k > 0:
                    sys.exit("%s needs a capital at %d" % (w, k))
                name += "+capital"
            if not any(p[k] for p in mine):
                name += "+small%d" % k
        if len(mine) != 1 << len(w) - name.count("+"):
            sys.exit("%s: capitals matter in a way that there is no name for" % w)
        found.setdefault(name, []).append(w)
    return found, split


def extensions(jar):
    """Extensions of file names: 2.png is a token."""
    found = []
    for spell in (str.lower, str.upper):
        words = itertools.chain(strings(LETTERS + "0123456789", 1, 2, 3, 4), strings(LETTERS, 5))
        words = (w for w in words if not w.isdigit())  # 2.5 is a number
        found.append([w for w, out in run(jar, "q 2.{} q", words, spell) if out == "q 2.%s q" % w])
    if found[0] != found[1]:
        sys.exit("extensions: capitals matter")
    return found[0]


def openers(jar, vocabulary):
    """Words before which a letter with a period ends a sentence."""
    words = sorted(set(strings(LETTERS, 1, 2, 3, 4)) | set(vocabulary))
    words += [w + "." for w in words] + [".".join(w) + "." for w in strings(LETTERS, 2, 3)]
    found = [[w for w, out in run(jar, "q b. {} q", words, spell) if out.startswith("q b . ")]
             for spell in (str.capitalize, str.upper, str.lower)]
    if found[0] != found[1] or found[2]:
        sys.exit("openers: capitals are not as they should be")
    return found[0]


def contractions(jar, vocabulary):
    """Words with an apostrophe inside that are a token where no rule for all
    such words makes them one: (only with ', also with ’)."""
    words = {a + "'" + b for n in (1, 2, 3) for m in range(1, 5 - n) for a in strings(LETTERS, n) for b in strings(LETTERS, m)}
    for w in vocabulary:
        if len(w) <= 12:
            words |= {w[:i] + "'" + w[j:] for i in range(1, len(w)) for j in range(i, len(w))}
    # The rules for all: d'Or, l'un, o'clock, n'Sync, ma'am.
    words = sorted(w for w in words if not re.match("[dlon]'|[a-z]+[aeiouy]'[aeiou]", w))
    found = [w for w, out in run(jar, "q {} q", words) if out == "q %s q" % w]
    found += [w + "." for w, out in run(jar, "q {}. q", words) if out == "q %s. q" % w and w not in found]
    other = {w for w, out in run(jar, "q {} q", found, lambda w: w.replace("'", "\u2019")) if out == "q %s q" % w.replace("'", "\u2019")}
    return [w for w in found if w not in other], [w for w in found if w in other]


def acronym_pairs(jar, vocabulary):
    """Words before -u.s, and acronyms behind u.s.-, with which it is one token."""
    words = sorted(set(strings(LETTERS, 1, 2, 3, 4)) | set(vocabulary))
    found = [w + "-u.s" for w, out in run(jar, "q {}-u.s q", words) if out == "q %s-u.s q" % w]
    acronyms = [".".join(w) for w in strings(LETTERS, 2, 3, 4)]
    return found + ["u.s.-" + w for w, out in run(jar, "q u.s.-{} q", acronyms) if out == "q u.s.-%s q" % w]


def entities(jar):
    """Names of what is a token as &name;, letters with an accent aside."""
    return [w for w, out in run(jar, "q &{}; q", strings(LETTERS, 1, 2, 3, 4)) if out == "q &%s; q" % w and not w.endswith("uml")]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    jar = sys.argv[1]
    if not jar.endswith(".jar"):
        jar = subprocess.run([jar, "-c", "import os, pycocoevalcap.tokenizer.ptbtokenizer as p\n"
                              "print(os.path.join(os.path.dirname(p.__file__), p.STANFORD_CORENLP_3_4_1_JAR))"],
                             stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    vocabulary = set()
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as f:
            vocabulary |= {w.lower() for w in re.findall("[A-Za-z]+", f.read()) if len(w) <= 20}
    groups, split = abbreviations(jar, vocabulary)
    groups["extension"] = extensions(jar)
    groups["opener"] = openers(jar, vocabulary)
    groups["apostrophe"], groups["anyApostrophe"] = contractions(jar, vocabulary)
    groups["acronymPair"] = acronym_pairs(jar, vocabulary)
    groups["entity"] = entities(jar)
    groups["split"] = sorted("-".join(tokens) for tokens in split.values())
    lines = ["# Words that CoreNLP 3.4.1's PTB tokenizer treats as special, measured by",
             "# testdata/reference/ptb_words.py: behaviour, words."]
    for name, words in groups.items():
        if not words:
            sys.exit("no %s found: something is wrong with how it is measured" % name)
        lines.append("")
        line = name
        for w in words:
            if len(line) + 1 + len(w) > 100:
                lines.append(line)
                line = name
            line += " " + w
        lines.append(line)
    with open(OUT, "w", encoding="ascii") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
