// Puts the layouts of open modules into one another. Where a module opens, its surroundings are stretched:
// along each axis by a map that never brings two places closer, so that nothing comes to overlap.
// Comments of this page's script stand on lines of their own, for they are taken out line by line.

const ABOVE = 6, BELOW = 14, SIDE = 8, TITLE = 20, CORNER = 9, RANK = 40, BAND = 1200;

/** A map of one axis on which each span [from, to] becomes at least as long as it needs. */
// Room is made just inside its two ends, so that what stands near its middle keeps its distance from it.
function stretch(spans) {
  const gaps = [], within = (from, to) => gaps.reduce((sum, [at, amount]) => sum + (at > from && at < to ? amount : 0), 0);
  for (const [from, to, need] of [...spans].sort((one, other) => one[1] - one[0] - (other[1] - other[0]))) {
    const missing = need - (to - from) - within(from, to), inset = Math.min(0.5, (to - from) / 4);
    if (missing > 0) gaps.push([from + inset, missing / 2], [to - inset, missing / 2]);
  }
  gaps.sort((one, other) => one[0] - other[0]);
  const sums = [0];
  for (const [, amount] of gaps) sums.push(sums.at(-1) + amount);
  return (number) => {
    let low = 0, high = gaps.length;
    while (low < high) { const middle = (low + high) >> 1; if (gaps[middle][0] < number) low = middle + 1; else high = middle; }
    return number + sums[low];
  };
}

/** The geometry of every open module: its two maps, where it stands, and its frame. */
function arrange(view) {
  const rooms = new Map();
  const inner = (thing) => (thing < view.first ? null : rooms.get(thing - view.first));
  for (const module of [...view.modules].reverse()) {
    if (!isOpen(view, module.number)) continue;
    const spans = (start, size, need) => module.things.filter(({thing}) => inner(thing)).map((thing) => [thing[start], thing[start] + thing[size], need(inner(thing.thing))]);
    const fx = stretch(spans("x", "width", ({width}) => width + 2 * SIDE)), fy = stretch(spans("y", "height", ({height}) => height + ABOVE + BELOW));
    const [left, top, width, height] = module.box, wide = fx(left + width) - fx(left);
    rooms.set(module.number, {module, byThing: new Map(module.things.map((thing) => [thing.thing, thing])), fx, fy, left: fx(left), top: fy(top), wide, width: Math.max(wide, module.name.length * 6.2 + 40), height: fy(top + height) - fy(top) + TITLE, x: 0, y: 0});
  }
  for (const room of [...rooms.values()].reverse()) {
    for (const thing of room.module.things) {
      const open = inner(thing.thing);
      if (!open) continue;
      const middle = centre(room, thing);
      open.frame = {x: middle.x - open.width / 2, y: middle.y - (open.height + BELOW - ABOVE) / 2, width: open.width, height: open.height};
      open.x = open.frame.x + (open.width - open.wide) / 2 - open.left;
      open.y = open.frame.y + TITLE - open.top;
    }
  }
  return rooms;
}

/** Where the middle of a thing's place is in the whole drawing; a box keeps its size around it. */
function centre(room, {x, y, width, height}) {
  const open = (map, from, size) => (map(from) + map(from + size)) / 2;
  return {x: room.x + open(room.fx, x, width), y: room.y + open(room.fy, y, height)};
}

/** Points of path data "mx yc…" with curves relative to where each begins. */
function pointsOf(path) {
  const numbers = path.match(/-?(?:\d+\.?\d*|\.\d+)/g).map(Number);
  const points = [[numbers[0], numbers[1]]];
  for (let at = 2; at < numbers.length; at += 6) {
    const [x, y] = points.at(-1);
    for (let step = 0; step < 6; step += 2) points.push([x + numbers[at + step], y + numbers[at + step + 1]]);
  }
  return points;
}

/** Points close together along curves. */
function flat(points) {
  const found = [points[0]];
  for (let at = 0; at + 3 < points.length; at += 3) {
    const [a, b, c, d] = points.slice(at, at + 4), pieces = Math.max(4, Math.min(24, Math.round(Math.hypot(d[0] - a[0], d[1] - a[1]) / 8)));
    for (let piece = 1; piece <= pieces; piece += 1) {
      const t = piece / pieces, u = 1 - t;
      found.push([0, 1].map((axis) => u * u * u * a[axis] + 3 * u * u * t * b[axis] + 3 * u * t * t * c[axis] + t * t * t * d[axis]));
    }
  }
  return found;
}

/** Path data through points, with corners rounded; points that are no corner are left out. */
function rounded(points) {
  const off = ([ax, ay], [bx, by], [cx, cy]) => Math.abs((cx - ax) * (by - ay) - (cy - ay) * (bx - ax)) / (Math.hypot(cx - ax, cy - ay) || 1);
  const kept = points.filter((point, place_) => place_ === 0 || place_ === points.length - 1 || off(points[place_ - 1], point, points[place_ + 1]) > 0.04);
  const said = (one) => `${one[0].toFixed(1)} ${one[1].toFixed(1)}`;
  const near = (from, to) => {
    const length = Math.hypot(to[0] - from[0], to[1] - from[1]), share = length ? Math.min(CORNER / length, 0.5) : 0;
    return [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share];
  };
  const bends = kept.slice(1, -1).map((point, place_) => `L${said(near(point, kept[place_]))}Q${said(point)} ${said(near(point, kept[place_ + 2]))}`);
  return `M${said(kept[0])}${bends.join("")}L${said(kept.at(-1))}`;
}

