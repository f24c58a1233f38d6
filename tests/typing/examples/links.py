"""What an editor knows of `fo` itself: links, chains, steps, and the namespaces that are imported on first use."""

import torch
from torch import Tensor
from typing_extensions import assert_type

import funcopt as fo

tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(1e-3, weight_decay=0.1))
params = {"w": torch.ones(2)}
state = tx.init(params)
updates, state = tx.update(params, state, params)
assert_type(updates, dict[str, Tensor])
assert_type(fo.scale_by_adam().init(params), fo.ScaleByAdamState)
assert_type(fo.scale_by_adam().init(params).count, Tensor)
assert_type(fo.read_signals(state), dict[str, Tensor])


def loss_fn(params: dict[str, Tensor], x: Tensor) -> Tensor:
    return (params["w"] * x).sum()


step = fo.make_step(loss_fn, tx, compile=False, flat="auto")
assert_type(step, fo.Step)
assert_type(fo.check(tx), fo.Checked)
fo.schedules.cosine_decay_schedule(0.1, 100)
fo.population.make_step(loss_fn, tx)
fo.checkpoint.state_dict(state)
assert fo.viz.signals is not None
assert fo.distributed.mean is not None
assert fo.race.run is not None
