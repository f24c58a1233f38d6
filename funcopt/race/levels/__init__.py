"""Levels of difficulty: which optimizer gets stuck on what, without an error. `python -m funcopt race levels`."""

from funcopt.race.levels.batch import BATCH
from funcopt.race.levels.beale import BEALE
from funcopt.race.levels.chain import EXPLODING, VANISHING
from funcopt.race.levels.kind import LEVELS, Kind
from funcopt.race.levels.kink import KINK
from funcopt.race.levels.plateau import PLATEAU
from funcopt.race.levels.quadratic import QUADRATIC
from funcopt.race.levels.rosenbrock import ROSENBROCK
from funcopt.race.levels.saddle import SADDLE
from funcopt.race.levels.xor import XOR

__all__ = ["KINDS", "LEVELS", "Kind"]

KINDS = {kind.name: kind for kind in (QUADRATIC, BATCH, SADDLE, PLATEAU, VANISHING, EXPLODING, KINK, ROSENBROCK, BEALE, XOR)}
