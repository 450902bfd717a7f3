// The panel: all that is known about one node, or about a folded box.

function present(title, ...content) {
  const panel = byId("panel");
  panel.setAttribute("aria-label", title);
  panel.replaceChildren(...content.flat(Infinity).filter(Boolean));
  panel.scrollTop = 0;
}

/** A link to another node. */
function jump(node, kind, said) {
  return make("li", {}, make("button", {type: "button", class: `jump ${kind}`, "data-node": node.id, onclick: () => choose(node.id)},
    theirs(node.label, {style: "font-weight:600"}), make("small", {}, theirs(said))));
}

function brief(report, node) {
  const spec = node.outputs[0];
  return [node.label === operationOf(node) ? "" : node.kind === "leaf" ? node.role || "leaf" : operationOf(node),
    spec && spec.shape.length ? sizes(spec.shape) : "", gradientWords(report, node)].filter(Boolean).join(" · ");
}

function showNode(id) {
  const report = stage.report, node = report.nodes[id];
  present(`Node ${node.label}`,
    make("h2", {}, theirs(node.label)),
    under(theirs([node.name, node.module && `in ${node.module}${node.call ? `, call ${node.call + 1}` : ""}`,
      `node ${id}`].filter(Boolean).join(" · "))),
    node.brief ? make("p", {class: "under", id: "ae-brief"}, `The page holds the details of the nodes it draws; see this one with --focus ${id}.`) : null,
    badges(report, node), tools(report, node), findingsOf(report, node), gradientOf(report, node), flowOf(report, node),
    forwardOf(node), sourceBlock(node.source),
    section("Formula in torch", node.formula.length ? rows(node.formula.map(([name, said]) => [name, make("code", {}, said)])) : null),
    savedOf(report, node), verdictOf(node), node.kind === "leaf" ? section("Gradients four ways", fourWays(report, node)) : null, neighbours(report, node), otherwise(report, node));
}

function badges(report, node) {
  const kinds = {leaf: node.role || "leaf", custom: "custom Function", opaque: "opaque", op: ""};
  const found = [kinds[node.kind] && make("span", {class: "badge"}, kinds[node.kind])];
  if (report.roots.some(([root]) => root === node.id)) found.push(make("span", {class: "badge good"}, "root"));
  if (node.verdict) {
    const {status} = node.verdict;
    const tone = status === "match" || status === "loose" ? "good" : status.includes("mismatch") ? "bad" : "warn";
    const mark = {good: "✓ ", bad: "≠ ", warn: "· "}[tone];
    found.push(make("span", {class: `badge ${tone}`}, mark + status));
  }
  if (report.failed === node.id) found.push(make("span", {class: "badge bad"}, "backward failed here"));
  return make("div", {}, found.filter(Boolean));
}

function tools(report, node) {
  const toggle = (towards, label) => button(label, () => choose(node.id, {path: chosen.path === towards ? "" : towards, flying: false}),
    {"aria-pressed": String(chosen.path === towards), "data-path": towards});
  const place_ = (stage.view.homes.get(node.id) || [])[0];
  const shape = place_ === undefined ? null : stage.view.shapes[place_];
  const open = shape && shape.nodes.length > 1 ? unfolding(shape) : null, close = folding([node.id]);
  return make("div", {class: "tools"}, toggle("loss", "Path to loss"), toggle("leaves", "Path to leaves"),
    open ? button("Unfold", open, {"data-act": "unfold"}) : null, close ? button("Fold", close, {"data-act": "fold"}) : null,
    stage.view.steps.some((step) => step.includes(node.id)) ? button("Step here", () => stepTo(node.id), {"data-act": "step"}) : null,
    button("Copy link", () => copyLink(), {"data-act": "copy"}));
}

async function copyLink() {
  const link = (location.protocol === "about:" ? "" : location.href.split("#")[0]) + anchor();
  try {
    await navigator.clipboard.writeText(link);
    tell(`copied ${link}`);
  } catch {
    const field = make("input", {value: link, readonly: true, "aria-label": "Link to this", style: "width:100%;margin-top:8px"});
    byId("panel").querySelector(".tools").after(field);
    field.select();
    tell("press Control and C to copy the link");
  }
  const pressed = byId("panel").querySelector('[data-act="copy"]');
  if (pressed) pressed.textContent = "Link copied";
}

function findingsOf(report, node) {
  return (report.findingsOf.get(node.id) || []).map((finding) => findingBox(finding, null));
}

