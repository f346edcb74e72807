// el makes an element. Attributes that are functions are listeners; those that are undefined or
// false are left out. Children are elements or texts: nothing is ever parsed as HTML.
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

// svg makes an element of a picture.
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(e, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") e.addEventListener(key, value);
    else if (value === true) e.setAttribute(key, "");
    else if (value !== undefined && value !== false) e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
}

export const byId = (id) => document.getElementById(id);

// percent writes a probability for people.
export function percent(p) {
  if (p > 0.995) return p === 1 ? "100%" : ">99%";
  if (p < 0.005) return "<1%";
  return Math.round(100 * p) + "%";
}

// number writes a number with a true minus sign.
export const number = (x, digits = 2) => x.toFixed(digits).replace(/^-(?!0\.?0*$)/, "\u2212").replace(/^-/, "");