/** What the engine drew, by room: boxes by thing, strands by their ends. */
function partsOf(svg) {
  return new Map([...svg.children].map((group) => [Number(group.dataset.room), {
    boxes: new Map([...group.querySelectorAll(".n")].map((box) => [Number(box.dataset.t), box])),
    strands: new Map([...group.querySelectorAll(".e")].map((edge) => [edge.dataset.e, edge]))}]));
}

/** The drawing of a settled view: an svg element, its boxes by place, its wires by place, and its bounds. */
function compose(view, parts) {
  const rooms = arrange(view), shifts = new Map(), moved = draw("g", {class: "moved"});
  const frames = [], edges = [], boxes = [];
  for (const room of rooms.values()) {
    for (const thing of room.module.things) {
      const middle = centre(room, thing);
      shifts.set(thing.thing, [middle.x - thing.x - thing.width / 2, middle.y - thing.y - thing.height / 2]);
    }
    if (room.module.number) frames.push(frameOf(room));
  }
  view.things.forEach((thing, place_) => {
    const room = rooms.get(view.around[thing]), box = parts.get(room.module.number).boxes.get(thing).cloneNode(true);
    const [dx, dy] = shifts.get(thing);
    box.setAttribute("transform", `translate(${dx.toFixed(1)} ${dy.toFixed(1)})`);
    box.shift = [dx, dy];
    const {y, height} = room.byThing.get(thing);
    box.extent = [y + dy, y + dy + height];
    box.dataset.s = String(place_);
    delete box.dataset.t;
    if (thing >= view.first) box.append(sign(room.byThing.get(thing), "+"));
    boxes.push(box);
  });
  const context = {view, rooms, shifts, parts, drawn: new Map(), ends: new Map()};
  const wires = new Map(view.wires.map((wire, place_) => [place_, [...wire.pieces].map((piece) => pieceOf(context, piece)).filter(Boolean)]));
  for (const [wire, pieces] of wires) for (const piece of pieces) piece.dataset.wires = `${piece.dataset.wires || ""} ${wire}`.trim();
  edges.push(...new Set([...wires.values()].flat()));
  const bands = [...inBands(edges), ...inBands(boxes)];
  moved.append(...frames.sort((one, other) => one.level - other.level).map(({element}) => element), ...bands.map(({element}) => element));
  const {left, top, width, height} = rooms.get(0);
  const svg = draw("svg", {class: "drawing", role: "group", "aria-label": "Autograd graph"}, moved);
  return {svg, moved, boxes, wires, rooms, bands, box: [left, top, width, height - TITLE],
    ways: view.wires.map(({way}) => way.map((piece) => context.drawn.get(piece)).filter(Boolean))};
}

/** Groups of what stands at about the same height, so that those out of sight need not be painted. */
function inBands(elements) {
  const bands = new Map();
  for (const element of elements) {
    const [top, bottom] = element.extent, key = bottom - top > BAND ? "tall" : Math.floor(top / BAND);
    if (!bands.has(key)) bands.set(key, {element: draw("g", {class: "band"}), top, bottom, hidden: false});
    const band = bands.get(key);
    band.top = Math.min(band.top, top);
    band.bottom = Math.max(band.bottom, bottom);
    band.element.append(element);
  }
  return [...bands.values()];
}

/** The frame of an open module, with its name and a sign that folds it. */
function frameOf({module, frame}) {
  const level = Math.min(module.level - 1, 3);
  const element = draw("g", {class: "m", "data-m": module.path, "data-module": module.number, role: "button", tabindex: "-1",
    "aria-expanded": "true", "aria-label": `module ${module.path || module.name}, open`},
  draw("rect", {class: `frame level-${level}`, x: frame.x, y: frame.y, width: frame.width, height: frame.height, rx: 7}),
  sign({x: frame.x + 9, y: frame.y + 6}, "−"),
  draw("text", {x: frame.x + 22, y: frame.y + 15}, module.name));
  return {level: module.level, element};
}

/** The small sign that opens (+) or folds (−) a module. */
function sign({x, y}, said) {
  return draw("g", {class: "sign", "aria-hidden": "true", transform: `translate(${x} ${y + 5})`}, draw("circle", {r: 6.5}),
    draw("path", {d: said === "+" ? "M-3.2 0h6.4M0-3.2v6.4" : "M-3.2 0h6.4"}));
}

/** One piece of a wire, drawn once however many wires share it. */
function pieceOf(context, piece) {
  const {drawn} = context;
  if (!drawn.has(piece)) drawn.set(piece, piece.includes("|") ? linkOf(context, piece) : strandOf(context, piece));
  return drawn.get(piece);
}

