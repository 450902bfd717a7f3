"""Rules over time: connectionist temporal classification, packed sequences, the fused LSTM layer of a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import exp, expm1, inf, isinf, log, nan, sqrt
from typing import Any

from explorer.engine.array import Array
from explorer.engine.blocks import Part, blocks
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Missing
from explorer.engine.leaf import Leaf
from explorer.engine.memory import Values
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rounding import Rounding
from explorer.engine.run import Run
from explorer.engine.views import cat

Vjp = list[Array | None]

# -------------------------------------------------------------------- packed sequences


@vjp("PackPaddedSequenceBackward0")
def pack_padded(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y = the rows (t, b) with b < batch size of t, one after the other:  dx = g in those places, else 0."""
    shape, sizes = n.shape(0), n.result1
    if isinstance(sizes, Missing):
        return [sizes]
    counts = [int(size) for size in sizes.values()]
    starts = [0, *accumulate(counts)]

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        t, b = (point[1], point[0]) if n.batch_first else point[:2]
        inside = t < len(counts) and b < counts[t]
        return ([(starts[t] + b, *point[2:])] if inside else []), None

    return [linear(shape, g, terms)]


# -------------------------------------------------------------------- connectionist temporal classification


def _log_sum(values: Sequence[float]) -> float:
    """log Σ eᵛ, -inf where there is nothing to sum."""
    most = max(values, default=-inf)
    return most if isinf(most) else most + log(sum(exp(value - most) for value in values))


def _forward(p: Sequence[Sequence[float]], labels: Sequence[int], blank: int) -> list[list[float]]:
    """log α[t][s]: all ways to be at place s of the labels (blanks between them) at time t."""
    count = len(labels)
    first = [p[0][labels[s]] if s < 2 else -inf for s in range(count)]
    found = [first]
    for row in p[1:]:
        before, now = found[-1], []
        for s, label in enumerate(labels):
            ways = [before[s]] + ([before[s - 1]] if s else [])
            if s > 1 and label != blank and label != labels[s - 2]:
                ways.append(before[s - 2])
            now.append(_log_sum(ways) + row[label])
        found.append(now)
    return found


def alignment_gradient(
    p: list[list[float]], target: Sequence[int], blank: int
) -> tuple[float, list[list[float]], float]:
    """The loss, its gradient for the log probabilities `p` (times × classes), the largest |log α| or |log β|.

    Torch's gradient is that for the scores before a log softmax: e^p - Σ_s e^(α + β - p + loss).
    """
    labels = [blank]
    for label in target:
        labels += [label, blank]
    alpha = _forward(p, labels, blank)
    beta = [row[::-1] for row in _forward(p[::-1], labels[::-1], blank)[::-1]]
    loss = -_log_sum(alpha[-1][-2:])
    found = []
    for row, a, b in zip(p, alpha, beta, strict=True):
        each: dict[int, list[float]] = {}
        for label, x, y in zip(labels, a, b, strict=True):
            each.setdefault(label, []).append(x + y)
        line = []
        for label, value in enumerate(row):
            share = _log_sum(each.get(label, ())) + loss - value
            line.append(exp(value) - exp(share) if share == share else nan)
        found.append(line)
    sizes = [abs(v) for rows in (alpha, beta) for row in rows for v in row if not isinf(v)]
    return loss, found, max(sizes, default=0.0)


def _lengths(value: Any) -> list[int]:
    return [int(one) for one in (value.values() if isinstance(value, Array) else value)]


