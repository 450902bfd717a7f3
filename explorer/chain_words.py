"""The paths to one node in words: each path, what it brings, and what all bring together."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, isnan
from textwrap import wrap
from typing import TYPE_CHECKING

from explorer.derivatives import AGREE, wire_names
from explorer.graph import Node
from explorer.report import Report, Shares
from explorer.values import Forward, argument_names

if TYPE_CHECKING:
    from explorer.chains import Group, Path

__all__ = ["Telling"]

WIDTH = 80
"""Columns that a path and a note fill."""

SHOWN = 16
"""A longer path is written with its middle left out."""


@dataclass(frozen=True, slots=True)
class Telling:
    """The result in words."""

    report: Report
    target: int
    count: int
    total: float | None
    listed: tuple[Path, ...]
    groups: tuple[Group, ...]
    shares: Shares | None

    def text(self, note: str, forward: Forward | None) -> str:
        """The whole result, ending with a line break."""
        names = wire_names(self.report, forward)
        roots = ", ".join(dict.fromkeys(names[node] for node, _ in self.report.graph.roots))
        word = "path" if self.count == 1 else "paths"
        lines = [f"{self.count:,} {word} from {roots} to {names[self.target]}{self.which()}"]
        for number, path in enumerate(self.listed, 1):
            lines += wrap(f"{number:>3}. {self.chain(path, names)}", WIDTH, subsequent_indent="     ")
            lines += self.brought(path)
        lines += self.together(names) if self.count else []
        lines += wrap(note, WIDTH)
        return "\n".join(lines) + "\n"

    def chain(self, path: Path, names: tuple[str, ...]) -> str:
        """The nodes of a path by name, a long one without its middle.

        Through tensors, or where the program has modules, nodes without a name of their own are told by
        module or operation, and neighbours that are told alike together.
        """
        nodes = [self.report.graph.nodes[number] for number in path.nodes]
        modules = path.norm is not None or any(node.module for node in nodes)
        words: list[tuple[str, int]] = []
        for place, node in enumerate(nodes):
            named = node.kind == "leaf" or bool(node.names) or not modules
            alike = node.module or _operation(node)
            word = names[node.id] if named or not words else alike
            word += self.side(path, place)
            times = words.pop()[1] if words and words[-1][0] == word else 0
            words.append((word, times + 1))
        operations = {_operation(node) for node in nodes}
        said = [f"{word} ×{times}" if times > 1 and word in operations else word for word, times in words]
        if len(said) > SHOWN:
            said = [*said[: SHOWN // 2], f"… {len(said) - SHOWN} more …", *said[-SHOWN // 2 :]]
        return " → ".join(said)

    def side(self, path: Path, place: int) -> str:
        """ " (query)" where a path leaves attention by one of its three inputs, "" elsewhere."""
        if place >= len(path.edges):
            return ""
        edge = self.report.graph.edges[path.edges[place]]
        arguments = argument_names(self.report.graph, self.report.graph.nodes[edge.source])
        name = arguments[edge.source_slot] if edge.source_slot < len(arguments) else ""
        return f" ({name})" if name in {"query", "key", "value"} else ""

    def which(self) -> str:
        """Which of the paths are listed, where not all are."""
        if not self.listed or len(self.listed) == self.count:
            return ""
        which = "largest" if self.total is not None else "largest found" if self.measured else "first"
        return f"; the {len(self.listed)} {which} are listed"

    @property
    def measured(self) -> bool:
        """Whether the listed paths were measured."""
        return bool(self.listed) and self.listed[0].norm is not None

    def brought(self, path: Path) -> list[str]:
        """What one path brings."""
        if path.contribution is not None:
            factors = " × ".join(_short(value) for value in path.local if value is not None) or "1"
            if len(path.local) > SHOWN:
                factors = f"product of {len(path.local)} local derivatives"
            return [f"     {factors} = {path.contribution:.6g}"]
        if path.norm is not None and path.share is not None:
            return [f"     brings a gradient of norm {path.norm:.6g}: {_percent(path.share)} of the whole"]
        return []

    def together(self, names: tuple[str, ...]) -> list[str]:
        """The sum of all; of paths through tensors that were not measured, the groups."""
        if self.total is not None:
            what = f"sum of all {self.count:,}" if self.count > 1 else "gradient"
            return [f"{what}: {self.total:.6g}"]
        if self.measured and self.shares is not None and self.shares.norm is not None:
            received = [record for record in self.received() if record is not None]
            lines = []
            if len(self.listed) < self.count:
                part = sum(path.share or 0.0 for path in self.listed)
                rest = self.count - len(self.listed)
                lines = [
                    f"the {len(self.listed)} listed: {_percent(part)}; "
                    f"the other {rest:,}: {_percent(1 - part)}"
                ]
            what = f"all {self.count:,} together" if self.count > 1 else "its norm"
            text = f"{what}: {'norm ' if self.count > 1 else ''}{self.shares.norm:.6g}"
            if received:
                norm = sum(one**2 for one in received) ** 0.5
                text += f"; the gradient that was received: norm {norm:.6g}"
            return [*lines, text]
        lines = []
        for group in self.groups:
            edge = self.report.graph.edges[group.edge]
            size = "not recorded" if group.norm is None else f"norm {group.norm:.6g}"
            many = f"{group.count:,} {'path' if group.count == 1 else 'paths together'}"
            name = self.report.graph.nodes[edge.source].name
            lines.append(f"     through {names[edge.source]} ({name}): {many}, {size}")
        return lines

    def received(self) -> list[float | None]:
        """The norms of what the target received, by slot."""
        record = self.report.gradients[self.target] if self.target < len(self.report.gradients) else None
        return [part.norm if part is not None else None for part in record.received] if record else []

    def note(self, gradient: float | None) -> str:
        """What the numbers mean, and what is shown where there are none."""
        if not self.count:
            return "no path leads there: its gradient is 0 (None in PyTorch)"
        if self.measured:
            return (
                "a path's share is the length of what it brings in the direction of the gradient: the "
                "shares of all paths add up to 100 %, the norms do not"
            )
        if self.total is None:
            if not self.crosses_tensors():
                return "some local derivatives are not known, so the contributions cannot be multiplied out"
            said = (
                "tensors lie on the way, so a path's contribution is not one number; shown instead: the "
                "paths grouped by their last edge, with the norm of the gradient that came along it (norms "
                "of parts do not add up to the norm of the sum)"
            )
            return f"{said}; the paths were not measured: {self.shares.problem}" if self.shares else said
        if gradient is None:
            return "the gradient itself was not recorded as one number"
        outputs = self.report.graph.nodes[self.target].outputs
        spec = outputs[0] if outputs else None
        close = AGREE.get(spec.dtype if spec else "float32", 1e-4)
        alike = isclose(self.total, gradient, rel_tol=close, abs_tol=close * 1e-3)
        if alike or (isnan(self.total) and isnan(gradient)):
            return ""
        return (
            f"the paths sum to {self.total:.6g} but {gradient:.6g} was received: a hook changed a gradient "
            "on the way, a value was changed in place, or a node is wrong (see the check)"
        )

    def crosses_tensors(self) -> bool:
        """Whether a listed path goes through anything of more than one element."""
        return any(
            spec is not None and spec.numel != 1
            for path in self.listed
            for node in path.nodes
            for spec in self.report.graph.nodes[node].outputs
        )


def _operation(node: Node) -> str:
    """ "MulBackward0" is "Mul"."""
    return node.name.partition("Backward")[0]


def _short(number: float) -> str:
    """Six significant digits, a negative number in brackets so that products read well."""
    return f"({number:.6g})" if number < 0 else f"{number:.6g}"


def _percent(share: float) -> str:
    """A share in per cent, to three digits."""
    return f"{100 * share:.3g} %"
