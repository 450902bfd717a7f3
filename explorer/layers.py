"""What each layer's parameters receive in one backward call: a few numbers, measured as they come.

Neither the graph nor any inner gradient is looked at: only the nodes that accumulate into known leaves, found
through the leaves themselves. On a CUDA device the numbers stay there and come over once per backward.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from math import hypot, inf, isfinite, nan

import torch
from torch import nn

from explorer.journal import LayerGradient, layer_of
from explorer.measure import elements
from explorer.names import Names
from explorer.report import SMALL
from hooks.memory import runs_python
from hooks.nodes import AutogradNode, Event, is_leaf
from hooks.unseen import unseen

COUNTED, SAMPLED = 2**16, 2**14
"""Of up to so many elements the zeros are counted; of more, some so many elements are looked at."""
_HALVES = (torch.float16, torch.bfloat16)
Numbers = tuple[float, float, int, int, int]
"""Norm, largest magnitude, zeros, non-finite elements, elements."""


class Layers:
    """The leaves that are known, weakly, and the layer each belongs to."""

    def __init__(self) -> None:
        self._leaves: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        self._roots: dict[int, weakref.ref[nn.Module]] = {}

    def learn(self, names: Names) -> None:
        """Add the leaves the caller's variables and modules hold."""
        for held in names.held:
            if isinstance(held, torch.Tensor) and held.is_leaf and held.requires_grad:
                spelled = names.of_leaf(held)
                if spelled:
                    self._add(held, layer_of(spelled[0], names.is_parameter(held)))

    def learn_modules(self, roots: Iterable[nn.Module]) -> None:
        """Add the parameters of outermost modules that were not seen before, by their own paths."""
        for root in roots:
            known = self._roots.get(id(root))
            if known is not None and known() is root:
                continue
            self._roots[id(root)] = weakref.ref(root)
            for name, parameter in root.named_parameters():
                if parameter.requires_grad:
                    self._add(parameter, layer_of(name, True))

    def targets(self) -> tuple[list[AutogradNode], list[str], list[torch.Tensor]]:
        """For each known leaf the node that accumulates into it, its layer, and itself.

        The nodes must be held while hooks are on them: a leaf holds its node weakly.
        """
        nodes: list[AutogradNode] = []
        layers: list[str] = []
        tensors: list[torch.Tensor] = []
        with torch.enable_grad(), unseen():
            for key, (ref, layer) in list(self._leaves.items()):
                tensor = ref()
                if tensor is None:
                    del self._leaves[key]
                elif tensor.requires_grad and tensor.is_leaf and not runs_python(tensor):
                    try:
                        node = tensor.view_as(tensor).grad_fn
                    except RuntimeError:  # some layouts (compressed sparse) and freed storages have no view
                        continue
                    nodes.append(node.next_functions[0][0])  # type: ignore[union-attr] # it requires a gradient
                    layers.append(layer)
                    tensors.append(tensor)
        return nodes, layers, tensors

    def layer(self, tensor: torch.Tensor) -> str | None:
        """The layer of a known leaf."""
        known = self._leaves.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def _add(self, tensor: torch.Tensor, layer: str) -> None:
        known = self._leaves.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._leaves[id(tensor)] = (weakref.ref(tensor), layer)


class Sums:
    """Adds up gradients by layer; `finish` gives the totals."""

    def __init__(self, layers: Sequence[str] = ()) -> None:
        self._layers = layers
        self._found: dict[str, list[Numbers]] = {}
        self._device: list[tuple[str, int, torch.Tensor]] = []

    def observe(self, event: Event) -> None:
        """Measure what one leaf is given; to be called as `hooks.nodes.capture` does."""
        for tensor in event.grad_outputs:
            if tensor is not None:
                self.add(self._layers[event.index], tensor)

    def add(self, layer: str, tensor: torch.Tensor) -> None:
        """Measure one gradient, now or (on a device) in `finish`.

        One whose class has a ``__torch_dispatch__`` of the user's is passed over: it would see the reading.
        """
        flat = None if runs_python(tensor) else elements(tensor)
        if flat is None:
            return
        if flat.is_complex():
            flat = torch.view_as_real(flat.resolve_conj())
        size = tensor.numel() if tensor.layout is not torch.strided else flat.numel()
        if flat.is_cpu or not flat.numel():
            measured = _measured(flat, size)
            if layer in self._found:
                self._found[layer].append(measured)
            else:  # never an empty list, not even for Ctrl-C between two lines
                self._found[layer] = [measured]
        else:
            self._device.append((layer, size, _on_device(flat)))

    def finish(self) -> dict[str, LayerGradient]:
        """The totals by layer, fetching what is on devices, once for each."""
        devices: dict[torch.device, list[tuple[str, int, torch.Tensor]]] = {}
        for item in self._device:
            devices.setdefault(item[2].device, []).append(item)
        for items in devices.values():
            rows = torch.stack([item[2] for item in items]).tolist()
            for (layer, size, _), (norm, largest, full, bad) in zip(items, rows, strict=True):
                self._found.setdefault(layer, []).append((norm, largest, size - int(full), int(bad), size))
        return {layer: _total(parts) for layer, parts in self._found.items()}


