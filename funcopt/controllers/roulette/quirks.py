"""The quirks of OptiRoulette 0.1.0 that `parity=True` reproduces, each by its number in the table of docs/methods/roulette.md.

Each is read where it applies, and there alone. What each does, and what is done here instead, is shown in both
numbers in tests/controllers/test_roulette_quirks.py.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Quirks:
    """Which of them are reproduced."""

    rules_without_groups: bool = False  # Q1: rules at switches do not know groups
    compounds: bool = False  # Q2: factors compound over visits
    rules_twice_at_swaps: bool = False  # Q3: a swap has rules of its own, and those of the switch apply as well
    phase_keeps_lock: bool = False  # Q4: a phase set by hand leaves the warm-up's lock on
    always_at_epochs: bool = False  # Q5: the probability is ignored at epochs
    swap_breaks_lock: bool = False  # Q7: a locked member is swapped, and who was swapped out has no counter
    swap_of_inactive: bool = False  # Q8: a record of an inactive member takes a backup and raises
    stops_where_all_are_blocked: bool = False  # Q10: an exception half-way
    epochs_by_hand: bool = False  # Q11: the end of an epoch records nothing, and nothing ages by itself
    nan_succeeds: bool = False  # Q12: a NaN fails nothing, and enters averages and the window of the warm-up
    marks_fade: bool = False  # Q13: instability is erased by the next good record, cuts are for ever and may raise a small rate
    reserve_needs_groups: bool = False  # Q14: reserves are used only with compatibility data
    averages_without_count: bool = False  # Q15: averages come without their count, whatever the units, between those that have run
    swallows: bool = False  # Q17: names and reports that mean nothing here are passed over
    relaxes_by_factor: bool = False  # Q19: the threshold is multiplied, and so stricter where it is positive
    drops_in_every_epoch: bool = False  # Q20: a dropped member is blocked again in every epoch
    zero_may_draw: bool = False  # Q23: u <= p
    silent_preferences: bool = False  # Q25: no word where a group rules a preference out
    keeps_nan: bool = False  # a member that is drawn with a NaN in its state goes on with it
    rates_are_given: bool = False  # there are no members that find their rates


NONE = Quirks()
REFERENCE = Quirks(**{field.name: True for field in fields(Quirks)})
