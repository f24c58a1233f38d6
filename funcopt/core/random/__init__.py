"""Random numbers as pure functions of a key: `fo.random`. What is drawn is in draws.py, keys in keys.py, the words in philox.py."""

from funcopt.core.random.draws import bits, host_int, normal, rademacher, randint, readable, uniform
from funcopt.core.random.keys import advance, as_key, fold_in, key, member, split

__all__ = [
    "advance",
    "as_key",
    "bits",
    "fold_in",
    "host_int",
    "key",
    "member",
    "normal",
    "rademacher",
    "randint",
    "readable",
    "split",
    "uniform",
]
