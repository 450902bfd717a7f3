// The panel when nothing is chosen: what was explored, findings, gradient flow, legend and keys.

function findingBox(finding, act) {
  const inner = [make("b", {}, `${finding.severity} · ${finding.code}`), theirs(finding.message),
    finding.advice ? make("em", {}, theirs(finding.advice)) : null, finding.where ? make("em", {}, theirs(place(finding.where))) : null];
  return act && (finding.node !== null || finding.nodes.length)
    ? make("button", {type: "button", class: `finding ${finding.severity}`, onclick: act}, inner)
    : make("div", {class: `finding ${finding.severity}`}, inner);
}

/** Fly to the node a finding names; unfold where it is hidden in a box. */
function go(finding) {
  choose(finding.node ?? finding.nodes[0], {reveal: true});
}

function showOverview() {
  const report = stage.report, leaves = report.nodes.filter((node) => node.kind === "leaf").length;
  const order = {error: 0, warning: 1, info: 2};
  const findings = [...report.findings].sort((one, other) => order[one.severity] - order[other.severity]);
  present("Overview", make("h2", {}, theirs(report.title || report.root)),
    under(theirs([report.where ? place(report.where) : DATA.script, `${count(report.nodes.length, "node")}, ${count(leaves, "leaf")}`,
      report.seconds ? `backward ${duration(report.seconds)}` : "", DATA.torch && `torch ${DATA.torch}`].filter(Boolean).join(" · "))),
    report.where && codeAt(report.where) ? make("p", {class: "under mono"}, theirs(codeAt(report.where).trim())) : null,
    report.said ? make("div", {}, make("span", {class: `badge ${report.said.includes("disagree") ? "bad" : "good"}`}, report.said)) : null,
    report.error ? make("div", {class: "finding error", style: "margin-top:10px"}, make("b", {}, "backward raised"), theirs(report.error)) : null,
    section("Findings", findings.length ? findings.map((finding) => findingBox(finding, () => go(finding)))
      : under(report.looked.length ? `nothing: ${report.looked.length === 1 ? "one kind was" : `${report.looked.length} kinds were`} looked for` : "nothing was looked for")),
    section("Gradient flow by layer", flow(report)),
    section("Independent check", under(report.check)),
    section("Gradients four ways", fourWays(report)),
    section("This drawing", stage.view.folded.map((line) => under(line)), stage.view.note ? under(stage.view.note) : null,
      stage.view.folded.length ? null : under("arrows follow the forward pass; the gradient goes against them")),
    report.problems.length ? section("Not explored", report.problems.map((problem) => under(theirs(problem)))) : null,
    section("Legend", legendRows()), section("Keys", keys()));
}

function flow(report) {
  const plot = flowPlot(report, (node) => choose(node));
  return plot ? [...plot, make("p", {class: "under", style: "font-size:12px"}, "gradient RMS, one dot a parameter, logarithmic; layers in forward order")] : null;
}

const WAYS = ["by hand", "PyTorch", "engine", "numeric"], LISTED = 60;

/** Names as the rows of the comparison have them ("w" of "w[0, 1]", "leaf7") to leaves. */
function leavesByName(report) {
  const leaves = report.nodes.filter((node) => node.kind === "leaf");
  return new Map(leaves.flatMap((node) => [[`leaf${node.id}`, node], [node.label, node]]));
}

/** The gradients known in several ways side by side, of every leaf or of one; null where that was not asked for. */
function fourWays(report, leaf = null) {
  if (!report.ways) return null;
  const {rows, notes, problem} = report.ways, leaves = leavesByName(report);
  const known = rows.map(([name, ...cells]) => ({name: text(name), numbers: cells.slice(0, 4), agree: cells[4]}))
    .map((row) => ({...row, leaf: leaves.get(row.name.replace(/\[[\d, ]*\]$/, ""))})).filter((row) => !leaf || row.leaf === leaf);
  const shown = WAYS.map((name, way) => ({name, way})).filter(({way}) => known.some(({numbers}) => numbers[way] !== null));
  const compared = known.filter(({agree}) => agree !== null), alike = compared.filter(({agree}) => agree);
  const listed = known.filter(({agree}, place_) => place_ < LISTED || agree === 0);
  const line = ({name, numbers, agree, leaf: node}) => make("tr", {},
    make("th", {scope: "row"}, node && !leaf ? make("button", {type: "button", class: "plain", onclick: () => choose(node.id)}, theirs(name)) : theirs(name)),
    agree === null ? make("td") : make("td", {class: agree ? "agrees" : "differs"}, agree ? "✓" : "≠", make("span", {class: "quiet"}, agree ? " agree" : " differ")),
    shown.map(({way}) => make("td", {}, numbers[way] === null ? "–" : exact(numbers[way]))));
  return [problem ? under(`no numeric gradients: ${problem}`) : null,
    known.length ? make("div", {class: "wide", tabindex: "0", role: "region", "aria-label": "Gradients four ways, table"}, make("table", {class: "ways"},
      make("thead", {}, make("tr", {}, make("th", {scope: "col"}, "element"), make("th", {scope: "col"}, make("span", {class: "quiet"}, "verdict")), shown.map(({name}) => make("th", {scope: "col"}, name)))),
      make("tbody", {}, listed.map(line)))) : null,
    listed.length < known.length ? under(`and ${count(known.length - listed.length)} more, none of which differ`) : null,
    compared.length && !leaf ? under(`${count(alike.length)} of ${count(compared.length)} agree${alike.length < compared.length ? "; ≠ marks those that differ" : ""}`) : null,
    leaf ? null : notes.map((note) => under(note))];
}