@vjp("CtcLossBackward0", "CtcLossBackward1")
def ctc(n: Site, g: Array, *_: Array | None) -> Vjp:
    """l = -log Σ over the alignments of Π p:  see `alignment_gradient`; 0 for an infinite loss if asked.

    The logarithms of α and β are summed over all times, each step rounded to their own size M: the shares
    have a relative error of about 2 (√T + 4) u M.
    """
    p, targets = n.log_probs, n.targets
    for one in (p, targets):
        if isinstance(one, Missing):
            return [one]
    times, labelled = _lengths(n.input_lengths), _lengths(n.target_lengths)
    flat = [int(one) for one in targets.values()] if targets.numel else []
    if targets.ndim > 1:
        rows = [flat[i * targets.shape[1] :][:count] for i, count in enumerate(labelled)]
    else:
        starts = [0, *accumulate(labelled)]
        rows = [flat[start:][:count] for start, count in zip(starts, labelled, strict=False)]
    total, batch, classes = p.shape
    number = Leaf([float(i) for i in range(batch)], (batch, 1))

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (logs, _), ((upstream,), (error,)), ((item,), _) = parts
        length, target = times[int(item)], rows[int(item)]
        run.work += 8 * total * (classes + 4 * len(target))
        values, errors = [0.0] * len(logs), [0.0] * len(logs)
        if not length:
            return values, errors
        lines = [list(logs[t * classes : (t + 1) * classes]) for t in range(length)]
        loss, found, size = alignment_gradient(lines, target, n.blank)
        if n.zero_infinity and loss == inf:
            return values, errors
        u = run.rounding.u
        slack = expm1(min(2 * (sqrt(length) + 4) * u * (size + abs(loss) + 4), 1.0))
        for t, row in enumerate(found):
            for label, value in enumerate(row):
                place = t * classes + label
                values[place] = value * upstream
                both = 2 * exp(lines[t][label]) + abs(value)
                errors[place] = (slack + 8 * u) * both * abs(upstream) + both * error + run.rounding.eta
        return values, errors

    found = blocks((batch,), (total, classes), [p.transpose(0, 1), g.reshape(batch, 1), number], compute)
    return [found.transpose(0, 1)]


# -------------------------------------------------------------------- the fused LSTM layer

LARGEST = 4_000_000
"""Layers of more multiplications than this are left unchecked."""


class _Lstm:
    """One pass of an LSTM layer forward and back, each number with a bound on its error.

    Forward, from the hidden states that torch saved: i, f, o = σ(..), g = tanh(..), c = f c₋ + i g. Back:
    dc += dh o (1 - tanh² c);  the gradients before σ and tanh:  dc g i(1-i),  dc c₋ f(1-f),  dc i (1-g²),
    dh tanh(c) o(1-o).
    """

    def __init__(self, run: Run, hidden: int) -> None:
        self.u, self.ua, self.eta = run.rounding.u, run.rounding.ua, run.rounding.eta
        self.hidden = hidden

    def dot(self, a: Values, b: Values, errors: Values | None = None) -> tuple[float, float]:
        """Σ a b and its bound, `errors` being those of b."""
        terms = [p * q for p, q in zip(a, b, strict=True)]
        value = sum(terms)
        norm = sqrt(sum(t * t for t in terms))
        error = self.ua * (sqrt(len(terms)) + 16) * norm + self.u * abs(value) + self.eta
        if errors is not None:
            carried = [abs(p * e) for p, e in zip(a, errors, strict=True)]
            # Twice the root of squares: a larger factor would grow with every step.
            error += min(sum(carried), 2 * sqrt(sum(e * e for e in carried)))
        return value, error

    def times(self, *factors: tuple[float, float]) -> tuple[float, float]:
        """A product and its bound."""
        value, error = 1.0, 0.0
        for x, e in factors:
            value, error = value * x, abs(x) * error + abs(value) * e + e * error
        return value, error + len(factors) * self.u * abs(value) + self.eta

    def sigmoid(self, x: tuple[float, float]) -> tuple[float, float]:
        """σ and its bound: the vector units of a CPU are a few dozen units off."""
        value = 1 / (1 + exp(-x[0])) if x[0] > -700 else 0.0
        return value, (value * (1 - value) + 0.1 * x[1]) * x[1] + 40 * self.u * abs(value) + self.eta

    def tanh(self, x: tuple[float, float]) -> tuple[float, float]:
        """tanh and its bound."""
        value = 2 / (1 + exp(-2 * x[0])) - 1 if x[0] > -350 else -1.0
        return value, (1 - value * value + x[1]) * x[1] + 40 * self.u * (abs(value) + self.u) + self.eta


