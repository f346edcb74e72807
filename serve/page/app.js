import { ask, Failure, hasKey } from "./api.js";
import { byId, el } from "./dom.js";
import { Photo } from "./photo.js";
import { save } from "./export.js";

const photos = [];
const clouds = new Map(); // pictures of the gap by model
let models = [], limits = {}, model;

const options = { needKey };

// needKey asks for an API key. It returns a promise of it.
function needKey(wrong) {
  const form = byId("key-form"), input = byId("key");
  form.hidden = false;
  form.querySelector("label").textContent = wrong ? "This API key is not one of the server's. Enter another one" : "This server needs an API key";
  input.value = "";
  input.focus();
  return new Promise((done) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.hidden = true;
      done(input.value.trim());
    }, { once: true });
  });
}

byId("key-form").addEventListener("submit", (event) => event.preventDefault());

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = text === "";
}

// Settings.

function settings() {
  const out = {};
  if (models.length > 1) out.model = model.name;
  out.decode = byId("decode").value;
  if (out.decode === "beam") out.beam = byId("beam").valueAsNumber;
  return out;
}

const texts = () => byId("texts").value.split("\n").map((t) => t.trim()).filter((t) => t !== "");

const about = {
  0: "It has features, but writes no captions: compare photos with texts.",
  1: "It writes captions from the image feature of a photo.",
  2: "It captions a photo twice: directly from its image feature, and from that feature translated into a text feature (textualised).",
};

function chooseModel(name) {
  model = models.find((m) => m.name === name) ?? models[0];
  byId("about").textContent = (models.length > 1 ? "" : `Model: ${model.name}. `) + about[Math.min(model.pipelines.length, 2)];
  byId("decode-fields").hidden = model.pipelines.length === 0;
  byId("text-fields").hidden = !model.texts;
  byId("samples").hidden = !model.built_in;
}

function settingsChanged() {
  byId("beam-field").hidden = byId("decode").value !== "beam";
  if (byId("beam").reportValidity()) photos.forEach(run);
}

// Work: two requests at once, so that the server reads one photo while it computes another.

const places = { free: 2, waiting: [] };

async function place(signal) {
  if (places.free > 0) {
    places.free--;
    return;
  }
  await new Promise((turn) => places.waiting.push(turn));
  if (signal.aborted) {
    leave();
    signal.throwIfAborted();
  }
}

function leave() {
  const next = places.waiting.shift();
  if (next) next();
  else places.free++;
}

// run asks for everything about a photo, again if it has been asked before.
async function run(photo) {
  photo.clear();
  await work(photo, async (signal) => {
    const how = settings(), of = model;
    if (photo.file.size + 4096 > limits.body) {
      throw new Failure(`The file has ${(photo.file.size / 1e6).toFixed(1)} MB; this server takes ${(limits.body / 1e6).toFixed(0)} MB (--max-body).`);
    }
    photo.command(of.pipelines.length ? how : undefined, hasKey());
    if (of.pipelines.length) {
      const cloud = of.gap ? await cloudOf(of) : undefined;
      const answer = await ask("caption", { ...options, body: form(photo, { ...how, ...(cloud ? { gap: true } : {}) }), signal, waiting: busy(photo) });
      photo.describe(answer.photos[0], cloud);
    }
    await similarity(photo, signal);
  });
}

// compare asks for the similarities of a photo again. A photo without captions comes to it later.
async function compare(photo) {
  if (model.pipelines.length > 0 && photo.captions.length === 0) return;
  await work(photo, (signal) => similarity(photo, signal));
}

async function similarity(photo, signal) {
  const list = texts();
  photo.sims.replaceChildren();
  photo.similarity = undefined;
  if (list.length === 0 || !model.texts) return;
  const body = form(photo, models.length > 1 ? { model: model.name } : {});
  for (const t of list) body.append("text", t);
  try {
    const answer = await ask("similarity", { ...options, body, signal, waiting: busy(photo) });
    photo.compare(list, answer.cosines[0], answer.probabilities?.[0]);
  } catch (e) {
    if (!(e instanceof Failure) || photo.captions.length === 0) throw e;
    photo.failComparison(e.message);
  }
}

// work does something for a photo when there is a place, unless other work for it comes.
async function work(photo, f) {
  photo.stop?.abort();
  const stop = (photo.stop = new AbortController());
  photo.show("waiting", "Waiting …");
  report();
  try {
    await place(stop.signal);
    try {
      stop.signal.throwIfAborted();
      photo.show("working", "Looking at it …");
      await f(stop.signal);
      photo.show("done", photo.captions.length || photo.similarity ? "" : "Type texts to compare it with.");
    } finally {
      leave();
    }
  } catch (e) {
    if (stop.signal.aborted) return;
    photo.show("failed", e instanceof Failure ? e.message : `The page has a fault: ${e.message}`);
  }
  report();
}

const busy = (photo) => (seconds) => photo.show("working", `The server is busy. Trying again in ${seconds} s …`);

function form(photo, fields) {
  const body = new FormData();
  body.append("image", photo.file, photo.name);
  for (const [k, v] of Object.entries(fields)) body.append(k, v);
  return body;
}

