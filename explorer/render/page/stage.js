// The drawing on its stage: which level of detail is shown, and pan, zoom and flight over it.

const stage = {
  host: byId("stage"), report: null, view: null, svg: null, moved: null,
  x: 0, y: 0, scale: 1, made: new Map(), shapes: [], wires: new Map(), ways: null, rooms: null, bands: [], fitted: false, flight: 0,
};
const NEAREST = 6, FAR = 0.3, LEGIBLE = 0.75;

/** Show a level of detail of a report, with the modules of `open` open; a circuit has none. */
function showView(report, number, open = null) {
  const kept = report.views[number], key = `${report.place}-${number}`;
  const view = kept.modules && open ? settle(kept, open) : kept;
  if (stage.svg) stage.svg.remove();
  const drawn = view.modules ? compose(view, partsFor(key)) : laidOut(key);
  Object.assign(stage, {report, view: {...view, box: drawn.box || view.box}, svg: drawn.svg, moved: drawn.moved, shapes: drawn.boxes, wires: drawn.wires,
    ways: drawn.ways, rooms: drawn.rooms, bands: drawn.bands || []});
  stage.host.append(stage.svg);
  nameShapes();
  fit();
}

/** What the template of a level of detail holds. */
function drawingIn(key) {
  const find = (root) => root.querySelector(`svg[data-view="${key}"]`);
  const kept = [...stage.host.querySelectorAll("template")].map(({content}) => find(content)).find(Boolean);
  return kept ? document.importNode(kept, true) : find(stage.host);
}

function partsFor(key) {
  if (!stage.made.has(key)) stage.made.set(key, partsOf(drawingIn(key)));
  return stage.made.get(key);
}

/** A drawing that is shown as it was laid out. */
function laidOut(key) {
  if (!stage.made.has(key)) {
    const svg = drawingIn(key), boxes = [], wires = new Map();
    svg.removeAttribute("viewBox");
    for (const element of svg.querySelectorAll("[data-s]")) boxes[Number(element.dataset.s)] = element;
    for (const element of svg.querySelectorAll("[data-w]")) {
      const wire = Number(element.dataset.w);
      wires.set(wire, [...(wires.get(wire) || []), element]);
    }
    stage.made.set(key, {svg, moved: svg.querySelector(".moved"), boxes, wires, ways: null, rooms: null});
  }
  return stage.made.get(key);
}

/** Give every box a name to be read aloud; one of them at a time is in the order of the Tab key. */
function nameShapes() {
  if (stage.svg.dataset.named) return;
  stage.svg.dataset.named = "yes";
  stage.shapes.forEach((element, number) => {
    element.setAttribute("role", "button");
    element.setAttribute("tabindex", number === 0 ? "0" : "-1");
    element.setAttribute("aria-label", shapeWords(number).replaceAll("\n", ", "));
    if (stage.view.shapes[number].folded) element.setAttribute("aria-expanded", "false");
  });
}

function shapeWords(number) {
  const shape = stage.view.shapes[number], node = stage.report.nodes[shape.members[0]];
  if (shape.members.length > 1) return `${shape.label || node.label}\n${count(shape.nodes.length, "node")}`;
  const spec = node.outputs[0];
  return [node.label, node.label === operationOf(node) ? "" : operationOf(node),
    spec && `${sizes(spec.shape)} ${spec.dtype}`, stage.report.ran && `gradient ${gradientWords(stage.report, node)}`,
    node.module, node.source && place(node.source)].filter(Boolean).join("\n");
}

