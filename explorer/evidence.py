"""Facts about the run that the diagnoses need beside the report: plain data, no torch.

The live stages gather them while the script runs (`explorer.gather`); a diagnosis only reads them.
`Looked` belongs to one explored backward, `Evidence` joins it with what is known of the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from explorer.graph import Source

Ran = Literal["with gradients", "without gradients", "never", "unknown"]


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One parameter that requires a gradient, over all backward calls seen.

    `reached`: some backward call had it among its leaves. `optimized`: an optimizer holds it.
    `module` is the dotted path of its module, and `ran` how that module's forward ran; `siblings_ran`
    says whether another module of the same root ran with gradients enabled. `identity` tells
    parameters apart within one run; `where` is the line that makes its module, where found; `exits` are the
    lines where something computed from it left the graph, each with how ("detach", "no_grad", ...).
    `beside_reached`: another parameter of its module was reached. `model_used`: one of its whole model was,
    or is held by an optimizer; False for a model that was only asked for its output.
    """

    name: str
    reached: bool
    optimized: bool = False
    module: str = ""
    ran: Ran = "unknown"
    siblings_ran: bool = False
    identity: int = 0
    where: Source | None = None
    exits: tuple[tuple[Source, str], ...] = ()
    beside_reached: bool = False
    model_used: bool = True


@dataclass(frozen=True, slots=True)
class Cut:
    """A place that feeds the loss of this report with a value cut off from the graph.

    `how`: "detach", "item", ..., "no_grad"; `upstream` are the identities of the leaves behind it,
    `names` theirs; `node` uses the value (None: the loss itself is cut).
    """

    where: Source
    how: str
    upstream: tuple[int, ...]
    names: tuple[str, ...] = ()
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Damage:
    """Saved value `saved` of `node` was overwritten: version `expected` was saved, it is at `version`.

    `variable` holds it (""; not known), `culprit` is the line that changed it, `step` whether that was
    an optimizer's step.
    """

    node: int
    saved: str
    version: int
    expected: int
    variable: str = ""
    culprit: Source | None = None
    step: bool = False


@dataclass(frozen=True, slots=True)
class Units:
    """`affected` of `units` units behind activation `node` were stuck in all `rows` rows."""

    node: int
    function: str
    affected: int
    units: int
    rows: int


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The loss at `node` met shapes that expanded each other to `shape`."""

    node: int
    prediction: tuple[int, ...]
    target: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reused:
    """A step used a gradient that an earlier step had used: one element, `before` and in `total`."""

    where: Source | None
    name: str
    before: float
    total: float


@dataclass(frozen=True, slots=True)
class Starved:
    """An optimizer that took `steps` steps, at `where` first, and found no gradient in any of them.

    `name` is one of its parameters, which some backward reached and nobody changed.
    """

    where: Source | None
    name: str
    steps: int


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A module of class `kind` that ran inside an `owner` which does not list it, as `path` in the report.

    So many `parameters` of its own were reached by a backward, and no optimizer holds any of them, although
    one holds parameters of the owner.
    """

    path: str
    kind: str
    owner: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Unstepped:
    """An optimizer that never stepped, though ``zero_grad`` at `where` cleared gradients `cleared` times.

    `name` is one of its parameters; `bare` a statement that names a ``step`` and does not call it.
    """

    where: Source
    name: str
    cleared: int
    bare: Source | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Parameter `name` got a gradient in `calls` backward calls or more, and no optimizer holds it.

    `training`: its module is in training mode, or it has none. `replaced`: optimizers hold as many tensors,
    of as many dimensions, that belong to no module and that no backward reached.
    """

    name: str
    calls: int
    training: bool
    replaced: bool


@dataclass(frozen=True, slots=True)
class Growth:
    """The loss at `where` grew (`counts` of nodes), or `variable` keeps the graphs of `kept` calls."""

    where: Source
    counts: tuple[int, ...]
    variable: str = ""
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Altered:
    """A saved value that is no longer what the forward used: element `place` of an output of `node`.

    It `was` so in the forward; the values saved give `now`. `names` are the tensors one of which was changed,
    empty where it is the output itself; `loss`: the output is the loss. `perhaps_meant`: the output itself
    may have been replaced before anybody used it, as straight-through estimators do by hand. `by` is the line
    that took hold of that memory last after it was used.
    """

    node: int
    names: tuple[str, ...]
    place: tuple[int, ...]
    was: float
    now: float
    loss: bool = False
    perhaps_meant: bool = False
    by: Source | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen right before (and, for `underflows`, during) one explored backward.

    `underflows`: nodes whose float16 result is 0 only for want of precision. `earlier`: the sequence
    number reached when the backward call before this one ended; nodes below it are older. `backwards`: where
    the backward of each of the user's own Functions is defined, by node. `altered`: saved values changed
    behind autograd's back. `loss`: the value of the root, where there is one root of one element.
    """

    cuts: tuple[Cut, ...] = ()
    damage: tuple[Damage, ...] = ()
    units: tuple[Units, ...] = ()
    broadcasts: tuple[Broadcast, ...] = ()
    underflows: tuple[int, ...] = ()
    earlier: int | None = None
    backwards: Mapping[int, Source] = field(default_factory=dict)
    altered: tuple[Altered, ...] = ()
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of the run beside one report.

    `calls` counts the user's own backward calls; `last` is True for the last report of a run, which carries
    what is said once for the whole run. `complete`: the run went to its end, so what was not seen did not
    happen. `optimizing`: there was an optimizer. `derived`: some backward made a graph of its own, so that
    losses may be made of derivatives. `parameters` leaves out what was reached and is gone.
    """

    calls: int = 0
    last: bool = True
    scripted: bool = False
    complete: bool = True
    optimizing: bool = False
    derived: bool = False
    parameters: tuple[ParameterFact, ...] = ()
    looked: Looked = Looked()
    reused: Reused | None = None
    starved: tuple[Starved, ...] = ()
    unlisted: tuple[Unlisted, ...] = ()
    unstepped: tuple[Unstepped, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    growth: Growth | None = None
    reads: tuple[tuple[Source, str], ...] = ()
