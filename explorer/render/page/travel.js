// The gradient on its way: a dot that runs along the wires against the arrows.

const QUICKEST = 60;

/** Points along a wire from its consumer to its producer: the way the gradient goes. */
function wayOf(wire) {
  const elements = stage.ways ? [...stage.ways[wire]].reverse() : stage.wires.get(wire) || [];
  const parts = elements.map((element) => {
    const path = element.querySelector("path"), line = element.querySelector("polygon");
    const points = path ? along(path) : line ? ends(line) : [];
    return points.reverse();
  }).filter((points) => points.length);
  if (stage.view.circuit) parts.sort((one, other) => other[0].x - one[0].x);
  return parts.flat();
}

function along(path) {
  const length = path.getTotalLength(), pieces = Math.max(2, Math.min(24, Math.round(length / 12)));
  return Array.from({length: pieces + 1}, (_, piece) => path.getPointAtLength((length * piece) / pieces));
}

function ends(line) {
  const box = line.getBBox();
  return [{x: box.x, y: box.y}, {x: box.x + box.width, y: box.y}];
}

function pointAt(points, share) {
  const at = share * (points.length - 1), piece = Math.min(Math.floor(at), points.length - 2), rest = at - piece;
  const one = points[piece], other = points[piece + 1];
  return {x: one.x + (other.x - one.x) * rest, y: one.y + (other.y - one.y) * rest};
}

/** Send dots along `wires` ([place, label]); calls `arrived` once all are there. Returns a function that ends it. */
function travel(wires, milliseconds, arrived) {
  const packets = wires.map(([wire, label]) => ({points: wayOf(wire), label})).filter(({points}) => points.length > 1);
  if (still.matches || document.hidden || milliseconds < QUICKEST || !packets.length) {
    const wait = setTimeout(arrived, milliseconds);
    return () => clearTimeout(wait);
  }
  const radius = Math.max(4.5, Math.min(5 / stage.scale, 40));
  const dots = packets.map(({label}) => draw("g", {"aria-hidden": "true", class: "travelling"},
    draw("circle", {class: "packet", r: radius}),
    packets.length < 7 && stage.scale > 0.45 && !stage.view.circuit ? draw("text", {class: "packet-text", x: radius + 4, y: -radius - 1}, label) : null));
  stage.moved.append(...dots);
  const start = performance.now();
  let frame = 0;
  const clear = () => { cancelAnimationFrame(frame); dots.forEach((dot) => dot.remove()); };
  const move = (now) => {
    const share = Math.max(0, Math.min((now - start) / milliseconds, 1));
    packets.forEach(({points}, number) => {
      const {x, y} = pointAt(points, share);
      dots[number].setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    });
    if (share < 1) { frame = requestAnimationFrame(move); return; }
    clear();
    arrived();
  };
  frame = requestAnimationFrame(move);
  return clear;
}