function put(x, y, scale) {
  stage.x = x; stage.y = y; stage.scale = scale;
  stage.moved.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale.toFixed(5)})`);
  stage.host.classList.toggle("far", scale < FAR);
  const height = stage.host.clientHeight;
  for (const band of stage.bands) {
    const hidden = band.bottom * scale + y < -height || band.top * scale + y > 2 * height;
    if (hidden === band.hidden) continue;
    band.hidden = hidden;
    band.element.style.visibility = hidden ? "hidden" : "";
  }
}

function leastScale() {
  return Math.min(fitted().scale, 0.5) / 2;
}

/** Where the whole drawing is in sight. */
function fitted() {
  const [left, top, width, height] = stage.view.box;
  const w = stage.host.clientWidth, h = stage.host.clientHeight - covered();
  const scale = Math.max(Math.min(w / width, h / height, 1.6), 1e-3);
  return {scale, x: (w - width * scale) / 2 - left * scale, y: (h - height * scale) / 2 - top * scale};
}

/** Pixels at the bottom of the stage that the legend covers. */
function covered() {
  return byId("legend").offsetHeight ? byId("legend").offsetHeight + 10 : 0;
}

function fit() {
  cancelAnimationFrame(stage.flight);
  const {x, y, scale} = fitted();
  put(x, y, scale);
  stage.fitted = true;
}

/** The whole drawing where it can be read so; else its end, where backward begins, at a size that can be read. */
function fitLegibly() {
  fit();
  if (stage.scale >= 0.55) return;
  const roots = stage.report.roots.flatMap(([node]) => stage.view.homes.get(node) || []);
  const box = roots.length ? boxOf(stage.shapes[roots[0]]) : null;
  if (!box) return;
  const {clientWidth: w, clientHeight: h} = stage.host, [left, , width] = stage.view.box;
  const scale = Math.max(Math.min(w / width, 1), LEGIBLE);
  if (stage.view.circuit) {
    put(w - 16 - (left + width) * scale, h / 2 - (box.y + box.height / 2) * scale, scale);
    stage.fitted = false;
    return;
  }
  const middle = width * scale <= w ? left + width / 2 : box.x + box.width / 2;
  put(w / 2 - middle * scale, h - covered() - 24 - (box.y + box.height) * scale, scale);
  stage.fitted = false;
}

function pan(dx, dy) {
  cancelAnimationFrame(stage.flight);
  stage.fitted = false;
  const [left, top, width, height] = stage.view.box, {clientWidth: w, clientHeight: h} = stage.host;
  const k = stage.scale, keep = 60;
  const x = Math.min(w - keep - left * k, Math.max(keep - (left + width) * k, stage.x + dx));
  const y = Math.min(h - keep - top * k, Math.max(keep - (top + height) * k, stage.y + dy));
  put(x, y, k);
}

/** Zoom by `factor` about a point of the stage. */
function zoom(factor, x = stage.host.clientWidth / 2, y = stage.host.clientHeight / 2) {
  cancelAnimationFrame(stage.flight);
  const scale = Math.max(leastScale(), Math.min(NEAREST, stage.scale * factor)), by = scale / stage.scale;
  stage.fitted = false;
  put(x - (x - stage.x) * by, y - (y - stage.y) * by, scale);
}

function boxOf(element) {
  if (!element) return null;
  const ring = element.querySelector(":scope > rect, :scope > ellipse, :scope > path, :scope > polygon");
  const {x, y, width, height} = (ring || element).getBBox(), [dx, dy] = element.shift || [0, 0];
  return {x: x + dx, y: y + dy, width, height};
}

/** Bring a box into the middle, large enough to be read. */
function fly(number, {gently = false} = {}) {
  const box = boxOf(stage.shapes[number]);
  if (!box) return;
  const {clientWidth: w, clientHeight: h} = stage.host;
  const middle = {x: box.x + box.width / 2, y: box.y + box.height / 2};
  const seen = {x: stage.x + middle.x * stage.scale, y: stage.y + middle.y * stage.scale};
  const inside = seen.x > 60 && seen.x < w - 60 && seen.y > 50 && seen.y < h - 50;
  if (gently) { bring({x: box.x - 40 / stage.scale, y: box.y - 40 / stage.scale, width: box.width + 80 / stage.scale, height: box.height + 80 / stage.scale}); return; }
  const scale = Math.max(stage.scale, Math.min(1, LEGIBLE + 0.15));
  if (inside && stage.scale >= LEGIBLE) return;
  glide(w / 2 - middle.x * scale, h / 2 - middle.y * scale, scale);
}

/** Bring a box into sight as a whole, smaller where it has to be; one that is in sight stays. */
function bring({x, y, width, height}) {
  const {clientWidth: w, clientHeight} = stage.host, h = clientHeight - covered(), edge = 14;
  const scale = Math.max(Math.min(stage.scale, (w - 2 * edge) / width, (h - 2 * edge) / height), FAR + 0.02);
  const within = (start, size, room, now) => {
    if (size * scale > room - 2 * edge) return edge - start * scale;
    return Math.min(room - edge - (start + size) * scale, Math.max(edge - start * scale, now));
  };
  const at = {x: x + width / 2, y: y + height / 2}, by = scale - stage.scale, still_ = within(x, width, w, stage.x) === stage.x && within(y, height, h, stage.y) === stage.y;
  if (by === 0 && still_) return;
  glide(within(x, width, w, stage.x - at.x * by), within(y, height, h, stage.y - at.y * by), scale);
}

function glide(x, y, scale) {
  cancelAnimationFrame(stage.flight);
  stage.fitted = false;
  if (still.matches || document.hidden) { put(x, y, scale); return; }
  const from = {x: stage.x, y: stage.y, scale: stage.scale}, start = performance.now();
  const move = (now) => {
    const share = Math.min((now - start) / 320, 1), eased = 1 - (1 - share) ** 3;
    const mix = (one, other) => one + (other - one) * eased;
    put(mix(from.x, x), mix(from.y, y), mix(from.scale, scale));
    if (share < 1) stage.flight = requestAnimationFrame(move);
  };
  stage.flight = requestAnimationFrame(move);
}

/** Mouse, touch and pen: drag to pan, wheel and two fingers to zoom. Returns nothing; calls `chosen(target)` on a click. */
function listenToPointers(chosen) {
  const down = new Map();
  let travelled = 0, spread = 0;
  const middle = () => {
    const points = [...down.values()], rect = stage.host.getBoundingClientRect();
    return {x: points.reduce((sum, p) => sum + p.x, 0) / points.length - rect.left,
      y: points.reduce((sum, p) => sum + p.y, 0) / points.length - rect.top,
      spread: points.length > 1 ? Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) : 0};
  };
  stage.host.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (!down.size) travelled = 0;
    down.set(event.pointerId, {x: event.clientX, y: event.clientY});
    spread = middle().spread;
  });
  stage.host.addEventListener("pointermove", (event) => {
    if (!down.has(event.pointerId)) return;
    const before = middle();
    down.set(event.pointerId, {x: event.clientX, y: event.clientY});
    const after = middle(), dx = after.x - before.x, dy = after.y - before.y;
    travelled += Math.hypot(dx, dy);
    if (travelled < 4 && down.size === 1) return;
    if (!stage.host.hasPointerCapture(event.pointerId)) stage.host.setPointerCapture(event.pointerId);
    stage.host.classList.add("dragging");
    pan(dx, dy);
    if (down.size > 1 && spread > 0) zoom(after.spread / spread, after.x, after.y);
    spread = after.spread;
  });
  const up = (event) => {
    if (!down.delete(event.pointerId)) return;
    spread = down.size > 1 ? middle().spread : 0;
    if (!down.size) stage.host.classList.remove("dragging");
  };
  stage.host.addEventListener("pointerup", up);
  stage.host.addEventListener("pointercancel", up);
  stage.host.addEventListener("click", (event) => { if (travelled < 4) chosen(event.target); });
  stage.host.addEventListener("wheel", (event) => {
    event.preventDefault();
    const rect = stage.host.getBoundingClientRect(), unit = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey) pan(-(event.deltaX || event.deltaY) * unit, 0);
    else zoom(Math.exp(-event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - rect.left, event.clientY - rect.top);
  }, {passive: false});
  stage.host.addEventListener("pointerover", (event) => {
    const group = event.target.closest(".n[data-s]");
    if (!group || group.querySelector(":scope > title")) return;
    group.prepend(draw("title", {}, shapeWords(Number(group.dataset.s))));
  });
}

/** Fit again as the stage gets its first size or another one; a frame in a notebook starts without any. */
function listenToSize() {
  let started = false;
  new ResizeObserver(() => {
    if (!stage.svg || !stage.host.clientWidth || !stage.host.clientHeight) return;
    if (!started) { started = true; if (stage.pending) stage.pending(); else fitLegibly(); }
    else if (stage.fitted) fit();
  }).observe(stage.host);
}