function gradientOf(report, node) {
  if (!report.ran) return section("Gradient", under("backward was not run"));
  const blocks = node.received.map((record, slot) => {
    const name = node.received.length > 1 ? under(`output ${slot}`) : null;
    if (!record) return [name, under(node.unread ? "it came without data" : "no gradient came")];
    const values = record.values && record.values.length > 1 ? record.values : null;
    return [name, rows([
      ["value", record.values && record.values.length === 1 ? make("span", {class: "gradient"}, exact(record.values[0])) : ""],
      ["RMS", record.numel > 1 ? make("span", {class: "gradient", "data-rms": record.rms}, exact(record.rms)) : ""],
      ["2-norm", record.numel > 1 ? exact(record.norm) : ""],
      ["shape", record.shape ? `${sizes(record.shape)}  ${record.dtype}` : ""],
      ["elements", record.numel !== 1 ? count(record.numel) : ""],
      ["zero", record.zero ? "every element is exactly 0" : ""],
      ["not finite", record.broken ? gradientWords(report, node) : ""],
    ]), values ? histogram(values) : null,
    values ? make("details", {open: values.length <= 16}, make("summary", {class: "under"}, count(values.length, "value")),
      make("div", {class: "values gradient"}, values.map((value) => make("span", {}, exact(value))))) : null];
  });
  if (!node.received.length) blocks.push(under(gradientWords(report, node)));
  return section(node.kind === "leaf" ? "Gradient of this leaf" : "Gradient received", blocks);
}

/** upstream × local = downstream, for each input. */
function flowOf(report, node) {
  const edges = report.outgoing[node.id].map((index) => report.edges[index]);
  const named = [...new Set(edges.flatMap((edge) => edge.local?.formula.match(/\bv\d+\b/g) || []))];
  const said = named.length ? `${named.join(", ")}: what node${named.length > 1 ? "s" : ""} ${named.map((name) => name.slice(1)).join(", ")} made` : "";
  return section("Sends to its inputs", edges.map((edge) => equation(report, edge)), said ? make("p", {class: "under", style: "font-size:12px"}, said) : null);
}

function equation(report, edge) {
  const node = report.nodes[edge.source], target = report.nodes[edge.target], local = edge.local;
  const up = node.received.length === 1 && node.received[0] ? node.received[0].values : null;
  const sent = recordWords(edge.record);
  const known = local && typeof numberOf(local.value) === "number" && up && up.length === 1;
  return make("div", {class: "equation", "data-edge": edge.index},
    make("div", {}, known ? [make("span", {class: "gradient"}, short(up[0])), " × ", make("span", {class: "value"}, short(local.value)), " = "] : null,
      make("span", {class: "gradient"}, sent || (target.brief ? "not in this page" : "nothing recorded")), " → ", theirs(target.sign || target.label, {style: "font-weight:600"})),
    local && local.formula ? make("code", {style: "color:var(--muted)"}, local.formula) : null,
    local && local.note && up && up.length === 1 ? make("div", {class: "under", style: "font-size:12.5px"}, local.note) : null);
}

function forwardOf(node) {
  const outputs = node.outputs.map((spec, slot) => {
    const values = node.forward[slot];
    const said = spec ? `${sizes(spec.shape)}  ${spec.dtype}${spec.device === "cpu" ? "" : `  ${spec.device}`}` : "unknown";
    const shown = values ? make("div", {class: "values value"}, values.map((value) => make("span", {}, exact(value)))) : null;
    const folded = shown && values.length > 16 ? make("details", {}, make("summary", {class: "under"}, count(values.length, "value")), shown) : shown;
    return [node.outputs.length > 1 ? `output ${slot}` : "output", [said, folded]];
  });
  return section("Forward", rows([["operation", node.operation ? make("code", {}, node.operation) : ""],
    ...outputs.map(([name, value]) => [name, make("div", {}, value)])]));
}

function sourceBlock(source) {
  if (!source) return null;
  const lines = DATA.lines[source.file] || {};
  const near = Object.keys(lines).map(Number).filter((line) => Math.abs(line - source.line) <= 3).sort((one, other) => one - other);
  const code = near.length ? make("div", {class: "code", tabindex: "0", role: "region", "aria-label": "Source"}, near.map((line) =>
    make("div", {class: line === source.line ? "here" : null, "aria-current": line === source.line ? "true" : null},
      make("span", {}, String(line)), theirs(lines[line] || " ")))) : null;
  return section("Source", under(theirs(`${source.file}:${source.line}${source.inside && source.inside !== "<module>" ? ` in ${source.inside}` : ""}`)), code);
}

