// Wiring: choices of call and detail, keys, theme, links.

function openReport(number) {
  stopSteps();
  const report = reportAt(number);
  byId("call").value = String(number);
  showView(report, 0);
  listChoices();
  search.field.value = "";
  chooseNothing();
  showLegend();
  resetSteps();
  fitLegibly();
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", String(dark));
}

/** What the system prefers, until the reader or the notebook around this frame says otherwise. */
function listenToTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)"), follow_ = () => setTheme(dark.matches);
  const told = (isDark) => { dark.removeEventListener("change", follow_); setTheme(isDark); };
  follow_();
  dark.addEventListener("change", follow_);
  byId("theme").addEventListener("click", () => told(document.documentElement.dataset.theme !== "dark"));
  addEventListener("message", ({source, data}) => {
    if (source === parent && source !== window && ["light", "dark"].includes(data?.theme)) told(data.theme === "dark");
  });
}

function unfoldChosen() {
  const place_ = chosen.shape ?? (stage.view.homes.get(chosen.node) || [])[0];
  if (place_ !== undefined && place_ !== null) unfolding(stage.view.shapes[place_])?.();
}

function foldChosen() {
  if (chosen.module) toggle(chosen.module);
  else if (chosen.node !== null || chosen.shape !== null) (folding(chosen.node === null ? stage.view.shapes[chosen.shape].nodes : [chosen.node]) || (() => tell("nothing around it can be folded")))();
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
      if (!pressable.matches(".n,.m")) return;
      event.preventDefault();
      pressed(pressable);
      return;
    }
    if (event.target.closest("#ae-panel") && event.key.startsWith("Arrow")) return;
    const act = event.shiftKey && WALKS[event.key] ? () => walkTo(WALKS[event.key]) : KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** Enter or space on a box or frame: it is chosen, and when it already was, a module opens or folds. */
function pressed(element) {
  if (element.matches(".m")) {
    const module = Number(element.dataset.module);
    if (chosen.module === module) toggle(module);
    else chooseModule(module);
    return;
  }
  const place_ = Number(element.dataset.s), {folded} = stage.view.shapes[place_];
  if (folded && chosen.shape === place_) toggle(folded);
  else chooseShape(place_);
}

function clicked(target) {
  const box = target.closest?.(".n[data-s]"), frame = target.closest?.(".m"), sign_ = target.closest?.(".sign");
  if (box && sign_) toggle(stage.view.shapes[Number(box.dataset.s)].folded);
  else if (box) chooseShape(Number(box.dataset.s));
  else if (frame && sign_) toggle(Number(frame.dataset.module));
  else if (frame && target.closest("text")) chooseModule(Number(frame.dataset.module));
  else if (chosen.node !== null || chosen.shape !== null || chosen.module) chooseNothing();
}

function start() {
  const name = DATA.script.split(/[/\\]/).at(-1) || "autograd explorer";
  byId("title").textContent = name;
  byId("title").title = DATA.script;
  byId("call").replaceChildren(...DATA.reports.map((report, number) => make("option", {value: String(number)},
    `${report.call || "–"}: ${report.root}${report.where ? ` · ${place(sourceOf(report.where))}` : ""}`)));
  byId("call-field").hidden = DATA.reports.length < 2;
  listenToTheme();
  byId("call").addEventListener("change", () => openReport(Number(byId("call").value)));
  byId("view").addEventListener("change", takeChoice);
  byId("in").addEventListener("click", () => zoom(1.25));
  byId("out").addEventListener("click", () => zoom(0.8));
  byId("fit").addEventListener("click", fit);
  byId("home").addEventListener("click", () => { stopSteps(); setStep(0); chooseNothing(); });
  if (!DATA.reports.length) { present("Overview", make("p", {}, "No backward call was explored.")); return; }
  listenToPointers(clicked);
  stage.host.addEventListener("dblclick", (event) => { if (event.target.closest(".sign")) return; if (event.target.closest(".n")) unfoldChosen(); else if (event.target.closest(".m text")) foldChosen(); });
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
