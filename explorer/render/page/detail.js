// Which level of detail is shown and which modules are open: by choice, by unfolding, and by the page's address.

const OWN = "own";

/** Show a level of detail; of its modules those of `open` are open. The step that was reached is kept. */
function showDetail(number, open, {keep = false} = {}) {
  const {x, y, scale} = stage, last = steps.at ? stage.view.steps[steps.at - 1].at(-1) : null;
  stopSteps();
  showView(stage.report, number, open);
  if (keep) { put(x, y, scale); stage.fitted = false; }
  resetSteps(last);
  showLegend();
  showChoice();
}

/** What can be chosen: every level of detail as it opens, and the modules of the finest at each depth. */
function choicesOf(report) {
  const found = report.views.map((view) => ({number: view.number, label: view.label, open: view.modules ? view.opened : null, amount: view.shapes.length}));
  const nests = report.views.filter(({modules}) => modules && modules.length > 1);
  const finest = nests.find(({label}) => label === "parameters inside") || nests[0];
  const deepest = finest ? Math.max(...finest.modules.map(({level}) => level)) : 0;
  for (let depth = 1; depth <= deepest; depth += 1) {
    const open = downTo(finest, depth), amount = settle(finest, open).shapes.length;
    if (!found.some((choice) => choice.number === finest.number && sameOpen(choice.open, open))) found.push({number: finest.number, label: `modules, depth ${depth}`, open, amount});
  }
  return found.sort((one, other) => one.amount - other.amount);
}

function sameOpen(one, other) {
  return one === other || Boolean(one && other) && one.size === other.size && [...one].every((module) => other.has(module));
}

/** The choices as options; the one for a selection of one's own is there once there is one. */
function listChoices() {
  const report = stage.report;
  report.choices = report.choices || choicesOf(report);
  byId("view").replaceChildren(...report.choices.map(({label, amount}, place_) => make("option", {value: String(place_)}, `${label} (${count(amount)})`)));
  byId("view-field").hidden = report.choices.length < 2;
  showChoice();
}

function showChoice() {
  const {view, report} = stage, list = byId("view");
  const at = report.choices.findIndex((choice) => choice.number === view.number && sameOpen(choice.open, view.modules ? view.open : null));
  list.querySelector(`option[value=${OWN}]`)?.remove();
  if (at < 0) list.append(make("option", {value: OWN}, `as unfolded (${count(view.shapes.length)})`));
  list.value = at < 0 ? OWN : String(at);
}

function takeChoice() {
  const choice = stage.report.choices[Number(byId("view").value)];
  if (choice) changeView(choice.number, choice.open);
}

/** Another level of detail, with what was chosen still chosen and in sight. */
function changeView(number, open = null, nodes = []) {
  const node = chosen.node;
  showDetail(number, open);
  Object.assign(chosen, {shape: null, module: 0});
  const lit = node !== null ? [node] : nodes, home = lit.flatMap((one) => stage.view.homes.get(one) || [])[0];
  if (home === undefined) fitLegibly();
  else { put(stage.x, stage.y, Math.max(stage.scale, LEGIBLE)); fly(home); }
  if (node !== null) { light(); showNode(node); remember(); }
  else if (nodes.length === 1) choose(nodes[0]);
  else { chooseNothing(); if (nodes.length) lightNodes(nodes); }
  tellDetail();
}

function tellDetail() {
  tell(`${stage.view.label}: ${stage.view.shapes.length === 1 ? "1 box" : `${count(stage.view.shapes.length)} boxes`}`);
}

/** Open or fold one module in place; it stays where it is on the screen, and all others stay as they are. */
function toggle(module) {
  const opening = !stage.view.open.has(module), open = new Set(stage.view.open), focused = stage.svg.contains(document.activeElement);
  open[opening ? "add" : "delete"](module);
  const before = cornerOf(module), {x, y, scale} = stage;
  showDetail(stage.view.number, open);
  const after = cornerOf(module);
  put(x + (before.x - after.x) * scale, y + (before.y - after.y) * scale, scale);
  stage.fitted = false;
  if (opening) chooseModule(module);
  else chooseShape(stage.view.things.indexOf(stage.view.first + module));
  bring(boxOfModule(module));
  if (focused) elementOf(module)?.focus({preventScroll: true});
  const {name, path} = stage.view.modules[module];
  tell(`${path || name} ${opening ? "unfolded" : "folded"}: ${count(stage.view.shapes.length)} boxes`);
}

/** The box of a module, or its frame when it is open. */
function boxOfModule(module) {
  return stage.rooms.get(module)?.frame || boxOf(stage.shapes[stage.view.things.indexOf(stage.view.first + module)]);
}

