"""AEES around an optimizer, as PulseOpt is: the bandits of `ucb_episodes`, then the optimizer.

    u_t = inner(g_t + nu z_t) * mu        noise before the optimizer's moments, the multiplier on its whole step, decay included

Source: PulseOpt, github.com/davidkfoss/pulseopt. Reference: pulseopt 0.3.0.
"""

from collections.abc import Sequence
from typing import Any

from funcopt.controllers.pulseopt.episodic import UcbEpisodes
from funcopt.controllers.pulseopt.ucb_episodes import Keywords, ucb_episodes
from funcopt.core import GradientTransformation, TensorTree, chain
from funcopt.core.door.callers import warn
from funcopt.core.door.kinds import stranger
from funcopt.core.signals import acted_on, open_signals
from funcopt.core.typed import Unpack
from funcopt.core.wrap import WHOLE, wrapped
from funcopt.transforms.lr_scale import scale_by_signal

__all__ = ["aees"]

# Its episodes of 50 or 100 steps give three arms a dozen rewards in a run, of which each compares with the loss of one batch, under a
# bonus ten times as large as they are: a choice that is no better than drawing arms (`python benchmarks/sentence.py bandit`).
PUBLISHED = {"reward": "log", "exploration": 1.0}


def aees(
    inner: GradientTransformation,
    lr_candidates: Sequence[float] = (1.0,),
    noise_candidates: Sequence[float] = (0.0,),
    *,
    episode_length: int = 100,
    **settings: Unpack[Keywords],
) -> UcbEpisodes:
    """AEES around an optimizer: `chain(ucb_episodes(...), inner)` with the reference's defaults.

    Those are one arm each, a factor of 1 and no noise: `inner` to the last bit, which is warned
    of, and with arms the published reward and exploration ("log", 1.0). `ucb_episodes` alone has
    arms by default, since a link is put in a chain to do something, and those that help it choose.

    Args:
        inner: any optimizer that hears `lr_multiplier` (all ready-made ones do); one
            that does not has its whole step multiplied, by `scale_by_signal`.
        lr_candidates, noise_candidates, episode_length, settings: as in `ucb_episodes`.

    Returns:
        A transform with the state of that chain, and `finalize(state) -> state`.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        those of `ucb_episodes` and of `inner`.

    Raises:
        TypeError: `inner` is not a transformation.

    Example:
        >>> tx = fo.aees(fo.sgd(0.1), lr_candidates=(0.5,), episode_length=4)
        >>> tx.update(torch.tensor([2.0]), tx.init(torch.zeros(1)), loss=1.0)[0]
        tensor([-0.1000])
    """
    if not isinstance(inner, GradientTransformation):
        raise TypeError(f"aees: inner must be a GradientTransformation, {stranger(inner)}")
    warn_of_idle_arms("aees", lr_candidates, noise_candidates)
    return around(inner, lr_candidates, noise_candidates, episode_length=episode_length, **settings)


def warn_of_idle_arms(where: str, lr_candidates: Sequence[float], noise_candidates: Sequence[float]) -> None:
    if tuple(lr_candidates) == (1.0,) and tuple(noise_candidates) == (0.0,):
        warn(
            f"{where}: changes nothing with one factor of 1 and no noise: "
            "its steps are those of the inner optimizer, though it needs the loss; "
            "give it arms, lr_candidates=(0.5, 1.0, 2.0) or noise_candidates=(0.0, 0.005)"
        )


def around(
    inner: GradientTransformation, lr_candidates: Sequence[float], noise_candidates: Sequence[float], **settings: Any
) -> UcbEpisodes:
    """`aees`, without its questions."""
    settings = {**PUBLISHED, **settings}
    episodic = ucb_episodes(lr_candidates, noise_candidates, **settings)
    said = [word for word in episodic.must_be_heard if word not in acted_on(inner.hears)]
    return _opened(chain(episodic, inner, *map(scale_by_signal, said)))


def _opened(links: GradientTransformation) -> UcbEpisodes:
    """The chain as one transformation, whose words of the step before its links hear."""

    def update(updates: TensorTree, state: tuple[Any, ...], params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        return links.update(updates, state, params, signals=open_signals(signals, state), **extra)

    return wrapped(links.init, update, links, WHOLE, kind=UcbEpisodes, name="aees", leaves=links.leaves, links=links.links, again=_opened)
