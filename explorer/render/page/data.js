// The other side of explorer/render/page/data.py: short keys to objects with names.

const DATA = JSON.parse(document.getElementById("ae-data").textContent);
const text = (number) => DATA.strings[number || 0];
const opened = new Map();

/** Report number `place`, expanded when first asked for. */
function reportAt(place) {
  if (!opened.has(place)) opened.set(place, expand(DATA.reports[place], place));
  return opened.get(place);
}

function expand(raw, place) {
  const report = {
    ...raw, place,
    where: sourceOf(raw.where),
    nodes: raw.nodes.map((node, id) => nodeOf(node, id)),
    findings: raw.findings.map((finding) => ({...finding, where: sourceOf(finding.where)})),
  };
  report.outgoing = report.nodes.map(() => []);
  report.incoming = report.nodes.map(() => []);
  report.edges = raw.edges.map(([source, slot, target, targetSlot], index) => {
    report.outgoing[source].push(index);
    report.incoming[target].push(index);
    const sent = raw.sent[index];
    const record = sent === 1 ? report.nodes[target].received[targetSlot] || null : sent ? recordOf(sent) : null;
    const local = raw.local[index];
    return {index, source, slot, target, targetSlot, record,
      local: local ? {value: local[0], formula: text(local[1]), note: text(local[2])} : null};
  });
  report.findingsOf = new Map();
  for (const finding of report.findings) {
    const named = new Set([finding.node, ...finding.nodes].filter((node) => node !== null));
    for (const node of named) report.findingsOf.set(node, [...(report.findingsOf.get(node) || []), finding]);
  }
  report.order = orderOf(report);
  report.views = raw.views.map((view, number) => viewOf(view, number, report));
  return report;
}

/** Nodes in the order they ran; a leaf that only collected its gradient comes after the last that sent it something. */
function orderOf(report) {
  const place = (node) => (node.kind !== "leaf" || !node.received.some(Boolean) ? node.index
    : Math.max(node.index, ...report.incoming[node.id].map((edge) => report.nodes[report.edges[edge].source].index)));
  return report.nodes.map((node) => [place(node), node.kind === "leaf" ? 1 : 0, node.id]).filter(([at]) => at >= 0)
    .sort((one, other) => one[0] - other[0] || one[1] - other[1] || one[2] - other[2]).map(([, , id]) => id);
}

function nodeOf(raw, id) {
  if (Array.isArray(raw)) return {...nodeOf(whole(raw), id), brief: true};
  const outputs = (raw.o || []).map(specOf);
  return {
    id, name: text(raw.n), label: text(raw.l), names: (raw.a || []).map(text), kind: raw.k || "op",
    role: raw.r || "", module: text(raw.m), call: raw.c || 0, source: sourceOf(raw.s),
    outputs,
    formula: Object.entries(raw.f || {}).map(([name, said]) => [name, text(said)]),
    operation: text(raw.w), sign: text(raw.y), hooks: raw.h || [], note: raw.e || "", sequence: raw.q,
    saved: (raw.v || []).map((saved) => ({name: text(saved.n), spec: specOf(saved.s), bytes: saved.b || 0,
      text: saved.t || "", leaf: saved.l ? saved.l - 1 : null, problem: saved.p || ""})),
    received: (raw.g || []).map((record, slot) => record && recordOf(record, outputs[slot])),
    ran: Boolean(raw.i), unread: raw.u || 0, index: raw.i ? raw.i - 1 : -1, seconds: raw.t || 0,
    forward: raw.x || [],
    verdict: raw.d ? {status: text(raw.d[0]), reason: text(raw.d[1]), ratio: raw.d[2] === null ? null : numberOf(raw.d[2]),
      elements: raw.d[3], of: raw.d[4]} : null,
  };
}

/** A node of a large graph whose details are left out. */
function whole([n, l, m, i, norm, numel, nans, infs]) {
  const record = {n: norm, c: numel, z: norm === 0};
  if (nans !== undefined) record.x = [nans, infs];
  return {n, l, m, i, g: norm === undefined ? [null] : [record]};
}

function specOf(raw) {
  return raw ? {shape: raw[0], dtype: text(raw[1]), device: text(raw[2])} : null;
}

function sourceOf(raw) {
  return raw ? {file: text(raw[0]), line: raw[1], inside: text(raw[2])} : null;
}

function recordOf(raw, spec) {
  const norm = numberOf(raw.n);
  return {norm, numel: raw.c, rms: raw.c ? norm / Math.sqrt(raw.c) : 0, zero: Boolean(raw.z), broken: raw.x || null,
    values: raw.v || null, shape: raw.s || (spec ? spec.shape : null), dtype: raw.d ? text(raw.d) : spec ? spec.dtype : ""};
}

