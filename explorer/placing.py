"""Where nodes were made, told with the names that the caller's variables give to modules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from explorer.glimpse import Notes
from explorer.names import Names
from explorer.species import Species
from hooks.creation import Record
from hooks.forward import NodeContext, Observation


def placed(context: Observation, names: Names) -> Notes:
    """The context of a node, its module path told as the names of parameters tell it.

    The observation knows a path below the module that was called; that module may be one of several
    (``G``, ``D``), or a part of the model called by itself (``model.encoder(x)``).
    """
    above: dict[int, str] = {}

    def of(node: Any) -> Record | None:
        record = context.record_of(node)
        root = record.call.root if record is not None else None
        if root is not None and root not in above:
            above[root] = names.modules.get(id(context.root_module(root)), "")
        return record

    def told(record: Record, species: Species) -> NodeContext:
        known = context.told(record, species.spelled, species.python)
        prefix = above.get(known.root, "") if known.root is not None else ""
        if not prefix:
            return known
        return replace(known, module=f"{prefix}.{known.module}" if known.module else prefix)

    return Notes(of, told)
