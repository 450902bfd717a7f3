// Elements from plain data: every text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(`ae-${id}`);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** An HTML element: make("p", {class: "under"}, "text", otherElement). */
function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function button(label, act, attributes) {
  return make("button", {type: "button", onclick: act, ...attributes}, label);
}

/** A line of small print. */
function under(...children) {
  return make("p", {class: "under"}, ...children);
}

/** A heading and what belongs to it; nothing when there is nothing. */
function section(title, ...children) {
  const content = children.flat(Infinity).filter(Boolean);
  return content.length ? make("section", {"aria-label": title}, make("h3", {}, title), content) : null;
}

function rows(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return known.length ? make("dl", {}, known.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])) : null;
}

/** A text of the user's program, kept from turning its surroundings right to left. */
function theirs(said, attributes) {
  return make("bdi", attributes, said);
}

function tell(said) {
  byId("status").textContent = said;
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
