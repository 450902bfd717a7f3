// Wiring: choices of call and detail, keys, theme, links.

function openReport(number) {
  stopSteps();
  const report = reportAt(number);
  byId("call").value = String(number);
  const names = report.views.map((view) => make("option", {value: String(view.number)}, `${view.label} (${count(view.shapes.length)})`));
  const sorted = [...report.views].sort((one, other) => one.shapes.length - other.shapes.length);
  byId("view").replaceChildren(...sorted.map((view) => names[view.number]));
  byId("view-field").hidden = report.views.length < 2;
  showView(report, 0);
  byId("view").value = "0";
  search.field.value = "";
  chooseNothing();
  showLegend();
  resetSteps();
  fitLegibly();
}

/** Follow #n12 or #r2n12; false when the address names no node. */
function follow(hash) {
  const found = /^#(?:r(\d+))?n(\d+)$/.exec(hash);
  if (!found) return false;
  const report = found[1] ? Number(found[1]) - 1 : 0, node = Number(found[2]);
  if (report < 0 || report >= DATA.reports.length || node >= DATA.reports[report].nodes.length) return false;
  if (!stage.report || stage.report.place !== report) openReport(report);
  choose(node);
  return true;
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", String(dark));
}

function unfoldChosen() {
  const place_ = chosen.shape ?? (stage.view.homes.get(chosen.node) || [])[0];
  if (place_ === undefined || place_ === null) return;
  const {nodes} = stage.view.shapes[place_], number = finer(nodes);
  if (number >= 0) changeView(number, nodes);
}

function foldChosen() {
  if (chosen.node === null && chosen.shape === null) return;
  foldNodes(chosen.node === null ? stage.view.shapes[chosen.shape].nodes : [chosen.node]);
}

const STRIDE = 60;
const KEYS = {
  ArrowLeft: () => pan(STRIDE, 0), ArrowRight: () => pan(-STRIDE, 0), ArrowUp: () => pan(0, STRIDE), ArrowDown: () => pan(0, -STRIDE),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit,
  "/": () => { search.field.focus(); search.field.select(); },
  n: () => { stopSteps(); stepOn(null); }, p: () => { stopSteps(); setStep(steps.at - 1); }, " ": play,
  u: unfoldChosen, f: foldChosen,
  Escape: () => { stopSteps(); setStep(0); chooseNothing(); },
};
const WALKS = {ArrowUp: "inputs", ArrowLeft: "inputs", ArrowDown: "consumers", ArrowRight: "consumers"};

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest("input, select, textarea");
    if (field && event.key !== "Escape") return;
    const pressable = event.target.closest("button, summary, .row, [role=button]");
    if (pressable && (event.key === " " || event.key === "Enter")) {
      if (pressable.matches(".n")) { event.preventDefault(); chooseShape(Number(pressable.dataset.s)); }
      return;
    }
    if (event.target.closest("#ae-panel") && event.key.startsWith("Arrow")) return;
    const act = event.shiftKey && WALKS[event.key] ? () => walkTo(WALKS[event.key]) : KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function clicked(target) {
  const box = target.closest?.(".n[data-s]"), frame = target.closest?.(".m");
  if (box) chooseShape(Number(box.dataset.s));
  else if (frame && target.closest("text")) foldModule(frame.dataset.m);
  else if (chosen.node !== null || chosen.shape !== null) chooseNothing();
}

function start() {
  const name = DATA.script.split(/[/\\]/).at(-1) || "autograd explorer";
  byId("title").textContent = name;
  byId("title").title = DATA.script;
  byId("call").replaceChildren(...DATA.reports.map((report, number) => make("option", {value: String(number)},
    `${report.call || "–"}: ${report.root}${report.where ? ` · ${place(sourceOf(report.where))}` : ""}`)));
  byId("call-field").hidden = DATA.reports.length < 2;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches);
  dark.addEventListener("change", () => setTheme(dark.matches));
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
  byId("call").addEventListener("change", () => openReport(Number(byId("call").value)));
  byId("view").addEventListener("change", () => changeView(Number(byId("view").value)));
  byId("in").addEventListener("click", () => zoom(1.25));
  byId("out").addEventListener("click", () => zoom(0.8));
  byId("fit").addEventListener("click", fit);
  byId("home").addEventListener("click", () => { stopSteps(); setStep(0); chooseNothing(); });
  if (!DATA.reports.length) { present("Overview", make("p", {}, "No backward call was explored.")); return; }
  listenToPointers(clicked);
  stage.host.addEventListener("dblclick", (event) => { if (event.target.closest(".n")) unfoldChosen(); });
  listenToSearch();
  listenToSteps();
  listenToKeys();
  addEventListener("hashchange", () => follow(location.hash));
  const wanted = location.hash;
  stage.pending = () => { stage.pending = null; fitLegibly(); follow(wanted); };
  openReport(0);
  listenToSize();
}

start();
