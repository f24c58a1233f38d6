"""Pictures of signals, searches and races. matplotlib is imported on use (`pip install "funcopt[race]"`)."""

from funcopt.core.door.namespaces import open_up
from funcopt.viz.multiples import Panel, panels
from funcopt.viz.racing import race
from funcopt.viz.search import search
from funcopt.viz.words import signals

__all__ = ["Panel", "panels", "race", "search", "signals"]

open_up(__name__, "viz.")
del open_up
