"""The protocol and tree arithmetic: torch and the tree library, nothing else of ours."""

from funcopt.core import check, random, sharded, signals, tree
from funcopt.core.apply import apply_updates, incremental_update, periodic_update
from funcopt.core.chain import chain, identity, named_chain, stateless
from funcopt.core.math import moments, numerics
from funcopt.core.protocol import EmptyState, GradientTransformation, Scalar, ScalarOrSchedule, Schedule, TensorTree
from funcopt.core.signals import Signals, Speaks, read_signals, scoped
from funcopt.core.states.find import find, find_all, replace

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "Signals",
    "Speaks",
    "TensorTree",
    "apply_updates",
    "chain",
    "check",
    "find",
    "find_all",
    "identity",
    "incremental_update",
    "moments",
    "named_chain",
    "numerics",
    "periodic_update",
    "random",
    "read_signals",
    "replace",
    "scoped",
    "sharded",
    "signals",
    "stateless",
    "tree",
]