function savedOf(report, node) {
  if (!node.saved.length) return null;
  const line = (saved) => make("tr", {}, make("td", {}, make("code", {}, saved.name)),
    make("td", {}, saved.spec ? `${sizes(saved.spec.shape)} ${saved.spec.dtype}` : make("code", {}, saved.text), saved.problem ? make("div", {class: "under"}, saved.problem) : null,
      saved.leaf !== null ? make("div", {}, make("button", {type: "button", class: "jump", onclick: () => choose(saved.leaf)}, theirs(report.nodes[saved.leaf].label))) : null),
    make("td", {}, saved.bytes ? memory(saved.bytes) : ""));
  return section("Saved for backward", make("table", {class: "saved"}, make("tbody", {}, node.saved.map(line))));
}

function verdictOf(node) {
  const verdict = node.verdict;
  if (!verdict) return null;
  return section("Independent check", rows([["verdict", verdict.status], ["because", verdict.reason],
    ["largest error", verdict.ratio === null ? "" : `${exact(verdict.ratio)} of its bound`],
    ["compared", verdict.of ? `${count(verdict.elements)} of ${count(verdict.of)} elements` : ""]]));
}

function neighbours(report, node) {
  const list = (indices, end, kind) => {
    const seen = [...new Set(indices.map((index) => report.edges[index][end]))];
    const shown = seen.slice(0, 60).map((id) => jump(report.nodes[id], kind, brief(report, report.nodes[id])));
    return shown.length ? make("ul", {}, shown, seen.length > 60 ? make("li", {class: "under"}, `and ${count(seen.length - 60)} more`) : null) : null;
  };
  return [section("Inputs (the gradient goes on to them)", list(report.outgoing[node.id], "target", "into")),
    section("Consumers (the gradient comes from them)", list(report.incoming[node.id], "source", "out"))];
}

function otherwise(report, node) {
  return section("Besides", rows([["names", node.names.length ? theirs(node.names.join(", ")) : ""], ["step", node.index >= 0 ? `${node.index + 1} of ${report.order.length}` : ""],
    ["time", node.seconds ? duration(node.seconds) : ""], ["sequence", node.sequence ?? ""], ["hooks", node.hooks.length ? theirs(node.hooks.join(", ")) : ""],
    ["note", node.note ? theirs(node.note) : ""]]));
}

/** A folded box. */
function showShape(place_) {
  const shape = stage.view.shapes[place_];
  showFold(shape, "Folded", [["Unfold", unfolding(shape), "unfold"], ["Fold", folding(shape.nodes), "fold"]]);
}

/** An open module. */
function showModule(number) {
  showFold(stage.view.modules[number].shape, "Module", [["Fold", () => toggle(number), "fold"], ["Unfold all inside", unfoldingAll(number), "unfold-all"]]);
}

/** How much is in several nodes together, the range of their gradients, the worst verdict, and each as a link. */
function showFold(shape, kind, acts) {
  const report = stage.report, nodes = shape.nodes.map((id) => report.nodes[id]);
  const levels = nodes.map(rmsOf).filter((rms) => rms > 0 && Number.isFinite(rms));
  const bad = nodes.filter((node) => node.verdict && node.verdict.status.includes("mismatch"));
  const statuses = new Map();
  for (const node of nodes) if (node.verdict) statuses.set(node.verdict.status, (statuses.get(node.verdict.status) || 0) + 1);
  const findings = [...new Set(nodes.flatMap((node) => report.findingsOf.get(node.id) || []))];
  const shown = nodes.slice(0, 200);
  present(`${kind}: ${shape.label}`, make("h2", {}, theirs(shape.label || nodes[0].label)),
    under([count(nodes.length, "node"), shape.times > 1 ? `${shape.times} alike drawn once` : "", shape.module].filter(Boolean).join(" · ")),
    make("div", {class: "tools"}, acts.filter(([, act]) => act).map(([label, act, name]) => button(label, act, {"data-act": name})),
      button("Copy link", copyLink, {"data-act": "copy"})),
    findings.map((finding) => findingBox(finding, () => go(finding))),
    section("Gradients inside", rows([["RMS", levels.length ? `${scientific(Math.min(...levels))} … ${scientific(Math.max(...levels))}` : ""],
      ["check", [...statuses].map(([status, amount]) => `${count(amount)} ${status}`).join(", ")],
      ["not reached", String(nodes.filter((node) => report.ran && !node.ran).length || "")]])),
    bad.length ? section("Disagree with the check", make("ul", {}, bad.slice(0, 20).map((node) => jump(node, "", brief(report, node))))) : null,
    section("Nodes", make("ul", {}, shown.map((node) => jump(node, "", [node.module, brief(report, node)].filter(Boolean).join(" · ")))),
      nodes.length > 200 ? under(`and ${count(nodes.length - 200)} more`) : null));
}
