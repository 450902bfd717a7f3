// Modules that open and fold in place: which boxes are in sight when some are open, and which wires run between them.
// What stands in a module are its things: a number below `first` is a box of the drawing, others are modules.

/** The modules of a level of detail, as explorer/render/nest.py cuts them; number 0 is the whole drawing. */
function nestOf(view, raw) {
  const first = view.base.length, around = [];
  const modules = raw.rooms.map((room, number) => {
    for (const [thing] of room.t) around[thing] = number;
    return {number, name: text(room.n), path: text(room.p), parent: room.u, box: room.b, shapes: [],
      things: room.t.map(([thing, x, y, width, height]) => ({thing, x, y, width, height})),
      doors: room.d.map(([x, y, out, ...things]) => ({x, y, out: Boolean(out), things: new Set(things)}))};
  });
  const seen = new Map();
  for (const module of modules) {
    const same = seen.get(module.path) || 0;
    seen.set(module.path, same + 1);
    Object.assign(module, {level: module.parent < 0 ? 0 : modules[module.parent].level + 1, key: `${module.path}#${same}`});
  }
  view.base.forEach((shape, place) => { for (let at = around[place]; at >= 0; at = modules[at].parent) modules[at].shapes.push(shape); });
  for (const module of modules) {
    module.shape = {members: [...new Set(module.shapes.flatMap(({members}) => members))], nodes: [...new Set(module.shapes.flatMap(({nodes}) => nodes))],
      kind: "module", label: module.name, module: module.path, times: 1, folded: module.number};
  }
  return {...view, first, around, modules, again: new Set(raw.again), opened: new Set(raw.opened)};
}

/** The modules around a thing, the innermost first, without the whole drawing. */
function modulesAround(view, thing) {
  const found = [];
  for (let at = view.around[thing]; at > 0; at = view.modules[at].parent) found.push(at);
  return found;
}

/** A level of detail with the modules of `open` open: its boxes and wires, and the pieces each wire is drawn of. */
function settle(view, open) {
  const homes = view.base.map((_, place_) => modulesAround(view, place_).filter((module) => !open.has(module)).map((module) => view.first + module).at(-1) ?? place_);
  const things = [...new Set(homes)].sort((one, other) => one - other), places = new Map(things.map((thing, place_) => [thing, place_]));
  const wires = new Map();
  view.lines.forEach(([source, target, ...edges], index) => {
    const ends = [homes[source], homes[target]], again = view.again.has(index), key = `${ends}${again ? "~" : ""}`;
    if (ends[0] === ends[1]) return;
    const pieces = piecesOf(view, source, target, ends, again);
    if (!wires.has(key)) wires.set(key, {source: places.get(ends[0]), target: places.get(ends[1]), edges: [], pieces: new Set(), way: pieces});
    wires.get(key).edges.push(...edges);
    for (const piece of pieces) wires.get(key).pieces.add(piece);
  });
  return indexed({...view, open, things, shapes: things.map((thing) => (thing < view.first ? view.base[thing] : view.modules[thing - view.first].shape)),
    wires: [...wires.values()]});
}

/** The pieces of a wire from its source to its target: strands "room:tail,head" and links "room:tail,head|module.door". */
function piecesOf(view, source, target, [from, to], again) {
  const chain = (place_, end) => {
    const whole = [...modulesAround(view, place_).map((module) => view.first + module).reverse(), place_];
    return whole.slice(0, whole.indexOf(end) + 1);
  };
  const up = chain(source, from), down = chain(target, to);
  let common = 0;
  while (up[common] === down[common]) common += 1;
  const middle = `${common ? up[common - 1] - view.first : 0}:${up[common]},${down[common]}`;
  if (again) return [`${middle}~`];
  const pieces = [middle];
  let strand = middle;
  for (let at = common; at < up.length - 1; at += 1) {
    const module = up[at] - view.first, door = view.modules[module].doors.findIndex(({out, things}) => out && things.has(up[at + 1]));
    pieces.unshift(`${strand}|${module}.${door}`);
    strand = `${module}:${up[at + 1]},${-1 - door}`;
    pieces.unshift(strand);
  }
  strand = middle;
  for (let at = common; at < down.length - 1; at += 1) {
    const module = down[at] - view.first, door = view.modules[module].doors.findIndex(({out, things}) => !out && things.has(source));
    pieces.push(`${strand}|${module}.${door}`);
    strand = `${module}:${-1 - door},${down[at + 1]}`;
    pieces.push(strand);
  }
  return pieces;
}

/** What is open when another level of detail takes over: what was open before, and what is around `nodes`. */
function carried(from, to, nodes = []) {
  if (!to.modules) return null;
  const before = from.modules ? new Set(from.modules.filter(({number}) => from.open.has(number)).map(({key}) => key)) : null;
  const open = new Set(to.modules.filter(({number, key}) => (before ? !number || before.has(key) : to.opened.has(number))).map(({number}) => number));
  return openAround(to, open, nodes);
}

/** `open` with the modules around `nodes` open as well. */
function openAround(view, open, nodes) {
  const wanted = new Set(nodes), more = new Set(open);
  view.base.forEach((shape, place_) => { if (shape.nodes.some((node) => wanted.has(node))) modulesAround(view, place_).forEach((module) => more.add(module)); });
  return more;
}

/** The innermost open module around all these nodes; 0 if there is none. */
function openModuleOf(view, nodes) {
  if (!view.modules) return 0;
  const wanted = new Set(nodes), around = view.modules.filter(({number, shape}) => number && view.open.has(number) && isOpen(view, number)
    && [...wanted].every((node) => shape.nodes.includes(node)));
  return around.length ? around.at(-1).number : 0;
}

/** True if a module and all around it are open. */
function isOpen(view, module) {
  for (let at = module; at > 0; at = view.modules[at].parent) if (!view.open.has(at)) return false;
  return true;
}

/** The modules that are open when those at `depth` are folded. */
function downTo(view, depth) {
  return new Set(view.modules.filter(({level}) => level < depth).map(({number}) => number));
}
