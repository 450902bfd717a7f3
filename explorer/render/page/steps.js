// The backward in its recorded order: step, play, and a caption that says what happened.

const steps = {at: 0, playing: false, end: null, timer: 0};

/** Steps of the view that is shown now, from the start or after the node that ran `last`. */
function resetSteps(last = null) {
  steps.at = last === null ? 0 : stage.view.steps.findIndex((nodes) => nodes.includes(last)) + 1;
  const amount = stage.view.steps.length;
  byId("steps").hidden = !amount;
  byId("slider").max = String(amount);
  showStep();
}

/** The wires that carry what the nodes of a step send, with a number for each. */
function wiresOf(nodes) {
  const found = new Map();
  for (const node of nodes) {
    for (const index of stage.report.outgoing[node]) {
      const said = recordWords(stage.report.edges[index].record);
      for (const wire of stage.view.strung.get(index) || []) found.set(wire, said);
    }
  }
  return [...found];
}

/** Mark what has run by now; with nothing run yet the drawing is as it always is. */
function showStep() {
  const all = stage.view.steps, on = steps.at > 0;
  stage.svg.classList.toggle("stepping", on);
  byId("caption").classList.toggle("stepping", on && Object.keys(stage.report.steps).length > 0);
  const ran = new Set(all.slice(0, steps.at).flat());
  stage.shapes.forEach((element, place_) => element.classList.toggle("done", on && stage.view.shapes[place_].nodes.some((node) => ran.has(node))));
  for (const element of stage.moved.querySelectorAll(".e.done,.e.live,.r.done,.r.live")) element.classList.remove("done", "live");
  for (const [wire, elements] of on ? stage.wires : []) {
    if (!stage.view.wires[wire].edges.some((edge) => ran.has(stage.report.edges[edge].source))) continue;
    for (const element of elements) element.classList.add("done");
  }
  byId("slider").value = String(steps.at);
  byId("slider").setAttribute("aria-valuetext", `step ${steps.at} of ${all.length}`);
  byId("count").textContent = `${steps.at}/${all.length}`;
  byId("caption").replaceChildren(...caption(steps.at ? all[steps.at - 1] : null));
  measure();
}

function measure() {
  byId("left").style.setProperty("--steps", `${byId("steps").offsetHeight + 8}px`);
}

/** What one step did: what came, and what went where. */
function caption(nodes) {
  const report = stage.report;
  if (!nodes) return [make("span", {class: "under", style: "color:var(--muted)"}, report.ran ? "Step through the backward: the gradient starts at the root and goes against the arrows." : "backward was not run")];
  if (nodes.length > 1) {
    const home = stage.view.shapes[stage.view.homes.get(nodes[0])[0]];
    return [make("b", {}, theirs(home.label)), `: ${count(nodes.length, "node")} ran, `, theirs(`${report.nodes[nodes[0]].label} … ${report.nodes[nodes.at(-1)].label}`)];
  }
  const node = report.nodes[nodes[0]];
  const name = node.sign ? node.sign : node.label === operationOf(node) ? node.label : node.kind === "leaf" ? node.label : `${node.label} (${operationOf(node)})`;
  const got = make("span", {class: "gradient"}, gradientWords(report, node));
  if (node.kind === "leaf") return [make("b", {}, theirs(name)), " collects ", got, node.role === "parameter" ? " into its .grad" : ""];
  const edges = report.outgoing[node.id].map((index) => report.edges[index]);
  const parts = edges.slice(0, 4).flatMap((edge, number) => [number ? "; " : " and sends ", ...sentence(report, edge)]);
  const told = (report.steps[node.id] || []).map(text).map((line) => make("div", {class: line.startsWith("to ") ? "told" : "told worked"}, theirs(line)));
  return [make("div", {class: "said"}, make("b", {}, theirs(name)), " receives ", got, ...parts, edges.length > 4 ? ` and ${edges.length - 4} more` : ""), ...told];
}

function sentence(report, edge) {
  const target = report.nodes[edge.target], up = report.nodes[edge.source].received[0];
  const one = up && up.values && up.values.length === 1 && report.nodes[edge.source].received.length === 1;
  const sent = recordWords(edge.record) || "nothing";
  const local = edge.local && one && typeof numberOf(edge.local.value) === "number"
    ? [make("span", {class: "gradient"}, short(up.values[0])), " × ", make("span", {class: "value"}, short(edge.local.value)), " = "] : [];
  return [make("span", {class: "number"}, ...local, make("span", {class: "gradient"}, sent)), " to ", theirs(target.sign || target.label, {style: "font-weight:600"})];
}

/** Milliseconds of one step while playing: slow enough to follow, and some half a minute for a large graph. */
function pace() {
  return Math.max(40, Math.min(900, 45000 / stage.view.steps.length));
}

function stopSteps() {
  steps.playing = false;
  clearTimeout(steps.timer);
  if (steps.end) { steps.end(); steps.end = null; }
  byId("play").querySelector("span").textContent = "Play backward";
  byId("play").querySelector("path").setAttribute("d", "M3 1v12l10-6z");
  byId("play").setAttribute("aria-pressed", "false");
}

/** Go to step `number` at once. */
function setStep(number) {
  if (steps.end) { steps.end(); steps.end = null; }
  steps.at = Math.max(0, Math.min(stage.view.steps.length, number));
  showStep();
}

/** One step on, with the gradient seen to travel. */
function stepOn(after) {
  if (steps.at >= stage.view.steps.length) { stopSteps(); return; }
  setStep(steps.at + 1);
  const nodes = stage.view.steps[steps.at - 1], home = (stage.view.homes.get(nodes.at(-1)) || [])[0];
  for (const mark of stage.moved.querySelectorAll(".ring")) mark.remove();
  if (home !== undefined) { ring(boxOf(stage.shapes[home]), false); fly(home, {gently: true}); }
  const wires = wiresOf(nodes);
  for (const [wire] of wires) for (const element of stage.wires.get(wire) || []) element.classList.replace("done", "live");
  steps.end = travel(wires, steps.playing ? pace() * 0.8 : 600, () => {
    steps.end = null;
    for (const [wire] of wires) for (const element of stage.wires.get(wire) || []) element.classList.replace("live", "done");
    if (after) after();
  });
}

function playOn() {
  if (!steps.playing) return;
  if (steps.at >= stage.view.steps.length) { stopSteps(); return; }
  stepOn(() => { steps.timer = setTimeout(playOn, pace() * 0.2); });
}

function play() {
  if (steps.playing) { stopSteps(); return; }
  if (steps.at >= stage.view.steps.length) setStep(0);
  steps.playing = true;
  byId("play").querySelector("span").textContent = "Pause";
  byId("play").querySelector("path").setAttribute("d", "M2 1h4v12H2zM8 1h4v12H8z");
  byId("play").setAttribute("aria-pressed", "true");
  playOn();
}

function stepTo(node) {
  const number = stage.view.steps.findIndex((nodes) => nodes.includes(node));
  if (number < 0) return;
  stopSteps();
  setStep(number);
  stepOn(null);
}

function listenToSteps() {
  byId("next").addEventListener("click", () => { stopSteps(); stepOn(null); });
  byId("previous").addEventListener("click", () => { stopSteps(); setStep(steps.at - 1); });
  byId("start").addEventListener("click", () => { stopSteps(); setStep(0); light(); });
  byId("play").addEventListener("click", play);
  byId("slider").addEventListener("input", () => { stopSteps(); setStep(Number(byId("slider").value)); });
}
