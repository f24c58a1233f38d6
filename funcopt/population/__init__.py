"""Many copies of one model with their own hyperparameters, seeds and data order, trained in one step: `fo.population`.

A population is trees with a leading axis of copies. `make_step` trains them (step.py);
`best` and `exploit_explore` choose between them (selection.py); the rest makes such
trees and takes them apart (copies.py).
"""

from funcopt.core.door.namespaces import open_up
from funcopt.population.copies import member as member, permutations as permutations, repeat as repeat, stack as stack
from funcopt.population.selection import best as best, exploit_explore as exploit_explore
from funcopt.population.step import PopulationState as PopulationState, PopulationStep as PopulationStep, make_step as make_step

open_up(__name__, "population.", classes=("PopulationStep",))
del open_up
