import { el, percent } from "./dom.js";

// words joins tokens into words: a token that begins with a space begins a word, and a
// punctuation mark is a word of its own. The probability of a word is the product of those of its
// tokens.
export function words(tokens) {
  const list = [];
  let space = true; // before the next token
  for (const { text, logprob } of tokens) {
    const trimmed = text.trim();
    const mark = /^\p{P}+$/u.test(trimmed);
    const begins = space || /^\s/.test(text);
    const last = list.at(-1);
    if (!last || ((begins || mark || last.mark) && trimmed !== "")) {
      list.push({ space: begins && list.length > 0, text: trimmed, logprob, mark });
    } else {
      last.text += trimmed;
      last.logprob += logprob;
    }
    space = /\s$/.test(text);
  }
  return list.map(({ space, text, logprob }) => ({ space, text, probability: Math.exp(logprob) }));
}

// caption shows the words of a caption, each with a line as long as it is probable. The
// probability itself appears beside a word under the pointer or with the focus; Tab moves to the
// caption, the arrow keys through its words, and Escape hides the probability.
export function caption(tokens) {
  const list = words(tokens).map((w, i) => {
    const e = el("span", { class: "word", tabindex: i === 0 ? 0 : -1 }, w.text, el("span", { class: "tip" }, " ", percent(w.probability)));
    e.style.setProperty("--p", w.probability);
    return e;
  });
  const all = words(tokens);
  return el("p", { class: "caption", keydown: move, pointerover: show },
    ...list.flatMap((e, i) => (all[i].space ? [" ", e] : [e])));
}

function move(event) {
  const list = [...event.currentTarget.querySelectorAll(".word")];
  const at = list.indexOf(document.activeElement);
  if (event.key === "Escape") event.currentTarget.classList.add("quiet");
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: list.length - 1 }[event.key];
  if (to === undefined || !list[to]) return;
  event.preventDefault();
  event.currentTarget.classList.remove("quiet");
  for (const e of list) e.tabIndex = e === list[to] ? 0 : -1;
  list[to].focus();
}

function show(event) {
  event.currentTarget.classList.remove("quiet");
}

// table shows the same as text.
export function table(tokens) {
  return el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "word"), el("th", { scope: "col", class: "num" }, "probability"))),
    el("tbody", {}, ...words(tokens).map((w) => el("tr", {}, el("th", { scope: "row" }, w.text), el("td", { class: "num" }, percent(w.probability))))));
}
