// What is chosen, and what is lit: a node or a folded box, its inputs and outputs, paths, search hits.

const chosen = {node: null, shape: null, module: 0, path: ""};

/** Everything upstream (towards the loss) or downstream (towards the leaves) of a node, itself included. */
function reach(report, node, towards) {
  const edges = towards === "loss" ? report.incoming : report.outgoing;
  const end = towards === "loss" ? "source" : "target";
  const found = new Set([node]), waiting = [node];
  while (waiting.length) {
    for (const edge of edges[waiting.pop()]) {
      const next = report.edges[edge][end];
      if (!found.has(next)) { found.add(next); waiting.push(next); }
    }
  }
  return found;
}

function unlight() {
  stage.svg.classList.remove("dim");
  for (const element of stage.moved.querySelectorAll(".on,.into,.out")) element.classList.remove("on", "into", "out");
  for (const ring of stage.moved.querySelectorAll(".ring")) ring.remove();
}

/** Dim all but the boxes that hold one of `nodes`, and the wires between them. */
function lightNodes(nodes) {
  const lit = new Set();
  for (const node of nodes) for (const place of stage.view.homes.get(node) || []) lit.add(place);
  stage.svg.classList.add("dim");
  for (const place of lit) stage.shapes[place]?.classList.add("on");
  stage.view.wires.forEach((wire, place) => {
    if (lit.has(wire.source) && lit.has(wire.target)) {
      for (const element of stage.wires.get(place) || []) element.classList.add("on");
    }
  });
}

function ring(box, member) {
  if (!box) return;
  stage.moved.append(draw("rect", {class: member ? "ring member" : "ring", x: box.x - 4, y: box.y - 4, width: box.width + 8,
    height: box.height + 8, rx: 8}));
}

/** Light what is chosen: a ring, the wires that come in and those that go out, in two colours. */
function light() {
  unlight();
  if (chosen.module) { lightModule(chosen.module); return; }
  if (chosen.node === null && chosen.shape === null) return;
  const places = chosen.shape !== null ? [chosen.shape] : stage.view.homes.get(chosen.node) || [];
  if (chosen.path && chosen.node !== null) lightNodes(reach(stage.report, chosen.node, chosen.path));
  for (const place of places) {
    const shape = stage.view.shapes[place];
    ring(boxOf(stage.shapes[place]), chosen.node !== null && shape.members.length > 1);
    for (const [wire, {source, target}] of stage.view.wires.entries()) {
      if (source !== place && target !== place) continue;
      for (const element of stage.wires.get(wire) || []) element.classList.add(target === place ? "into" : "out");
    }
  }
  for (const element of stage.moved.querySelectorAll('.n[tabindex="0"]')) element.setAttribute("tabindex", "-1");
  if (places.length) stage.shapes[places[0]]?.setAttribute("tabindex", "0");
}

/** A ring around an open module, and the wires that pass its frame. */
function lightModule(module) {
  ring(stage.rooms.get(module).frame, false);
  const inside = stage.view.things.map((thing) => modulesAround(stage.view, thing).includes(module));
  stage.view.wires.forEach(({source, target}, wire) => {
    if (inside[source] === inside[target]) return;
    for (const element of stage.wires.get(wire) || []) element.classList.add(inside[target] ? "into" : "out");
  });
}

/** Choose a node; the box it is drawn in is brought into sight. `reveal` opens the modules around it. */
function choose(node, {flying = true, path = "", reveal = false} = {}) {
  const other = stage.view.homes.has(node) ? null : [...stage.report.views].reverse().find((view) => view.finest.has(node));
  Object.assign(chosen, {node, shape: null, module: 0, path});
  if (other) showDetail(other.number, carried(stage.view, other, reveal ? [node] : []));
  else if (reveal && stage.view.modules) {
    const open = openAround(stage.view, stage.view.open, [node]);
    if (open.size > stage.view.open.size) showDetail(stage.view.number, open, {keep: true});
  }
  const places = stage.view.homes.get(node) || [];
  light();
  showNode(node);
  if (flying && places.length) fly(places[0]);
  remember();
}

/** Choose a folded box as a whole. */
function chooseShape(place) {
  const shape = stage.view.shapes[place];
  if (shape.members.length === 1 && !shape.folded) { choose(shape.members[0], {flying: false}); return; }
  Object.assign(chosen, {node: null, shape: place, module: 0, path: ""});
  light();
  showShape(place);
  remember();
}

/** Choose an open module as a whole. */
function chooseModule(module) {
  Object.assign(chosen, {node: null, shape: null, module, path: ""});
  light();
  showModule(module);
  remember();
}

function chooseNothing() {
  Object.assign(chosen, {node: null, shape: null, module: 0, path: ""});
  light();
  showOverview();
  remember();
}

/** From the chosen node to its first input (towards the leaves) or consumer (towards the loss). */
function walkTo(towards) {
  if (chosen.node === null) { choose(stage.report.roots[0][0]); return; }
  const edges = towards === "inputs" ? stage.report.outgoing[chosen.node] : stage.report.incoming[chosen.node];
  if (!edges.length) { tell(towards === "inputs" ? "a leaf: no inputs" : "the root: no consumers"); return; }
  const edge = stage.report.edges[edges[0]];
  choose(towards === "inputs" ? edge.target : edge.source);
}
