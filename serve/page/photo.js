import { el, number, percent } from "./dom.js";
import { caption, table } from "./words.js";
import { figure } from "./gap.js";
import { curl } from "./export.js";

const origins = { direct: "from the image feature", textualised: "from the translated feature" };
let last = 0;

// A Photo is a file with what the server says about it, and its part of the page.
export class Photo {
  captions = [];
  gap = undefined;
  similarity = undefined;
  error = undefined;
  state = "waiting"; // or working, done, failed

  // on has the functions again and remove.
  constructor(file, alt, on) {
    Object.assign(this, { file, alt, name: file.name || "photo", url: URL.createObjectURL(file) });
    const id = `photo-${++last}`;
    const image = el("img", { src: this.url, alt: alt ?? this.name, decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(el("div", { class: "nophoto" }, "This file cannot be shown")), { once: true });
    // A photo is as wide as its column, but not higher than the window.
    image.addEventListener("load", () => image.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight));
    this.image = image;
    this.note = el("p", { class: "state soft" });
    this.again = el("button", { type: "button", click: () => on.again(this), hidden: true }, "Try again");
    this.said = el("div", { class: "said" });
    this.sims = el("div", { class: "sims" });
    this.picture = el("div", { class: "picture" });
    this.line = el("code");
    this.copied = el("span", { class: "soft small", role: "status" });
    this.tools = el("details", { class: "curl" }, el("summary", {}, "curl"),
      el("pre", {}, this.line),
      el("div", { class: "row" }, el("button", { type: "button", click: () => this.copy() }, "Copy"), this.copied));
    this.article = el("article", { "aria-labelledby": id },
      el("div", { class: "shot" }, image),
      el("div", { class: "result" },
        el("div", { class: "head" }, el("h3", { id }, this.name),
          el("button", { type: "button", class: "quiet", "aria-label": `Remove ${this.name}`, click: () => on.remove(this) }, "Remove")),
        this.note, this.again, this.said, this.sims, this.tools),
      this.picture);
    this.show("waiting", "Waiting …");
  }

  // show sets the state of the photo, with words for it.
  show(state, text) {
    this.state = state;
    this.article.dataset.state = state;
    this.article.toggleAttribute("aria-busy", false);
    if (state === "working") this.article.setAttribute("aria-busy", "true");
    this.note.textContent = text;
    this.note.hidden = text === "";
    this.note.className = state === "failed" ? "state error" : "state soft";
    this.error = state === "failed" ? text : undefined;
    this.again.hidden = state !== "failed";
  }

  // clear removes what the server has said.
  clear() {
    this.captions = [];
    this.gap = this.similarity = undefined;
    for (const part of [this.said, this.sims, this.picture]) part.replaceChildren();
  }

  // command sets the curl line; an empty one hides it.
  command(settings, key) {
    this.tools.hidden = settings === undefined;
    if (settings) this.line.textContent = curl(this.name, settings, key);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.line.textContent);
      this.copied.textContent = "Copied.";
    } catch {
      // Pages that were not sent over HTTPS or from this machine may not use the clipboard.
      getSelection().selectAllChildren(this.line);
      this.copied.textContent = "Selected: copy it with Ctrl+C.";
    }
  }

  // describe shows captions, and the photo in the picture of the gap.
  describe({ captions, gap }, cloud) {
    this.captions = captions;
    this.gap = gap;
    this.said.replaceChildren(...captions.map(said));
    this.image.alt = `${this.alt ?? this.name}. Caption: ${captions.at(-1).text}`;
    this.picture.replaceChildren(...(gap && cloud ? [figure(cloud, gap)] : []));
  }

  // compare shows the similarities to texts.
  compare(texts, cosines, probabilities) {
    this.similarity = texts.map((text, i) => ({ text, cosine: cosines[i], probability: probabilities?.[i] }));
    const shares = texts.length > 1 && probabilities !== undefined;
    const best = cosines.indexOf(Math.max(...cosines));
    this.sims.replaceChildren(el("table", {},
      el("caption", {}, "Similarity to texts"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "text"), el("th", { scope: "col", class: "num" }, "cosine"), shares ? el("th", { scope: "col", class: "num" }, "share") : undefined)),
      el("tbody", {}, ...texts.map((text, i) => {
        const row = el("tr", { class: i === best && texts.length > 1 ? "best" : undefined },
          el("th", { scope: "row" }, text, el("span", { class: "bar" })),
          el("td", { class: "num" }, number(cosines[i])),
          shares ? el("td", { class: "num" }, percent(probabilities[i])) : undefined);
        row.style.setProperty("--share", Math.max(0, shares ? probabilities[i] : cosines[i]));
        return row;
      }))));
  }

  failComparison(text) {
    this.sims.replaceChildren(el("p", { class: "error" }, text));
  }

  remove() {
    URL.revokeObjectURL(this.url);
    this.article.remove();
  }
}

// said shows a caption with its alternatives.
function said(c) {
  const others = (c.alternatives ?? []).map((a) => el("li", {}, el("span", {}, a.text), "\u00a0", score(a.score)));
  return el("div", { class: c.pipeline },
    el("h4", {}, c.pipeline, " ", el("span", { class: "soft" }, origins[c.pipeline] ?? "")),
    caption(c.tokens), score(c.score, "score "),
    others.length ? el("div", { class: "others" }, el("h5", {}, "Alternatives"), el("ol", { start: 2 }, ...others)) : undefined,
    el("details", {}, el("summary", {}, "Words as a table"), table(c.tokens)));
}

const score = (value, before = "") => el("span", { class: "score soft" }, before, number(value));