def _lstm_slopes(
    cell: _Lstm,
    rows: Sequence[tuple[Values, Values]],
    bias: Values,
    weights: tuple[list[Values], list[Values]],
    c0: Values,
    upstream: Sequence[tuple[Values, Values]],
    last: tuple[Values, Values, Values, Values],
) -> tuple[list[Values], list[Values], Part, Part]:
    """For one sequence the gradients before the gates at each step, and those of the first h and c.

    Args:
        rows: input and hidden state before each step, in the order of the steps.
        bias: both biases added up.
        weights: rows of the weights for input and hidden state.
        c0: the first c.
        upstream: gradient of each step's output and its error.
        last: gradients of the last h and c, each with its error.
    """
    hidden = cell.hidden
    gates, states = [], [[(value, 0.0) for value in c0]]
    for x, h in rows:
        pre = []
        for wx, wh, b in zip(*weights, bias, strict=True):
            pre.append(cell.dot([*wx, *wh, 1.0], [*x, *h, b]))
        i, f = ([cell.sigmoid(one) for one in pre[k * hidden : (k + 1) * hidden]] for k in (0, 1))
        g = [cell.tanh(one) for one in pre[2 * hidden : 3 * hidden]]
        o = [cell.sigmoid(one) for one in pre[3 * hidden :]]
        kept = [cell.times(p, q) for p, q in zip(f, states[-1], strict=True)]
        new = [cell.times(p, q) for p, q in zip(i, g, strict=True)]
        states.append(
            [(a + b, e + s + cell.u * abs(a + b)) for (a, e), (b, s) in zip(kept, new, strict=True)]
        )
        gates.append((i, f, g, o))
    columns = [list(column) for column in zip(*weights[1], strict=True)]
    dh, dc = list(zip(*last[:2], strict=True)), list(zip(*last[2:], strict=True))
    slopes: list[Values] = [[]] * len(rows)
    errors: list[Values] = [[]] * len(rows)
    for t in range(len(rows) - 1, -1, -1):
        i, f, g, o = gates[t]
        dh = [(a + b, e + s + cell.u * abs(a + b)) for (a, e), b, s in zip(dh, *upstream[t], strict=True)]
        pre = [(0.0, 0.0)] * (4 * hidden)
        for k in range(hidden):
            tc = cell.tanh(states[t + 1][k])
            through = cell.times(dh[k], o[k], _steep(tc))
            total = (dc[k][0] + through[0], dc[k][1] + through[1] + cell.u * abs(dc[k][0] + through[0]))
            pre[k] = cell.times(total, g[k], i[k], _rest(i[k]))
            pre[hidden + k] = cell.times(total, states[t][k], f[k], _rest(f[k]))
            pre[2 * hidden + k] = cell.times(total, i[k], _steep(g[k]))
            pre[3 * hidden + k] = cell.times(dh[k], tc, o[k], _rest(o[k]))
            dc[k] = cell.times(total, f[k])
        slopes[t], errors[t] = [v for v, _ in pre], [e for _, e in pre]
        dh = [cell.dot(column, slopes[t], errors[t]) for column in columns]
    first, start = list(zip(*dh, strict=True)), list(zip(*dc, strict=True))
    return slopes, errors, (list(first[0]), list(first[1])), (list(start[0]), list(start[1]))


def _steep(y: tuple[float, float]) -> tuple[float, float]:
    """1 - y²."""
    return 1 - y[0] * y[0], 2 * abs(y[0]) * y[1] + y[1] * y[1]


def _rest(y: tuple[float, float]) -> tuple[float, float]:
    """1 - y."""
    return 1 - y[0], y[1]