/** One level of detail: its shapes and wires, and where each node and edge of the graph is drawn. */
function viewOf(raw, number, report) {
  const base = raw.shapes.map((shape) => {
    if (typeof shape === "number") return {members: [shape], nodes: [shape], kind: "", label: "", times: 1};
    const members = shape.m, nodes = [...new Set([...members, ...(shape.i || []), ...(shape.h || [])])];
    return {members, nodes, kind: shape.k || "", label: text(shape.l), module: text(shape.p), times: shape.t || 1};
  });
  const view = {number, report, base, label: raw.label, note: raw.note, folded: raw.folded, marks: raw.marks, circuit: raw.circuit, lines: raw.wires, box: raw.box,
    finest: placesOf(base)};
  if (raw.rooms) {
    const nest = nestOf(view, raw);
    return settle(nest, nest.opened);
  }
  return indexed({...view, shapes: base, wires: raw.wires.map(([source, target, ...edges]) => ({source, target, edges}))});
}

/** Node -> the places of the shapes it is drawn in. */
function placesOf(shapes) {
  const homes = new Map();
  shapes.forEach((shape, place) => {
    for (const node of shape.nodes) homes.set(node, [...(homes.get(node) || []), place]);
  });
  return homes;
}

/** A view with what is found by node and by edge. */
function indexed(view) {
  const strung = new Map();
  view.wires.forEach(({edges}, place) => {
    for (const edge of edges) strung.set(edge, [...(strung.get(edge) || []), place]);
  });
  const whole = {...view, homes: placesOf(view.shapes), strung};
  whole.steps = stepsOf(view.report, whole);
  return whole;
}

/** The backward's order; nodes that ran one after another inside one folded box are one step. */
function stepsOf(report, view) {
  const steps = [];
  let last = null;
  for (const node of report.order) {
    const home = (view.homes.get(node) || [null])[0];
    if (home !== null && home === last && view.shapes[home].members.length > 1) steps.at(-1).push(node);
    else steps.push([node]);
    last = home;
  }
  return steps;
}

/** RMS of all that a node received; null when nothing came. */
function rmsOf(node) {
  const records = node.received.filter(Boolean);
  if (!records.length) return null;
  const numel = records.reduce((sum, record) => sum + record.numel, 0);
  return numel ? Math.hypot(...records.map((record) => record.norm)) / Math.sqrt(numel) : 0;
}

/** The gradient of a node in a few words. */
function gradientWords(report, node) {
  if (!report.ran) return "";
  const records = node.received.filter(Boolean);
  if (!records.length) return node.unread ? "no data" : node.ran ? "no grad" : "not reached";
  const broken = records.filter((record) => record.broken);
  if (broken.length) {
    const nans = broken.reduce((sum, record) => sum + record.broken[0], 0);
    const infs = broken.reduce((sum, record) => sum + record.broken[1], 0);
    const counted = broken.every((record) => record.broken[0] || record.broken[1]);
    const said = counted && [nans && `NaN × ${count(nans)}`, infs && `Inf × ${count(infs)}`].filter(Boolean).join(" + ");
    return said ? `${said} of ${count(broken.reduce((sum, record) => sum + record.numel, 0))}` : "NaN or Inf";
  }
  if (records.every((record) => record.zero)) return "0 (exact)";
  if (records.length === 1 && records[0].values && records[0].values.length === 1) return short(records[0].values[0]);
  return scientific(rmsOf(node));
}

/** One gradient, as a wire carries it, in a few words. */
function recordWords(record) {
  if (!record) return "";
  if (record.broken) return Number.isNaN(record.norm) ? "NaN" : "Inf";
  if (record.zero) return "0";
  return record.values && record.values.length === 1 ? short(record.values[0]) : scientific(record.rms);
}

/** The class of the colour scale, 0 to 6. */
function levelOf(report, rms) {
  if (report.centre === null || !(rms > 0) || !Number.isFinite(rms)) return 3;
  return Math.max(0, Math.min(6, 3 + Math.round(Math.log10(rms) - Math.log10(report.centre))));
}

function operationOf(node) {
  const found = /^(.+)Backward\d*$/.exec(node.name);
  return found ? found[1] : node.name;
}

function place(source) {
  return `${source.file.split(/[/\\]/).at(-1)}:${source.line}`;
}

function codeAt(source) {
  const lines = DATA.lines[source.file];
  return (lines && lines[source.line]) || "";
}