def norms(live: Sequence[AutogradNode]) -> dict[int, float]:
    """The 2-norm of the ``.grad`` of each leaf among `live` that has one, by its place there."""
    sums = Sums()
    with torch.no_grad(), unseen():
        for place, node in enumerate(live):
            gradient = whole_gradient(node.variable) if is_leaf(node) else None
            if gradient is not None:
                sums.add(str(place), gradient)
        return {int(number): total.norm for number, total in sums.finish().items()}


def whole_gradient(leaf: torch.Tensor) -> torch.Tensor | None:
    """The leaf's ``.grad``, None where this rank has none, or a shard that the others do not share.

    DTensors (FSDP2, tensor parallelism) keep theirs in ``_local_tensor``; FSDP1 flattens its own into a
    ``FlatParameter``.
    """
    gradient = leaf.grad
    if gradient is None or hasattr(gradient, "_local_tensor") or type(leaf).__name__ == "FlatParameter":
        return None
    return gradient


def _measured(flat: torch.Tensor, size: int) -> Numbers:
    """The numbers of a tensor in memory; `flat` has all of `size` elements that may differ from zero."""
    stored = flat.numel()
    if not stored:
        return 0.0, 0.0, size, 0, size
    if stored <= SMALL:
        values = flat.reshape(-1).tolist()
        bad = sum(not isfinite(value) for value in values)
        largest = nan if any(value != value for value in values) else max(map(abs, values))
        norm = nan if largest != largest else hypot(*values)
        return norm, largest, size - stored + values.count(0.0), bad, size
    wide = torch.float32 if flat.dtype in _HALVES else None
    norm = torch.linalg.vector_norm(flat, dtype=wide).item()
    low, high = (bound.item() for bound in torch.aminmax(flat))
    largest = max(-low, high) if low == low else nan
    bad = 0 if isfinite(largest) else stored - int(torch.isfinite(flat).sum())
    if not bad and not isfinite(norm):  # squares overflowed
        norm = torch.linalg.vector_norm(flat, dtype=torch.float64).item()
    return norm, largest, size - stored + _zeros(flat), bad, size


def _zeros(flat: torch.Tensor) -> int:
    """Zeros among the elements; of many, as many as an even sample of them makes likely.

    Counting all of them takes as long as everything else together.
    """
    stored = flat.numel()
    if stored <= COUNTED or not flat.is_contiguous():
        return stored - int(torch.count_nonzero(flat))
    # An odd stride meets every column of a matrix whose rows are a power of two long.
    sample = flat.view(-1)[:: (stored // SAMPLED) | 1]
    share = 1 - int(torch.count_nonzero(sample)) / sample.numel()
    return round(share * stored)


def _on_device(flat: torch.Tensor) -> torch.Tensor:
    """Norm, largest magnitude, elements not zero, elements not finite: four numbers on the device."""
    wide = torch.float32 if flat.device.type == "mps" else torch.float64  # which mps does not have
    low, high = torch.aminmax(flat)
    return torch.stack(
        [
            torch.linalg.vector_norm(flat, dtype=wide),
            torch.maximum(-low, high).to(wide),
            torch.count_nonzero(flat).to(wide),
            (~torch.isfinite(flat)).sum().to(wide),
        ]
    )


def _total(parts: Sequence[Numbers]) -> LayerGradient:
    norms, maxima, zeros, bad, sizes = zip(*parts, strict=True)
    broken = any(value != value for value in (*norms, *maxima))
    return LayerGradient(
        norm=nan if any(norm != norm for norm in norms) else hypot(*norms),
        largest=nan if broken else max(maxima, default=-inf),
        zeros=sum(zeros),
        nonfinite=sum(bad),
        elements=sum(sizes),
    )
