"""Whether the rate of a transformation can be found from its steps: told by what it declares, `one_length` and `own_rate`."""

from collections.abc import Sequence

from funcopt.core.protocol import GradientTransformation
from funcopt.core.wrap import links_with

__all__ = ["check_search", "unfindable"]


def unfindable(tx: GradientTransformation) -> str | None:
    """Why nobody finds the rate of a transformation, beginning with the link that is the reason; None where it can be found."""
    traits = tx.traits
    if not (traits.one_length or traits.own_rate):
        return None
    if traits.one_length:
        link = next(links_with(tx, lambda traits: traits.one_length), tx)
        return (
            f"{link.name} takes steps of one length whatever the gradient, so that the angle between a step and the next gradient "
            "does not tell whether it was too long"
        )
    return f"{next(links_with(tx, lambda traits: traits.own_rate), tx).name} finds its own rate"


def check_search(links: Sequence[GradientTransformation]) -> None:
    """Raises where a link that finds the rate of what stands to its right has to its right whose rate cannot be found."""
    for i, link in enumerate(links):
        if link.traits.own_rate and link.traits.must_be_heard:
            for other in links[i + 1 :]:
                if (reason := unfindable(other)) is not None:
                    raise ValueError(f"{_finder(link).name}: {reason}; leave the search out, and give a step of one length its rate")


def _finder(link: GradientTransformation) -> GradientTransformation:
    return next(links_with(link, lambda traits: traits.own_rate and bool(traits.must_be_heard)), link)
