"""Diagnoses: one module per finding, each with its rule stated. Errors come first.

`diagnose(report, evidence)` runs them all, in the order of the imports' registration; `CODES` lists what
is looked for.
"""

from __future__ import annotations

# The order of these imports is the order in which findings of one severity are listed: what ended the
# backward, what entered the graph wrongly, then what gradients show.
from explorer.diagnose import inplace_damage as inplace_damage  # isort: skip
from explorer.diagnose import graph_freed as graph_freed  # isort: skip
from explorer.diagnose import saved_value_changed as saved_value_changed  # isort: skip
from explorer.diagnose import wrong_custom_backward as wrong_custom_backward  # isort: skip
from explorer.diagnose import non_finite_gradient as non_finite_gradient  # isort: skip
from explorer.diagnose import non_finite_loss as non_finite_loss  # isort: skip
from explorer.diagnose import broadcast_loss as broadcast_loss  # isort: skip
from explorer.diagnose import cut_graph as cut_graph  # isort: skip
from explorer.diagnose import gradient_killed as gradient_killed  # isort: skip
from explorer.diagnose import stale_accumulation as stale_accumulation  # isort: skip
from explorer.diagnose import step_without_gradient as step_without_gradient  # isort: skip
from explorer.diagnose import unreached_parameter as unreached_parameter  # isort: skip
from explorer.diagnose import unlisted_module as unlisted_module  # isort: skip
from explorer.diagnose import step_never_called as step_never_called  # isort: skip
from explorer.diagnose import unoptimized_parameter as unoptimized_parameter  # isort: skip
from explorer.diagnose import backward_never_called as backward_never_called  # isort: skip
from explorer.diagnose import half_underflow as half_underflow  # isort: skip
from explorer.diagnose import double_softmax as double_softmax  # isort: skip
from explorer.diagnose import softmax_dimension as softmax_dimension  # isort: skip
from explorer.diagnose import growing_graph as growing_graph  # isort: skip
from explorer.diagnose import stuck_units as stuck_units  # isort: skip
from explorer.diagnose import gradient_flow as gradient_flow  # isort: skip
from explorer.diagnose import non_leaf_grad as non_leaf_grad  # isort: skip
from explorer.diagnose import fan_in_cancellation as fan_in_cancellation  # isort: skip
from explorer.diagnose import hook_changed_gradient as hook_changed_gradient  # isort: skip
from explorer.diagnose.registry import DIAGNOSES, diagnose  # isort: skip

CODES = tuple(DIAGNOSES)

__all__ = ["CODES", "DIAGNOSES", "diagnose"]
