"""Hints: which elements of a gradient deserve a look because of what the node saved.

A sample that knows only shapes meets a row in a thousand by luck. What a node saved says where its gradient
turns: which rows of an embedding are used, which targets are ignored, who won a window. How to add one to a
rule that is there:

    from explorer.engine.registry import Site, hinted

    @hinted("IndexSelectBackward0")
    def index_select(n: Site, g: Array) -> list[list[tuple[int, ...]]]:
        \"\"\"Rows read often, once, not at all.\"\"\"
        ...

and to one's own rule: ``@vjp("MyGatherBackward", hints=...)``. Both take what the rule takes, and give per
input a list of element indices; indices out of range are left out. A hint

- reads at most `reading.READS` elements of each saved tensor, whatever its size (`reading` has the means);
- gives the same places on every run;
- may fail: the sample is then as if there were none, and the verdict says so;
- costs its gradient no more: where elements are dear, those hinted at displace others.
"""

from __future__ import annotations

from explorer.engine.hints import attention, choices, indexing, losses

FAMILIES = (attention, choices, indexing, losses)
"""The modules that hold hints."""

__all__ = ["FAMILIES"]