/** A strand in its place: its ends keep their distance to a box, its middle follows the maps. */
function strandOf({view, rooms, shifts, parts, ends}, piece) {
  const [number, key] = piece.split(":"), room = rooms.get(Number(number)), original = parts.get(Number(number)).strands.get(key);
  if (!original) return null;
  const [tail, head] = key.replace("~", "").split(",").map(Number), element = original.cloneNode(true);
  delete element.dataset.e;
  const path = element.querySelector("path:not(.h)"), before = flat(pointsOf(path.getAttribute("d")));
  const straight = besides(room, shifts, before, tail, head);
  const points = before.map(([x, y]) => [straight === null ? room.fx(x) + room.x : x + straight, room.fy(y) + room.y]);
  const closed = (thing) => thing >= 0 && !(thing >= view.first && rooms.has(thing - view.first));
  const follow = (thing, places) => { for (const place_ of places) points[place_] = before[place_].map((one, axis) => one + shifts.get(thing)[axis]); };
  const [least, most] = key.endsWith("~") ? [-Infinity, Infinity] : clearance(room, rooms, view, tail, head);
  for (const point of points) point[1] = Math.max(least, Math.min(most, point[1]));
  if (closed(tail)) {
    follow(tail, [0, 1]);
    if (points[0][1] < least) points[1] = [points[0][0], least];
  }
  if (tail < 0) points[0] = doorAt(room, room.module.doors[-1 - tail]);
  if (closed(head)) {
    follow(head, [points.length - 1, points.length - 2]);
    if (points.at(-1)[1] > most) points[points.length - 2] = [points.at(-1)[0], most];
  }
  for (const tip of element.querySelectorAll(".h")) {
    if (closed(head)) tip.setAttribute("transform", `translate(${shifts.get(head).map((one) => one.toFixed(1)).join(" ")})`);
    else tip.remove();
  }
  if (head < 0) points.push(doorAt(room, room.module.doors[-1 - head]));
  path.setAttribute("d", rounded(points));
  element.extent = extentOf(points);
  ends.set(piece, {first: points[0], last: points.at(-1), look: path.getAttribute("class")});
  return element;
}

/** Where a strand may run: below all that is open in the row it comes from, above all that is in the row it goes to. */
function clearance(room, rooms, view, tail, head) {
  const frames = (end) => {
    const own = room.byThing.get(end);
    return own ? room.module.things.filter(({y, height}) => y < own.y + own.height && y + height > own.y).map(({thing}) => rooms.get(thing - view.first)?.frame).filter(Boolean) : [];
  };
  const least = Math.max(...frames(tail).map(({y, height}) => y + height)), most = Math.min(...frames(head).map(({y}) => y));
  return least > most ? [-Infinity, Infinity] : [least, most];
}

/** How far a strand moves sideways as a whole: where it is short and straight between two that move alike; else null. */
function besides(room, shifts, points, tail, head) {
  const ends = [tail, head].map((end) => {
    const door = end < 0 ? room.module.doors[-1 - end] : null, thing = door || room.byThing.get(end);
    return {left: thing.x, right: thing.x + (thing.width || 0), shift: door ? doorAt(room, door)[0] - door.x : shifts.get(end)[0]};
  });
  const left = Math.min(...ends.map((end) => end.left)) - 1, right = Math.max(...ends.map((end) => end.right)) + 1;
  const short_ = Math.abs(points.at(-1)[1] - points[0][1]) < RANK;
  const alike = short_ && Math.abs(ends[0].shift - ends[1].shift) < 1 && points.every(([x]) => x > left && x < right);
  return alike ? ends[0].shift : null;
}

/** From the end of a strand through the frame of an open module to one of its doors, or the other way. */
function linkOf(context, piece) {
  const [strand, behind] = piece.split("|"), [module, number] = behind.split(".").map(Number);
  pieceOf(context, strand);
  const end = context.ends.get(strand), room = context.rooms.get(module), door = room.module.doors[number];
  if (!end || !door) return null;
  const [x, y] = doorAt(room, door), brink = door.out ? room.frame.y + room.frame.height : room.frame.y + TITLE;
  const bend = (from, to) => `M${from}C${from[0]} ${(from[1] + to[1]) / 2} ${to[0]} ${(from[1] + to[1]) / 2} ${to}`;
  const path = door.out ? `M${x} ${y}L${bend([x, brink], end.first).slice(1)}` : `${bend(end.last, [x, brink])}L${x} ${y}`;
  const element = draw("g", {class: "e"}, draw("path", {class: end.look, d: path}));
  element.extent = extentOf([end.first, end.last, [x, y], [x, brink]].filter((_, place_) => place_ > 1 || place_ === (door.out ? 0 : 1)));
  return element;
}

function extentOf(points) {
  return [Math.min(...points.map(([, y]) => y)), Math.max(...points.map(([, y]) => y))];
}

function doorAt({fx, fy, x, y}, door) {
  return [fx(door.x) + x, fy(door.y) + y];
}
