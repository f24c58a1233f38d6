"""What `adaptive` is told: rules by which a hyperparameter follows the loss and the reward.

    adaptive(adamw, lr=trend(1e-3) * variance(), betas=(relative(0.9), variance(0.999)), reward="trend")

| rule | for | in one line |
|---|---|---|
| `trend` | lr, weight_decay, reward | a little up with each better verdict, a little more down with each worse one |
| `variance` | lr, averaging, reward | damped by the variance of the window |
| `cosine`, `cosine_restart` | lr | half a cosine of the clock |
| `inverse`, `relative`, `normalized`, `stable` | averaging | memories that follow level, verdict, surprise, variance |
| `scaling` | reward | a rate in proportion to the reward |
"""

from funcopt.core.door.namespaces import open_up
from funcopt.rules.cosine import cosine, cosine_restart
from funcopt.rules.level import inverse, normalized, scaling
from funcopt.rules.rule import Product, Rule, absolute
from funcopt.rules.trend import relative, trend
from funcopt.rules.variance import stable, variance

__all__ = [
    "RULES",
    "Product",
    "Rule",
    "absolute",
    "cosine",
    "cosine_restart",
    "inverse",
    "named",
    "normalized",
    "relative",
    "scaling",
    "stable",
    "trend",
    "variance",
]

RULES = {rule.__name__: rule for rule in (cosine, cosine_restart, inverse, normalized, relative, scaling, stable, trend, variance)}


def named(text: str) -> Rule | Product:
    """The rules of a string such as "trend+variance", with their default parameters.

    Args:
        text: names of rules with "+" between them.

    Returns:
        One rule, or a product of several.

    Raises:
        ValueError: a name is not known, or stands twice.

    Example:
        >>> fo.rules.named("trend")
        Trend(base=None, up=None, down=None, step=None)
    """
    names = [name.strip() for name in text.replace("*", "+").split("+")]
    for name in names:
        if name not in RULES:
            raise ValueError(f"rules: the rules are {', '.join(RULES)}, got {name!r}")
    rules = [RULES[name]() for name in names]
    return rules[0] if len(rules) == 1 else Product.of(*rules)


open_up(__name__)
del open_up