@vjp("MkldnnRnnLayerBackward0")
def lstm_layer(
    n: Site, g: Array | None, gh: Array | None = None, gc: Array | None = None, *_: Array | None
) -> Vjp:
    """h, c = LSTM(x, W, R, b, b′, h₀, c₀):  with D the gradients before the gates (see `_Lstm`):

    dx = D W,  dW = Dᵀ x,  dR = Dᵀ h₋,  db = db′ = Σ D;  dh₀ and dc₀ are what is left before the first step.
    The gates, which torch keeps in a workspace of its own, are computed anew from the hidden states.
    """
    if n.mode != 2 or n.batch_sizes:
        raise RuleError("a fused layer that is no plain LSTM")
    x, out, h0, c0 = n.input, n.result0, n.hx_, n.cx_
    time, batch, inputs = x.shape
    hidden = n.hidden_size
    wide = 4 * hidden
    steps = range(time - 1, -1, -1) if n.reverse else range(time)
    if time * batch * wide * (inputs + 2 * hidden) > LARGEST:
        return [Missing("an LSTM layer too large for pure Python")] * 7
    nothing = Leaf([0.0], (1,))

    def filled(one: Array | None, *shape: int) -> Array:
        return nothing.reshape(*[1] * len(shape)).expand(*shape) if one is None else one.reshape(*shape)

    biases = [filled(one if n.has_biases else None, wide) for one in (n.weight2, n.weight3)]
    operands = [
        x, out, filled(h0, batch, hidden), filled(c0, batch, hidden), n.weight0, n.weight1,
        *biases, filled(g, time, batch, hidden),
        filled(gh, batch, hidden), filled(gc, batch, hidden),
    ]  # fmt: skip

    known: dict[Rounding, Part] = {}  # five gradients are compared, and all of them need this

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        found = known.get(run.rounding)
        if found is None:
            found = known[run.rounding] = anew(run, parts)
            run.work += 4 * time * batch * wide * (inputs + 2 * hidden)
        return found

    def anew(run: Run, parts: Sequence[Part]) -> Part:
        cell = _Lstm(run, hidden)
        values = [value for value, _ in parts]
        errors = [error for _, error in parts]
        weights = (_cut(values[4], inputs), _cut(values[5], hidden))
        bias = [a + b for a, b in zip(values[6], values[7], strict=True)]
        before: tuple[Values, Values] = ([0.0] * (time * batch * wide), [0.0] * (time * batch * wide))
        firsts: list[list[Values]] = [[[], []], [[], []]]
        for b in range(batch):
            line = slice(b * hidden, (b + 1) * hidden)
            places = [slice((t * batch + b) * hidden, (t * batch + b + 1) * hidden) for t in steps]
            states = [values[2][line], *[values[1][place] for place in places[:-1]]]
            given = [values[0][(t * batch + b) * inputs : (t * batch + b + 1) * inputs] for t in steps]
            upstream = [(values[8][place], errors[8][place]) for place in places]
            last = (values[9][line], errors[9][line], values[10][line], errors[10][line])
            rows = list(zip(given, states, strict=True))
            slopes, slack, *start = _lstm_slopes(cell, rows, bias, weights, values[3][line], upstream, last)
            for t, one, error in zip(steps, slopes, slack, strict=True):
                place = (t * batch + b) * wide
                before[0][place : place + wide], before[1][place : place + wide] = one, error
            for kept, pair in zip(firsts, start, strict=True):
                kept[0] += pair[0]
                kept[1] += pair[1]
        return before[0] + firsts[0][0] + firsts[1][0], before[1] + firsts[0][1] + firsts[1][1]

    count, each = time * batch * wide, batch * hidden
    whole = blocks((), (count + 2 * each,), operands, compute)
    if isinstance(whole, Missing):
        return [whole] * 7
    d = whole.slice(0, 0, count).reshape(time * batch, wide)
    dh, dc = (whole.slice(0, k, k + each).reshape(batch, hidden) for k in (count, count + each))
    old = cat([h0.reshape(1, batch, hidden), out.slice(0, 0, time - 1)], 0)
    if n.reverse:
        old = cat([out.slice(0, 1), h0.reshape(1, batch, hidden)], 0)
    dx = (d @ n.weight0).reshape(time, batch, inputs)
    dw, dr = d.mT @ x.reshape(time * batch, inputs), d.mT @ old.reshape(time * batch, hidden)
    return [dx, dw, dr, d.sum(0), d.sum(0), _shaped(n, 5, dh), _shaped(n, 6, dc)]


def _shaped(n: Site, slot: int, found: Array) -> Array | None:
    return found.reshape(*n.shape(slot)) if n.needs(slot) else None


def _cut(values: Values, width: int) -> list[Values]:
    return [list(values[i : i + width]) for i in range(0, len(values), width)]
