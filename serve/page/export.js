// Exports: what the page has, as files.

// cocoID is the id in a file name of COCO: COCO_val2014_000000391895.jpg or 000000391895.jpg.
function cocoID(name) {
  const m = /^(?:COCO_[a-z]+\d{4}_)?(\d{12})\.(?:jpg|jpeg|png)$/.exec(name);
  return m ? Number(m[1]) : undefined;
}

// text has the lines that cyclecap caption prints.
function text(photos) {
  return photos.flatMap((p) => p.captions.map((c) => `${p.name} (${c.pipeline}): ${c.text}\n`)).join("");
}

// json has everything.
function json(photos, settings) {
  return JSON.stringify({ ...settings, photos }, undefined, 1) + "\n";
}

// coco has the best caption of each photo, for cyclecap eval --results. Photos have the ids of
// their names if all names are COCO's, and otherwise their numbers on the page.
function coco(photos) {
  let ids = photos.map((p) => cocoID(p.name));
  if (ids.includes(undefined) || new Set(ids).size < ids.length) ids = photos.map((_, i) => i + 1);
  return JSON.stringify(photos.map((p, i) => ({ image_id: ids[i], caption: p.captions.at(-1).text }))) + "\n";
}

const forms = {
  text: { name: "captions.txt", type: "text/plain", write: text },
  json: { name: "captions.json", type: "application/json", write: json },
  coco: { name: "results.json", type: "application/json", write: coco },
};

// save lets the browser save the photos that have captions in a form: text, json or coco.
export function save(form, photos, settings) {
  const { name, type, write } = forms[form];
  const url = URL.createObjectURL(new Blob([write(photos, settings)], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// curl returns the command that asks for the captions of a file.
export function curl(name, settings, key) {
  const file = /^[A-Za-z0-9][A-Za-z0-9._ -]*$/.test(name) ? name : `"${name.replace(/[\\"]/g, "\\$&")}"`;
  const fields = Object.entries(settings).map(([k, v]) => ` -F ${k}=${v}`).join("");
  return `curl ${key ? '-H "Authorization: Bearer $KEY" ' : ""}-F ${quote("image=@" + file)}${fields} ${new URL("caption", document.baseURI)}`;
}

const quote = (word) => (/^[\w=@./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