// cloudOf returns a promise of the picture of a model.
function cloudOf(m) {
  if (!clouds.has(m.name)) {
    const cloud = ask("gap?model=" + encodeURIComponent(m.name), options);
    cloud.catch(() => clouds.delete(m.name)); // to try again
    clouds.set(m.name, cloud);
  }
  return clouds.get(m.name);
}

// Photos.

const calm = matchMedia("(prefers-reduced-motion: reduce)");

function add(files, alts = []) {
  const added = [...files].map((f, i) => new Photo(f, alts[i], { again: run, remove }));
  if (added.length === 0) return;
  const first = photos.length === 0;
  photos.push(...added);
  byId("photos").hidden = false;
  document.body.classList.add("has-photos");
  byId("list").append(...added.map((p) => p.article));
  if (first) byId("photos").scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
  added.forEach(run);
}

function remove(photo) {
  const i = photos.indexOf(photo);
  photo.stop?.abort();
  photos.splice(i, 1);
  photo.remove();
  (photos[Math.min(i, photos.length - 1)]?.article.querySelector("button.quiet") ?? byId("choose")).focus();
  report();
}

// report says how far the work is.
function report() {
  const count = (state) => photos.filter((p) => p.state === state);
  const done = count("done").length, failed = count("failed"), all = photos.length;
  let text = all === 0 ? "" : done + failed.length < all ? `${done + failed.length} of ${all} …` : `${done} done`;
  if (failed.length > 0) text += `, ${failed.length} failed (${failed.at(-1).name})`;
  if (byId("status").textContent !== text) byId("status").textContent = text;
  const bar = byId("progress");
  bar.hidden = done + failed.length === all;
  bar.max = Math.max(all, 1);
  bar.value = done + failed.length;
  for (const b of document.querySelectorAll("[data-export]")) b.disabled = !photos.some((p) => p.captions.length);
  byId("photos").hidden = all === 0;
  document.body.classList.toggle("has-photos", all > 0);
}

function exported() {
  return photos.filter((p) => p.captions.length).map(({ name, captions, gap, similarity }) => ({ name, captions, gap, similarity }));
}

async function showSamples() {
  const list = await ask("page/samples/list.json");
  const samples = list.map(({ file, text }) => ({ src: "page/samples/" + file, name: "sample-" + file, text }));
  const use = async (some) => {
    try {
      const files = await Promise.all(some.map(async (s) => {
        const answer = await fetch(s.src);
        return new File([await answer.blob()], s.name, { type: "image/jpeg" });
      }));
      trouble("");
      add(files, some.map((s) => s.text));
    } catch {
      trouble("The samples cannot be loaded: the server cannot be reached.");
    }
  };
  byId("samples").querySelector("ul").replaceChildren(
    ...samples.map((s) => el("li", {}, el("button", { type: "button", click: () => use([s]) }, el("img", { src: s.src, alt: s.text, width: 320, height: 320 })))),
    el("li", {}, el("button", { type: "button", class: "all", click: () => use(samples) }, "All six")));
}

// What people do.

for (const id of ["choose", "take"]) {
  byId(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
}

const hasFiles = (transfer) => [...(transfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFiles(event.dataTransfer)) return;
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  document.body.classList.remove("over");
  if (!hasFiles(event.dataTransfer)) return;
  event.preventDefault();
  if (model) add(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  if (model && event.clipboardData?.files.length) {
    event.preventDefault();
    add(event.clipboardData.files);
  }
});

byId("model").addEventListener("change", (event) => {
  chooseModel(event.target.value);
  photos.forEach(run);
});
byId("decode").addEventListener("change", settingsChanged);
byId("beam").addEventListener("change", settingsChanged);

let compared = "";
function textsChanged() {
  const now = texts().join("\n");
  if (now === compared) return;
  compared = now;
  photos.forEach(compare);
}
byId("texts").addEventListener("change", textsChanged);
byId("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) textsChanged();
});

for (const b of document.querySelectorAll("[data-export]")) {
  b.addEventListener("click", () => save(b.dataset.export, exported(), { model: model.name, ...settings() }));
}
byId("clear").addEventListener("click", () => {
  for (const p of photos.splice(0)) {
    p.stop?.abort();
    p.remove();
  }
  byId("choose").focus();
  report();
});

async function begin() {
  try {
    ({ models, limits } = await ask("models", { ...options, waiting: () => trouble("The server is loading its models …"), most: Infinity }));
    trouble("");
  } catch (e) {
    trouble(e.message + " Reload the page to try again.");
    return;
  }
  byId("model").append(...models.map((m) => el("option", { value: m.name }, m.name)));
  byId("model-field").hidden = models.length < 2;
  byId("decode").value = "beam";
  byId("beam").value = models[0].beam || 5;
  byId("beam").max = limits.beam;
  chooseModel(models[0].name);
  byId("start").hidden = false;
  if (models.some((m) => m.built_in)) await showSamples().catch(() => (byId("samples").hidden = true));
}

begin();
