// Two small plots: the gradient's values, and the gradient of every layer on a logarithmic scale.

/** Bars of how the values are spread; only where all values are known and there are enough of them. */
function histogram(values) {
  const numbers = values.map(numberOf).filter((value) => typeof value === "number" && Number.isFinite(value));
  if (numbers.length < 5) return null;
  const least = Math.min(...numbers), most = Math.max(...numbers);
  if (least === most) return null;
  const bins = Math.min(16, Math.max(5, Math.ceil(Math.sqrt(numbers.length) * 1.5))), amounts = Array(bins).fill(0);
  for (const number of numbers) amounts[Math.min(bins - 1, Math.floor(((number - least) / (most - least)) * bins))] += 1;
  const highest = Math.max(...amounts), width = 320 / bins;
  const bars = amounts.map((amount, bin) => draw("rect", {class: "bar", x: bin * width + 1, width: width - 2,
    y: 60 - (amount / highest) * 56, height: (amount / highest) * 56}));
  const zero = least < 0 && most > 0 ? draw("line", {class: "axis", x1: (-least / (most - least)) * 320, x2: (-least / (most - least)) * 320, y1: 0, y2: 62}) : null;
  return draw("svg", {class: "plot", viewBox: "0 0 320 78", role: "img",
    "aria-label": `Histogram of ${numbers.length} gradient values from ${exact(least)} to ${exact(most)}`}, bars,
    draw("line", {class: "axis", x1: 0, x2: 320, y1: 61, y2: 61}), zero,
    draw("text", {x: 0, y: 75}, exact(least)), draw("text", {x: 320, y: 75, "text-anchor": "end"}, exact(most)));
}

/** Rows of the flow plot: layers in the order of the forward pass, each with its leaves. */
function layersOf(report) {
  const parameters = report.nodes.filter((node) => node.role === "parameter");
  const leaves = parameters.length ? parameters : report.nodes.filter((node) => node.kind === "leaf");
  const uses = new Map(leaves.map(({id}) => [id, report.incoming[id].map((index) => report.edges[index])
    .map(({source, slot}) => [report.nodes[source].index >= 0 ? -report.nodes[source].index : report.nodes.length - source, slot])
    .sort((one, other) => one[0] - other[0] || one[1] - other[1])[0] || [0, 0]]));
  const layers = new Map();
  for (const leaf of [...leaves].sort((one, other) => uses.get(one.id)[0] - uses.get(other.id)[0] || uses.get(one.id)[1] - uses.get(other.id)[1])) {
    const owner = leaf.label.includes(".") ? leaf.label.slice(0, leaf.label.lastIndexOf(".")) : leaf.label;
    layers.set(owner, [...(layers.get(owner) || []), leaf]);
  }
  return [...layers];
}

const ROW = 17, LEFT = 128, WIDE = 340, MOST = 400;

/** Gradient flow: one row a layer, one dot a parameter, decades across. */
function flowPlot(report, act) {
  const layers = layersOf(report);
  const levels = layers.flatMap(([, leaves]) => leaves.map(rmsOf)).filter((rms) => rms > 0 && Number.isFinite(rms));
  if (!layers.length || !levels.length || layers.length < 2) return null;
  const low = Math.floor(Math.log10(Math.min(...levels))), high = Math.max(Math.ceil(Math.log10(Math.max(...levels))), low + 1);
  const x = (rms) => LEFT + 8 + ((Math.log10(rms) - low) / (high - low)) * (WIDE - LEFT - 18);
  const shown = layers.slice(0, MOST), height = shown.length * ROW + 2;
  const step = Math.max(1, Math.ceil((high - low) / 6));
  const decades = [], numbers = [];
  for (let power = low; power <= high; power += step) {
    decades.push(draw("line", {class: "axis", x1: x(10 ** power), x2: x(10 ** power), y1: 0, y2: height}));
    numbers.push(draw("text", {x: x(10 ** power), y: 12, "text-anchor": "middle"}, `1e${power}`.replace("-", "−")));
  }
  const drawn = shown.map(([owner, leaves], row) => flowRow(report, owner, leaves, row * ROW + ROW / 2, x, act));
  const said = layers.length > MOST ? `, the first ${MOST} of ${count(layers.length)} layers` : "";
  const axis = draw("svg", {class: "plot", viewBox: `0 0 ${WIDE} 16`, "aria-hidden": "true"}, numbers);
  return [axis, make("div", {class: "flow"}, draw("svg", {class: "plot", viewBox: `0 0 ${WIDE} ${height}`, role: "group",
    "aria-label": `Gradient RMS of ${count(shown.length, "layer")}, logarithmic${said}`}, decades, drawn))];
}

function flowRow(report, owner, leaves, y, x, act) {
  const levels = leaves.map(rmsOf).filter((rms) => rms > 0 && Number.isFinite(rms));
  const said = leaves.map((leaf) => `${leaf.label}  ${gradientWords(report, leaf)}`).join("\n");
  const name = owner.length > 21 ? `…${owner.slice(-20)}` : owner;
  const open = () => act(leaves[0].id);
  const odd = leaves.map((leaf) => gradientWords(report, leaf)).find((said_) => !/^[−\d]/.test(said_) || said_.startsWith("0 ("));
  return draw("g", {class: "row", tabindex: "0", role: "button", "aria-label": said.replaceAll("\n", ", "), onclick: open,
    onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } }},
    draw("title", {}, said), draw("rect", {x: 0, y: y - ROW / 2, width: WIDE, height: ROW, fill: "transparent"}),
    draw("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, name),
    levels.length ? draw("line", {class: "range", x1: x(Math.min(...levels)), x2: x(Math.max(...levels)), y1: y, y2: y}) : null,
    leaves.map((leaf) => {
      const rms = rmsOf(leaf);
      return rms > 0 && Number.isFinite(rms) ? draw("circle", {class: "dot", cx: x(rms), cy: y, r: 4.5, style: `fill:${dotColour(report, rms)}`}) : null;
    }),
    odd ? draw("text", {x: levels.length ? WIDE : LEFT + 8, y: y + 4, "text-anchor": levels.length ? "end" : "start", style: "fill:var(--wrong);font-weight:bold"}, odd) : null);
}

/** The magnitude's colour, the pale middle ones darkened to be seen on the page. */
function dotColour(report, rms) {
  return ["#542788", "#998ec3", "#a7abcf", "#7b8794", "#e2b878", "#f1a340", "#b35806"][levelOf(report, rms)];
}
