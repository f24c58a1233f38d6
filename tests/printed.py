"""What an example shows against what comes out: numbers may differ by rounding, and by nothing else.

pytest's own flag NUMBER takes `tensor(1.)` for `tensor(2.)`: it compares as many digits as are written behind the
point, and torch writes none where all entries are whole.
"""

import doctest
import re

__all__ = ["DIGITS", "PrintedNumbers", "with_numbers_of"]

DIGITS = 4  # of the mantissa behind the point, as torch prints them; whoever writes more means more
NUMBER = re.compile(r"[+-]?(?:\d+\.(\d*)|\.(\d+)|\d+(?=[eE]))(?:[eE]([+-]?\d+))?")


def tolerance(number: re.Match[str]) -> float:
    """One unit of the last digit that is meant."""
    return 10.0 ** (int(number[3] or 0) - max(DIGITS, len(number[1] or number[2] or "")))


def with_numbers_of(want: str, got: str) -> str:
    """`got` with each number written as in `want` where the two are the same but for rounding."""
    wanted, found = list(NUMBER.finditer(want)), list(NUMBER.finditer(got))
    if len(wanted) != len(found):
        return got
    for here, there in reversed(list(zip(wanted, found, strict=True))):
        if abs(float(here[0]) - float(there[0])) <= 1.001 * tolerance(here):  # the binary rounding of the two themselves
            got = got[: there.start()] + here[0] + got[there.end() :]
    return got


class PrintedNumbers(doctest.OutputChecker):
    """doctest's checker, for which 0.3333 and 0.3334 are one number, 1. and 1.0000 too, and 1. and 2. are not."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Whether `got` is what the example shows."""
        return super().check_output(want, got, optionflags) or super().check_output(want, with_numbers_of(want, got), optionflags)
