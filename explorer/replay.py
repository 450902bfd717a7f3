"""The forward of a recorded graph computed again, in float64, as a function of its leaves.

Every node names the operation it is the backward of (`explorer.formulas`), and what its formula needs was
saved: mostly enough to run that operation again. The rest is filled in where it can be known: sizes of views
from the shapes of what they made, a constant that was added from the sum. Nothing of the program itself runs
again, so that nobody can notice: no file is read twice, no random number drawn, nothing in place changed.

Whether all this was right is seen at once: at the recorded values of the leaves the result must be the
recorded one. What cannot be replayed is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from explorer.elements import Flat
from explorer.formulas import operation
from explorer.graph import Node
from explorer.trace import Trace
from explorer.values import argument_names, fill
from hooks.saved import SavedValue, read

__all__ = ["Replay", "UnreplayableError"]

State = tuple[int, int]

SHAPED = frozenset({"view", "_unsafe_view", "_reshape_alias", "_reshape_copy"})
"""Operations whose result has the elements of `self` in the shape of the recorded one."""

SAME = frozenset({"clone", "alias", "_to_copy", "lift_fresh"})
"""Operations that hand their input on; a change of dtype is none here, where all is float64."""

SOFTMAX = frozenset({"_softmax", "_log_softmax", "_safe_softmax"})

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "native_layer_norm": {"eps": 1e-5},
    "native_batch_norm": {"momentum": 0.0},
    "_softmax": {"half_to_float": False},
    "_log_softmax": {"half_to_float": False},
    "_safe_softmax": {"dtype": None},
    "masked_fill": {"value": float("-inf")},
}
"""What torch does not save, as it almost always is; the result at the recorded point tells if it was not."""


class UnreplayableError(Exception):
    """Why a graph cannot be computed again."""


class Replay:
    """The forward of a graph as a function of its leaves; to be made while its saved values live.

    `leaves` are the recorded values by node, in the dtypes of the program; `forward` are known values of
    small outputs, in the form of `Report.forward`, from which constants may be deduced. The saved tensors
    are held until the replay is dropped.

    Raises:
        UnreplayableError: an operation cannot be run again; the message names it, with its line.
    """

    def __init__(self, trace: Trace, forward: Mapping[int, tuple[Flat | None, ...]]) -> None:
        self._graph = trace.graph
        self._order = list(reversed(trace.graph.order))
        self.leaves: dict[int, torch.Tensor] = {}
        self._saved: dict[int, Mapping[str, SavedValue]] = {}
        for number in self._order:
            node, live = self._graph.nodes[number], trace.live[number]
            if node.kind == "leaf":
                self.leaves[number] = live.variable.detach()
                continue
            if node.kind != "op" or not operation(node.name):
                raise self._refused(node, "it is no operation of torch's own")
            self._saved[number] = read(live)
        self._forward = fill(self._graph, forward)
        self._constants: dict[tuple[int, str], torch.Tensor] = {}
        self._plans: dict[int, tuple[Any, list[tuple[str, Any]]]] = {}

    def at(self, leaves: Mapping[int, torch.Tensor]) -> dict[State, torch.Tensor]:
        """Every output of every node, the leaves having the values `leaves` (float64).

        Raises:
            UnreplayableError: an operation cannot be run again.
        """
        found: dict[State, torch.Tensor] = {(number, 0): leaves[number] for number in self.leaves}
        with torch.no_grad():
            for number in self._order:
                if number in self.leaves:
                    continue
                result = self._run(self._graph.nodes[number], found)
                outputs = result if isinstance(result, (tuple, list)) else (result,)
                found.update({(number, slot): one for slot, one in enumerate(outputs)})
        return found

    def _run(self, node: Node, known: Mapping[State, torch.Tensor]) -> Any:
        """The outputs of one node."""
        name = operation(node.name).partition("(")[0]
        base = name.partition(".")[0]
        inputs = self._inputs(node, known)
        if base in SAME:
            return inputs["self"]
        spec = node.outputs[0] if node.outputs else None
        if base in SHAPED or base == "expand":
            if spec is None:
                raise self._refused(node, "its shape is not known")
            return inputs["self"].reshape(spec.shape) if base in SHAPED else inputs["self"].expand(spec.shape)
        if base == "native_dropout":
            mask, share = self._value(node, "result1"), self._value(node, "p")
            return inputs["input"] * mask * (0.0 if share == 1 else 1 / (1 - share))
        overload, schema = self._operation(node, name)
        given = {argument: self._argument(node, argument, kind, inputs, known) for argument, kind in schema}
        if base == "native_batch_norm":
            given |= {
                key: value.clone()
                for key, value in given.items()
                if key.startswith("running") and value is not None
            }
        try:
            return overload(**given)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise self._refused(node, str(error).partition("\n")[0]) from error

    def _operation(self, node: Node, name: str) -> tuple[Any, list[tuple[str, Any]]]:
        """torch's own operation, and its arguments; looked up once."""
        if node.id not in self._plans:
            base, _, overload = name.partition(".")
            packet = getattr(torch.ops.aten, base, None)
            found = getattr(packet, overload or "default", None)
            if found is None or base.endswith("_") or found._schema.is_mutable:
                raise self._refused(node, "its operation cannot be called by name")
            self._plans[node.id] = found, [(one.name, one) for one in found._schema.arguments]
        return self._plans[node.id]

    def _inputs(self, node: Node, known: Mapping[State, torch.Tensor]) -> dict[str, Any]:
        """What came along the edges, by argument name; a list of tensors under one name."""
        names = argument_names(self._graph, node)
        found: dict[str, Any] = {}
        several = operation(node.name).partition(")")[0].count("Tensor[]")
        for index in self._graph.outgoing[node.id]:
            edge = self._graph.edges[index]
            name = names[edge.source_slot] if edge.source_slot < len(names) else ""
            value = known[edge.target, edge.target_slot]
            if several:
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
        if several and sum(map(len, found.values())) < len(names):
            raise self._refused(node, "a constant in its list was not saved")
        return found

    def _argument(
        self,
        node: Node,
        name: str,
        schema: Any,
        inputs: Mapping[str, Any],
        known: Mapping[State, torch.Tensor],
    ) -> Any:
        """One argument: an input, a saved value, torch's default, or what else it must have been."""
        if name in inputs:
            return inputs[name]
        saved = self._saved[node.id]
        if name in saved and (saved[name].value is not None or saved[name].problem):
            return self._value(node, name)
        listed = [key for key in saved if key.startswith(f"{name}[")]
        if listed:
            return [self._value(node, key) for key in listed]
        if name == "output_size" and node.outputs and node.outputs[0] is not None:
            return node.outputs[0].shape[-3 if "3" in node.name else -2 :]
        settings = SETTINGS.get(operation(node.name).partition("(")[0].partition(".")[0], {})
        if name in settings:
            return settings[name]
        if schema.has_default_value():
            return schema.default_value
        kind = str(schema.type)
        if kind.startswith("Optional"):
            return None
        if kind == "Tensor" or kind == "number":
            return self._constant(node, name, inputs, known)
        raise self._refused(node, f"its {name} was not saved")

    def _value(self, node: Node, name: str) -> Any:
        """A saved value, floating tensors in float64."""
        held = self._saved[node.id][name]
        if held.problem:
            raise self._refused(node, held.problem)
        value = held.value
        if isinstance(value, torch.Tensor):
            value = value.detach()
            return value.double() if value.is_floating_point() else value
        return value

    def _constant(
        self, node: Node, name: str, inputs: Mapping[str, Any], known: Mapping[State, torch.Tensor]
    ) -> torch.Tensor:
        """A constant that was not saved: deduced from small values, or from what the node made.

        Found at the recorded point, which is therefore the first to be asked for, and kept.
        """
        place = (node.id, name)
        if place not in self._constants:
            value = self._forward.arguments.get(place)
            base = operation(node.name).partition("(")[0].partition(".")[0]
            made = self._made(node)
            if value is not None and len(value.numbers) == 1:
                self._constants[place] = torch.tensor(value.numbers[0], dtype=torch.float64)
            elif made is not None and base == "add" and set(inputs) == {"self"}:
                self._constants[place] = made - inputs["self"]
            elif made is not None and base == "add" and set(inputs) == {"other"}:
                self._constants[place] = made - inputs["other"]
            elif made is not None and base == "sub" and set(inputs) == {"self"}:
                self._constants[place] = inputs["self"] - made
            elif made is not None and base == "sub" and set(inputs) == {"other"}:
                self._constants[place] = made + inputs["other"]
            else:
                raise self._refused(node, f"the constant in it ({name}) was not saved")
        return self._constants[place]

    def _made(self, node: Node) -> torch.Tensor | None:
        """What the node's forward gave in the program, where one that used it saved it.

        A softmax saved only its own result; the logarithm of that differs from what was given by a number per
        line, which changes nothing for the softmax, and nobody else is asked.
        """
        value, spec = self._forward.outputs.get((node.id, 0)), node.outputs[0] if node.outputs else None
        if value is not None and spec is not None and spec.numel == len(value.numbers):
            return torch.tensor(value.numbers, dtype=torch.float64).reshape(spec.shape)
        users = self._graph.incoming[node.id]
        for index in users:
            edge = self._graph.edges[index]
            own = self._saved.get(edge.source, {}).get("result")
            kind = operation(self._graph.nodes[edge.source].name).partition("(")[0]
            if (
                len(users) == 1
                and own is not None
                and isinstance(own.value, torch.Tensor)
                and kind in SOFTMAX
            ):
                made = own.value.detach().double()
                return made if kind == "_log_softmax" else made.log()
            names = argument_names(self._graph, self._graph.nodes[edge.source])
            name = names[edge.source_slot] if edge.source_slot < len(names) else ""
            held = self._saved.get(edge.source, {}).get(name)
            if held is not None and isinstance(held.value, torch.Tensor) and not edge.target_slot:
                return held.value.detach().double()
        return None

    def _refused(self, node: Node, why: str) -> UnreplayableError:
        where = f" (line {node.source.line})" if node.source else ""
        return UnreplayableError(f"{node.name}{where} cannot be run again: {why}")
