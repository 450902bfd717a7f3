"""Which process of a distributed job this is, and how its files are named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

NAMED = (".modelexplorer.json",)
"""Suffixes of two parts, which stay together at the end of a name."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Process `number` of `of`, counted from 0."""

    number: int
    of: int


def rank_now() -> Rank | None:
    """The rank in the process group there is, else what the launcher says; None in a job of one."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        found = Rank(distributed.get_rank(), distributed.get_world_size())
        return found if found.of > 1 else None
    try:
        found = Rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    except (KeyError, ValueError):
        return None
    return found if found.of > 1 and 0 <= found.number < found.of else None


def named(path: str, rank: Rank | None) -> str:
    """``report.json`` as ``report.rank0.json``; as it is in a job of one."""
    if rank is None:
        return path
    place = Path(path)
    for suffix in NAMED:
        if place.name.lower().endswith(suffix):
            cut = len(place.name) - len(suffix)
            return str(place.with_name(f"{place.name[:cut]}.rank{rank.number}{place.name[cut:]}"))
    return str(place.with_name(f"{place.stem}.rank{rank.number}{place.suffix}"))
