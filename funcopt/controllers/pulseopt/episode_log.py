"""episode_log: what the bandits did, one entry per closed episode, from the states of a run.

Reference: `get_logs()` of pulseopt 0.3.0, whose names and lists these are.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from funcopt.controllers.pulseopt.episodes import BUCKETS
from funcopt.controllers.pulseopt.episodic import REPORT, UcbEpisodesState
from funcopt.core import EmptyState, find

__all__ = ["episode_log"]

COLUMNS = {
    "selected_lr_indices": "lr_arm",
    "selected_noise_indices": "noise_arm",
    "selected_lr_values": "lr_multiplier",
    "selected_noise_values": "noise_std",
    "episode_rewards": "reward",
    "episode_start_steps": "first_step",
    "episode_start_losses": "first",
    "episode_end_losses": "last",
    "episode_ema_loss_starts": "start",
    "episode_ema_loss_ends": "ema",
    "reward_base": "base",
    "reward_instability": "instability",
    "reward_penalty": "penalty",
    "reward_final_unclipped": "unclipped",
    "reward_final_clipped": "reward",
}
WHOLE = ("lr_arm", "noise_arm", "first_step", "steps", "bucket", "episode")


def episode_log(history: Iterable[Any], update_norms: Sequence[float] | None = None) -> dict[str, list[Any]]:
    """The log of a run in the form of the reference: a dict of lists with one entry per closed episode.

    Args:
        history: the states after every step, in order, and those that `finalize` gave;
            states of `ucb_episodes` or of anything that holds one. More seldom ones do as
            long as no episode falls between two of them. Of a vmapped run take one lane:
            `tree.map(lambda x: x[lane], state)`.
        update_norms: the norm of every step's update; adds `mean_update_norms`.

    Returns:
        The lists of the reference. Episodes without a reward have 0 there, and NaN where it
        was not defined.

    Raises:
        KeyError: a state holds no `UcbEpisodesState`, or several.
        ValueError: an episode is missing.

    Example:
        >>> tx = fo.ucb_episodes((0.5, 2.0), episode_length=2, seed=0)
        >>> state, history = tx.init(torch.zeros(1)), []
        >>> for loss in (4.0, 2.0, 1.0, 1.0):
        ...     _, state = tx.update(torch.ones(1), state, loss=loss)
        ...     history.append(state)
        >>> fo.episode_log(history)["episode_start_steps"]
        [0, 2]
    """
    reports, contexts = [], False
    for state in history:
        state = find(state, UcbEpisodesState)
        contexts = not isinstance(state.ends, EmptyState)
        if int(state.episode) <= len(reports):
            continue
        report = dict(zip(REPORT, state.report.tolist(), strict=True))
        report.update({name: int(report[name]) for name in WHOLE})
        if report["episode"] != len(reports):
            raise ValueError(
                f"episode_log: needs a state of every episode, got none between episodes {len(reports) - 1} and {report['episode']}"
            )
        reports.append(report)
    log = {column: [report[name] for report in reports] for column, name in COLUMNS.items()}
    log["selected_combined_names"] = [_name(report["lr_multiplier"], report["noise_std"]) for report in reports]
    log["episode_end_steps"] = [report["first_step"] + report["steps"] - 1 for report in reports]
    if update_norms is not None:
        log["mean_update_norms"] = [sum(update_norms[r["first_step"] : r["first_step"] + r["steps"]]) / r["steps"] for r in reports]
    if contexts:
        log["context_buckets"] = [BUCKETS[report["bucket"]] for report in reports]
    return log


def _name(lr_multiplier: float, noise_std: float) -> str:
    return f"lr{lr_multiplier:.12g}_n{noise_std:.12g}".replace("-", "m").replace(".", "p")
