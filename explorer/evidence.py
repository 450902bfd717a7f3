"""Facts about the run that the diagnoses need beside the report: plain data, no torch.

The live stages gather them while the script runs; a diagnosis only reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ran = Literal["with gradients", "without gradients", "never", "unknown"]


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One parameter that requires a gradient, over all backward calls seen.

    `reached`: some backward call had it among its leaves. `optimized`: an optimizer holds it.
    `module` is the dotted path of its module, and `ran` how that module's forward ran; `siblings_ran`
    says whether another module of the same root ran with gradients enabled.
    """

    name: str
    shape: tuple[int, ...]
    reached: bool
    optimized: bool = False
    module: str = ""
    ran: Ran = "unknown"
    siblings_ran: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of the run beside one report.

    `calls` counts the user's own backward calls; `own_backward` is True where the explorer itself ran
    the backward of the report; `last` is True for the last report of a run, which carries what is said
    once for the whole run.
    """

    calls: int = 0
    own_backward: bool = False
    last: bool = True
    scripted: bool = False
    parameters: tuple[ParameterFact, ...] = ()