function elementOf(module) {
  return stage.rooms.has(module) ? stage.moved.querySelector(`.m[data-module="${module}"]`) : stage.shapes[stage.view.things.indexOf(stage.view.first + module)];
}

function cornerOf(module) {
  const {x, y, width} = boxOfModule(module);
  return {x: x + width / 2, y};
}

/** What unfolding these nodes shows: the module they are folded into, or a finer level of detail; null if there is none. */
function unfolding(shape) {
  if (shape.folded) return () => toggle(shape.folded);
  const {nodes} = shape, spread = (view, homes) => new Set(nodes.flatMap((node) => (homes.get(node) || []).slice(0, 1))).size;
  const now = spread(stage.view, stage.view.homes);
  const better = stage.report.views.filter((view) => spread(view, view.finest) > now).sort((one, other) => one.base.length - other.base.length)[0];
  return better ? () => changeView(better.number, carried(stage.view, better, nodes), nodes) : null;
}

/** What opens every module inside one; null if all are open. */
function unfoldingAll(module) {
  const inside = stage.view.modules.filter(({number}) => inModule(stage.view, number, module) && !stage.view.open.has(number));
  if (!inside.length) return null;
  return () => {
    showDetail(stage.view.number, new Set([...stage.view.open, ...inside.map(({number}) => number)]), {keep: true});
    chooseModule(module);
    bring(boxOfModule(module));
    tellDetail();
  };
}

function inModule(view, number, outer) {
  for (let at = view.modules[number].parent; at > 0; at = view.modules[at].parent) if (at === outer) return true;
  return false;
}

/** What folding these nodes shows: the innermost open module around them as one box, or a coarser level of detail. */
function folding(nodes) {
  const module = openModuleOf(stage.view, nodes);
  if (module) return () => toggle(module);
  const together = stage.report.views.filter((view) => {
    const homes = new Set(nodes.map((node) => (view.finest.get(node) || [-1])[0])), [home] = homes;
    return homes.size === 1 && home >= 0 && view.base[home].nodes.length > nodes.length && view.base.length < stage.view.base.length;
  }).sort((one, other) => other.base.length - one.base.length)[0];
  if (!together) return null;
  return () => {
    Object.assign(chosen, {node: null, shape: null, module: 0});
    showDetail(together.number, carried(stage.view, together, nodes));
    const home = stage.view.homes.get(nodes[0])[0];
    chooseShape(home);
    fly(home);
    tellDetail();
  };
}

// ---- the address: #r2n12v1o1-4.7 is node 12 of report 2, level of detail 1, with the modules 1 to 4 and 7 open

function anchor() {
  const {report, view} = stage, several = DATA.reports.length > 1 && (report.place || chosen.node !== null);
  const moved = view.modules && !sameOpen(view.open, report.views[view.number].opened);
  return `#${report.place && several ? `r${report.place + 1}` : ""}${chosen.node === null ? "" : `n${chosen.node}`}${view.number ? `v${view.number}` : ""}${moved ? `o${spelled(view.open)}` : ""}`;
}

/** Numbers as "1-4.7". */
function spelled(open) {
  const runs = [];
  for (const module of [...open].filter(Boolean).sort((one, other) => one - other)) {
    if (runs.length && runs.at(-1)[1] === module - 1) runs.at(-1)[1] = module;
    else runs.push([module, module]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(".") || "0";
}

function unspelled(said, amount) {
  const open = new Set([0]);
  for (const [first, last] of said.split(".").map((run) => run.split("-").map(Number))) {
    for (let module = first; module <= Math.min(last ?? first, amount - 1); module += 1) open.add(module);
  }
  return open;
}

function remember() {
  if (location.protocol === "about:") return;
  const said = anchor();
  try {
    history.replaceState(null, "", said === "#" ? location.pathname + location.search : said);
  } catch {
    // a page opened in a frame without an origin may not touch its address; the page works without
  }
}

/** Show what an address says; false when it says nothing that is here. */
function follow(hash) {
  const found = /^#(?:r(\d{1,9}))?(?:n(\d{1,9}))?(?:v(\d{1,4}))?(?:o([\d.-]{1,9999}))?$/.exec(hash);
  if (!found || hash === "#") return false;
  const [report, node, view] = [found[1] ? Number(found[1]) - 1 : 0, found[2] && Number(found[2]), Number(found[3] || 0)];
  const raw = DATA.reports[report];
  if (!raw || (found[2] && node >= raw.nodes.length) || view >= raw.views.length) return false;
  if (!stage.report || stage.report.place !== report) openReport(report);
  const wanted = stage.report.views[view], open = found[4] && wanted.modules ? unspelled(found[4], wanted.modules.length) : wanted.opened || null;
  if (found[3] || found[4]) { changeView(view, open); }
  if (found[2]) choose(node, {reveal: !found[4]});
  return true;
}
