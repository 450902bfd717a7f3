"""Matrix products and attention: a row times a column."""

from __future__ import annotations

from math import exp, fsum, sqrt

from explorer.arithmetic.block import Block
from explorer.arithmetic.rules import Case, Worked, factor, number, rule, total

__all__ = ["attention", "matrix_product", "vector_product"]

SIDES = {
    "self": ("self", "mat2"),
    "mat2": ("self", "mat2"),
    "mat1": ("mat1", "mat2"),
    "batch1": ("batch1", "batch2"),
    "batch2": ("batch1", "batch2"),
}
"""An argument of a matrix product -> the names of its two sides."""


@rule("mm bmm addmm baddbmm")
def matrix_product(case: Case) -> Worked | None:
    """A·B: for the left side G·Bᵀ, for the right one Aᵀ·G; for the added term G summed where broadcast."""
    name = case.node.name
    added = name.startswith(("Addmm", "Baddbmm"))
    scale = _scale(case, "alpha" if not (added and case.argument == "self") else "beta") if added else ()
    if added and case.argument == "self":
        return total(((one,) for one in case.given.uses(case.place, case.shape)), scale)
    left, right = ("mat1", "mat2") if name.startswith("Addmm") else SIDES[case.argument]
    *batch, row, column = case.place
    if case.argument == left:
        pairs = zip(case.given.read(*batch, row), case.need(right).read(*batch, column), strict=True)
    else:
        pairs = zip(
            case.need(left).read(*batch, None, row), case.given.read(*batch, None, column), strict=True
        )
    return total(pairs, scale)


@rule("mv dot")
def vector_product(case: Case) -> Worked | None:
    """A·v: G_i·v_j for the matrix, Σ A_ij·G_i for the vector; v·w: G·w and G·v."""
    if case.node.name.startswith("Dot"):
        other = case.need("tensor" if case.argument == "self" else "self")
        return total([(case.given.at(()), other.at(case.place))])
    if case.argument == "self":
        row, column = case.place
        return total([(case.given.at((row,)), case.need("vec").at((column,)))])
    column = case.place[0]
    return total(zip(case.need("self").read(None, column), case.given.read(None), strict=True))


def _scale(case: Case, name: str) -> tuple[float, ...]:
    """alpha or beta as factors of the whole: none for 1."""
    return tuple(one for one in case.setting(name) or () if one != 1.0)


@rule("_scaled_dot_product_flash_attention_for_cpu")
def attention(case: Case) -> Worked | None:
    """P = softmax(q·kᵀ·s), out = P·v: dv = Pᵀ·G, dS = P∘(G·vᵀ − G·out), dq = s·dS·k, dk = s·dSᵀ·q.

    P is had from the saved logarithm of its denominator: P_ij = e^(s·q_i·k_j − lse_i).
    """
    query, key = case.need("query"), case.need("key")
    if (
        case.block("attn_mask") is not None
        or query.shape[:2] != key.shape[:2]
        or case.setting("dropout_p") != (0.0,)
    ):
        return None
    *batch, place, column = case.place
    scale = (case.setting("scale") or (1 / sqrt(query.shape[-1]),))[0]
    head = _Attention(case, tuple(batch), scale, case.flag("is_causal"))
    if case.argument == "value":
        said = total([(head.share(i, place), given[column]) for i, given in enumerate(head.given)])
        return Worked(f"{said.text}, each a share times G", said.value, said.size) if said else None
    if case.argument == "query":
        terms = [(head.score(place, j), key[column]) for j, key in enumerate(head.key)]
    else:
        terms = [(head.score(i, place), query[column]) for i, query in enumerate(head.query)]
    return total(terms, (scale,))


class _Attention:
    """One head: its matrices by rows, and from them shares and gradients of scores."""

    def __init__(self, case: Case, batch: tuple[int, ...], scale: float, causal: bool) -> None:
        self.scale, self.causal = scale, causal
        self.query, self.key, self.value, self.out = (
            _rows(case.need(name), batch) for name in ("query", "key", "value", "output")
        )
        self.given = _rows(case.given, batch)
        self.denominators = case.need("logsumexp").read(*batch)

    def share(self, i: int, j: int) -> float:
        """How much of value j output i takes."""
        if self.causal and j > i:
            return 0.0
        return exp(self.scale * _dot(self.query[i], self.key[j]) - self.denominators[i])

    def score(self, i: int, j: int) -> float:
        """The gradient of score i, j: P·(G_i·v_j − G_i·out_i)."""
        share = self.share(i, j)
        return (
            share * (_dot(self.given[i], self.value[j]) - _dot(self.given[i], self.out[i])) if share else 0.0
        )


def _rows(block: Block, batch: tuple[int, ...]) -> list[list[float]]:
    """The matrix at `batch`, row by row."""
    numbers, width = block.read(*batch), block.shape[-1]
    return [numbers[start : start + width] for start in range(0, len(numbers), width)]


def _dot(a: list[float], b: list[float]) -> float:
    return fsum(x * y for x, y in zip(a, b, strict=True))


@rule("_softmax _safe_softmax")
def softmax(case: Case) -> Worked | None:
    """s·(G − Σ G·s) along its axis."""
    line, own = _line(case, "result")
    given = case.given.read(*_along(case))
    inner = fsum(g * s for g, s in zip(given, line, strict=True))
    text = f"{factor(line[own])}×({number(given[own])} − {factor(inner)})"
    return Worked(text, line[own] * (given[own] - inner))


@rule("_log_softmax")
def log_softmax(case: Case) -> Worked | None:
    """G − s·Σ G along its axis, s the softmax: e to the power of the result."""
    line, own = _line(case, "result")
    given = case.given.read(*_along(case))
    share, inner = exp(line[own]), fsum(given)
    return Worked(f"{number(given[own])} − {factor(share)}×{factor(inner)}", given[own] - share * inner)


@rule("logsumexp")
def logsumexp(case: Case) -> Worked | None:
    """G·e^(x − result): the softmax, times what arrived."""
    x, axis = case.need("self").at(case.place), _axis(case)
    kept = tuple(i for at, i in enumerate(case.place) if at != axis)
    where = case.place if len(case.given.shape) == len(case.place) else kept
    where = tuple(0 if size == 1 else i for i, size in zip(where, case.given.shape, strict=True))
    result, given = case.need("result").at(where), case.given.at(where)
    text = f"{factor(given)}×e^({number(x)} − {factor(result)})"
    return Worked(text, given * exp(x - result))


def _axis(case: Case) -> int:
    """The one axis the operation ran along."""
    (axis,) = case.whole_numbers("dim", 1)
    return axis % max(len(case.place), 1)


def _along(case: Case) -> tuple[int | None, ...]:
    """The index of the whole line through the element, along the operation's axis."""
    axis = _axis(case)
    return tuple(None if at == axis else i for at, i in enumerate(case.place))


def _line(case: Case, name: str) -> tuple[list[float], int]:
    """The numbers of `name` along the axis, and where the element stands among them."""
    return case.need(name).read(*_along(case)), case.place[_axis(case)]