const SWATCHES = {
  input: "border:1.5px dashed #b87700;border-radius:5px;background:#fff6e0", custom: "border:2px solid #a3467e;border-left-width:7px;border-left-style:double;background:#f8ecf3",
  module: "border:1.2px solid #7b8794;border-top-width:4px;background:#eff3f7", fold: "border:1px solid #7b8794;box-shadow:2px -2px 0 #7b8794;background:#f5f7fa",
  hazard: "border:2px solid #ffb000;border-radius:5px;background:#111", zero: "border:2px dotted #7b8794;border-radius:5px;background:#fff",
  none: "border:1.5px dashed #9aa5b1;border-radius:5px;background:#f1f3f5", wrong: "border:3px solid #c4161c;border-radius:5px;background:#f7f7f7",
  again: "border-top:2px dashed var(--wire);height:3px;vertical-align:4px",
};
const SIGNS = {finding: ["▲", "finding"], hook: ["¶", "hook"], cast: ["→", "cast"], sum: ["Σ", "muted"], copies: ["", "muted"]};

/** Whether parameters are listed in operations, and none is drawn by itself. */
function onlyInside() {
  const {shapes, report} = stage.view, leaf = ({members}) => members.length === 1 && report.nodes[members[0]].kind === "leaf";
  return shapes.some(({kind, nodes, members}) => !kind && nodes.some((node) => !members.includes(node) && report.nodes[node].kind === "leaf")) && !shapes.some(leaf);
}

function hasParameters() {
  return stage.report.nodes.some(({role}) => role === "parameter");
}

/** What the marks of this drawing mean: those that always are there, those that occur, and the colours of a choice. */
function legendRows() {
  const mark = (style) => make("span", {class: "swatch", style});
  const line = (colour) => mark(`border-top:3px solid var(--${colour});height:3px;vertical-align:4px`);
  const occurring = stage.view.circuit ? [] : stage.view.marks.map((key) => [SWATCHES[key] ? mark(SWATCHES[key])
    : make("b", {class: "swatch letter", style: `color:var(--${SIGNS[key][1]})`}, SIGNS[key][0]), DATA.key[key].replace(/^[▲¶→Σ] /, "")]);
  const numbers = [[make("span", {class: "value"}, "1.50"), "forward value, above the wire"], [make("span", {class: "gradient"}, "−0.20"), "gradient, below the wire"]];
  const parameter = !hasParameters() ? ["", ""] : onlyInside() ? [make("span", {class: "swatch letter", style: "color:var(--link)"}, "w"), "name and number in a box: parameter used there"]
    : [mark("border:2px solid #0072b2;background:#dcebf7"), "square blue border: parameter"];
  const variables = stage.report.nodes.some(({kind, role}) => kind === "leaf" && role !== "parameter");
  return rows([parameter, stage.view.circuit && variables ? [mark(SWATCHES.input), "dashed amber: variable"] : ["", ""], [mark("border:1px solid #7b8794;border-radius:5px;background:#f5f7fa"), "operation; its fill is the size of its gradient"],
    [mark("border:3px double #00795a;border-radius:5px;background:#ddf3ea"), "double border: root, backward begins here"], ...(stage.view.circuit ? numbers : occurring),
    stage.view.modules && stage.view.modules.length > 1 ? [make("span", {class: "swatch letter", style: "color:var(--link)"}, "⊕ ⊖"), "open a module, fold it"] : ["", ""],
    [line("into"), "wires from the chosen one's inputs"], [line("out"), "wires to its consumers"], [line("live"), "the gradient on its way, while stepping"]]);
}

function keys() {
  const entries = [["drag, arrows", "pan"], ["wheel, pinch, + −", "zoom"], ["0", "fit"], ["/", "search"], ["n  p", "next, previous step"], ["space", "play or pause"],
    ["Shift + ↑ ↓", "to an input, to a consumer"], ["Enter", "choose a box; again: open or fold it"], ["u  f", "unfold, fold"], ["Esc", "back to the overview"]];
  return make("div", {class: "keys"}, entries.map(([key, said]) => [make("span", {}, make("kbd", {}, key)), make("span", {}, said)]));
}

/** The strip over the drawing: what the colours, or the numbers on the wires, mean. */
function showLegend() {
  const report = stage.report, legend = byId("legend");
  legend.replaceChildren();
  if (stage.view.circuit) {
    const known = report.nodes.some((node) => node.forward.some(Boolean));
    if (known) legend.append(make("span", {}, make("span", {class: "value"}, "forward value"), " above the wire"));
    if (report.ran) legend.append(make("span", {}, make("span", {class: "gradient"}, "gradient"), known ? " below" : " below the wire"));
  } else if (report.centre) {
    const swatch = (level) => make("span", {class: `level${level}`}, `${{0: "≤ ", 6: "≥ "}[level] || ""}${scientific(report.centre * 10 ** (level - 3))}`);
    fill(legend, {}, [make("span", {}, "gradient RMS"), make("span", {class: "swatches"}, [0, 1, 2, 3, 4, 5, 6].map(swatch)),
      onlyInside() || !hasParameters() ? null : make("span", {}, make("b", {style: "color:var(--link)"}, "square blue border"), " = parameter")]);
  }
  legend.hidden = !legend.childNodes.length;
}
