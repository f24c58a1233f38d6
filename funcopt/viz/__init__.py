"""Pictures of signals and races. matplotlib is imported on use (`pip install "funcopt[race]"`)."""

from funcopt.viz.racing import race
from funcopt.viz.words import signals

__all__ = ["race", "signals"]
