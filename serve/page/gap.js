// The picture of the gap: the features of other photos, texts and textualised photos, and a
// photo's own among them. Across runs the direction from the mean of the images to that of the
// texts, as in the reports of cyclecap run.
import { el, svg, number } from "./dom.js";

const width = 300, height = 240, edge = 14;
const drawn = new WeakMap(); // what all pictures of a cloud share

function shared(cloud) {
  if (drawn.has(cloud)) return drawn.get(cloud);
  const all = [...cloud.images, ...cloud.texts, ...cloud.textualised];
  const range = (k) => [Math.min(...all.map((p) => p[k])), Math.max(...all.map((p) => p[k]))];
  const [x, y] = [range(0), range(1)];
  // One unit is as long on both axes: distances can be compared by eye.
  const unit = Math.min((width - 2 * edge) / (x[1] - x[0]), (height - 2 * edge) / (y[1] - y[0]));
  // A photo unlike the others may lie outside: it is then shown at the edge.
  const within = (v, most) => Math.min(Math.max(v, edge / 2), most - edge / 2);
  const at = ([a, b]) => [within(width / 2 + unit * (a - (x[0] + x[1]) / 2), width), within(height / 2 - unit * (b - (y[0] + y[1]) / 2), height)];
  const path = (points, mark) => points.map((p) => mark(...at(p).map((v) => Math.round(10 * v) / 10))).join("");
  const mean = (points) => points.reduce((sum, p) => sum + p[0] / points.length, 0);
  const out = {
    at,
    images: path(cloud.images, (a, b) => `M${a} ${b}h0`),
    texts: path(cloud.texts, (a, b) => `M${a - 2} ${b - 2}l4 4m0-4l-4 4`),
    textualised: path(cloud.textualised, (a, b) => `M${a - 2.5} ${b + 2}h5l-2.5-4.5z`),
    means: { images: mean(cloud.images), texts: mean(cloud.texts) },
  };
  drawn.set(cloud, out);
  return out;
}

// figure draws the picture for a photo.
export function figure(cloud, gap) {
  const s = shared(cloud);
  const [ax, ay] = s.at(gap.image);
  const marks = [
    svg("path", { class: "cloud dots k0", d: s.images }),
    svg("path", { class: "cloud k1", d: s.texts }),
    svg("path", { class: "cloud k2", d: s.textualised }),
  ];
  let words = `Across the gap, the photo's feature is at ${number(gap.image[0])}`;
  if (gap.textualised) {
    const [bx, by] = s.at(gap.textualised);
    marks.push(svg("path", { class: "way", d: `M${ax} ${ay}L${bx} ${by}` }));
    marks.push(svg("path", { class: "own k2", d: `M${bx - 7} ${by + 5}h14l-7-12.5z` }));
    words += `, and textualised at ${number(gap.textualised[0])}`;
  }
  marks.push(svg("circle", { class: "own k0", cx: ax, cy: ay, r: 6.5 }));
  words += `. The mean of the images is at ${number(s.means.images)}, that of the texts at ${number(s.means.texts)}.`;
  const key = (mark, colour, text) => el("li", {}, el("i", { class: colour, "aria-hidden": "true" }, mark), text);
  return el("figure", { class: "gap" },
    el("figcaption", {}, "Across the gap"),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Scatter plot. " + words }, ...marks),
    el("ul", { class: "legend" }, key("●", "k0", "images"), key("×", "k1", "texts"), gap.textualised ? key("△", "k2", "textualised") : undefined),
    el("p", { class: "soft small" }, words));
}
