// What is chosen, and what is lit: a node or a folded box, its inputs and outputs, paths, search hits.

const chosen = {node: null, shape: null, path: ""};

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

function ring(place, member) {
  const box = boxOf(stage.shapes[place]);
  if (!box) return;
  stage.moved.append(draw("rect", {class: member ? "ring member" : "ring", x: box.x - 4, y: box.y - 4, width: box.width + 8,
    height: box.height + 8, rx: 8}));
}

/** Light what is chosen: a ring, the wires that come in and those that go out, in two colours. */
function light() {
  unlight();
  if (chosen.node === null && chosen.shape === null) return;
  const places = chosen.shape !== null ? [chosen.shape] : stage.view.homes.get(chosen.node) || [];
  if (chosen.path && chosen.node !== null) lightNodes(reach(stage.report, chosen.node, chosen.path));
  for (const place of places) {
    const shape = stage.view.shapes[place];
    ring(place, chosen.node !== null && shape.members.length > 1);
    for (const [wire, {source, target}] of stage.view.wires.entries()) {
      if (source !== place && target !== place) continue;
      for (const element of stage.wires.get(wire) || []) element.classList.add(target === place ? "into" : "out");
    }
  }
  for (const element of stage.moved.querySelectorAll('.n[tabindex="0"]')) element.setAttribute("tabindex", "-1");
  if (places.length) stage.shapes[places[0]]?.setAttribute("tabindex", "0");
}

/** Choose a node; the box it is drawn in is brought into sight, in another drawing if this one leaves it out. */
function choose(node, {flying = true, path = ""} = {}) {
  Object.assign(chosen, {node, shape: null, path});
  const other = stage.view.homes.has(node) ? null : [...stage.report.views].reverse().find((view) => view.homes.has(node));
  if (other) changeView(other.number);
  const places = stage.view.homes.get(node) || [];
  light();
  showNode(node);
  if (flying && places.length) fly(places[0]);
  remember(node);
}

/** Choose a folded box as a whole. */
function chooseShape(place) {
  const shape = stage.view.shapes[place];
  if (shape.members.length === 1) { choose(shape.members[0], {flying: false}); return; }
  Object.assign(chosen, {node: null, shape: place, path: ""});
  light();
  showShape(place);
}

function chooseNothing() {
  Object.assign(chosen, {node: null, shape: null, path: ""});
  light();
  showOverview();
  remember(null);
}

/** The link to a node: #n12, with the report before it where there are several. */
function anchor(node) {
  return stage.report.place ? `#r${stage.report.place + 1}n${node}` : `#n${node}`;
}

function remember(node) {
  if (location.protocol === "about:") return;
  try {
    history.replaceState(null, "", node === null ? location.pathname + location.search : anchor(node));
  } catch {
    // a page opened in a frame without an origin may not touch its address; the page works without
  }
}

/** Another level of detail, with what was chosen still chosen and in sight. */
function changeView(number, nodes = []) {
  const node = chosen.node;
  stopSteps();
  showView(stage.report, number);
  byId("view").value = String(number);
  resetSteps();
  chosen.shape = null;
  const lit = node !== null ? [node] : nodes;
  const home = lit.flatMap((one) => stage.view.homes.get(one) || [])[0];
  if (home === undefined) fitLegibly();
  else { put(stage.x, stage.y, Math.max(stage.scale, LEGIBLE)); fly(home); }
  if (node !== null) { light(); showNode(node); }
  else if (nodes.length === 1) choose(nodes[0]);
  else if (nodes.length) { chooseNothing(); lightNodes(nodes); }
  else chooseNothing();
  tell(`${stage.view.label}: ${count(stage.view.shapes.length, "box")}`.replace("boxs", "boxes"));
}

/** The next finer level of detail in which these nodes stand in more boxes than now; -1 if none. */
function finer(nodes) {
  const spread = (view) => new Set(nodes.flatMap((node) => (view.homes.get(node) || []).slice(0, 1))).size;
  const now = spread(stage.view);
  const better = stage.report.views.filter((view) => spread(view) > now);
  better.sort((one, other) => one.shapes.length - other.shapes.length);
  return better.length ? better[0].number : -1;
}

/** The finest level of detail in which all these nodes stand in one box with others; -1 if none. */
function coarser(nodes) {
  const found = stage.report.views.filter((view) => {
    const homes = new Set(nodes.map((node) => (view.homes.get(node) || [-1])[0]));
    const home = [...homes][0];
    return homes.size === 1 && home >= 0 && view.shapes[home].members.length > 1
      && view.shapes.length < stage.view.shapes.length;
  });
  found.sort((one, other) => other.shapes.length - one.shapes.length);
  return found.length ? found[0].number : -1;
}

/** Fold a module: show the level of detail in which it is one box. */
function foldModule(path) {
  const nodes = stage.report.nodes.filter(({module}) => module === path || module.startsWith(`${path}.`)).map(({id}) => id);
  if (!nodes.length || !foldNodes(nodes)) tell(`${path} cannot be folded further`);
}

/** Show the level of detail in which these nodes are one box with others; false if there is none. */
function foldNodes(nodes) {
  const number = coarser(nodes);
  if (number < 0) return false;
  Object.assign(chosen, {node: null, shape: null});
  changeView(number);
  const home = stage.view.homes.get(nodes[0])[0];
  chooseShape(home);
  fly(home);
  return true;
}

/** From the chosen node to its first input (towards the leaves) or consumer (towards the loss). */
function walkTo(towards) {
  if (chosen.node === null) { choose(stage.report.roots[0][0]); return; }
  const edges = towards === "inputs" ? stage.report.outgoing[chosen.node] : stage.report.incoming[chosen.node];
  if (!edges.length) { tell(towards === "inputs" ? "a leaf: no inputs" : "the root: no consumers"); return; }
  const edge = stage.report.edges[edges[0]];
  choose(towards === "inputs" ? edge.target : edge.source);
}
