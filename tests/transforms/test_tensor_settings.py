"""Every number may be a 0-dim tensor: a sweep is a vmap over the factory, equal to the loop and to plain numbers."""

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params

MAKE = {
    "ema": lambda h: fo.ema(h),
    "clip": lambda h: fo.clip(h),
    "clip_by_block_rms": lambda h: fo.clip_by_block_rms(h),
    "clip_by_global_norm": lambda h: fo.clip_by_global_norm(h),
    "adaptive_grad_clip": lambda h: fo.adaptive_grad_clip(h, eps=h),
    "normalize_by_update_norm": lambda h: fo.normalize_by_update_norm(h, h),
    "scale_by_trust_ratio": lambda h: fo.scale_by_trust_ratio(h, h, h),
    "scale_by_param_block_norm": lambda h: fo.scale_by_param_block_norm(h),
    "scale_by_param_block_rms": lambda h: fo.scale_by_param_block_rms(h),
    "reduce_on_plateau": lambda h: fo.reduce_on_plateau(factor=h, rtol=h, atol=h, min_scale=h),
    "lookahead": lambda h: fo.lookahead(fo.sgd(h), 1, h),
    "multi_steps": lambda h: fo.multi_steps(fo.sgd(h), 1),
    "partition": lambda h: fo.partition({"w": fo.sgd(h), "*": fo.adamw(h, weight_decay=h)}, by="path"),
    "masked": lambda h: fo.masked(fo.scale(h), "deep.*"),
    "apply_if_finite": lambda h: fo.apply_if_finite(fo.adam(h), 2),
    "project": lambda h: fo.project(lambda x: fo.projections.projection_l1_ball(x, h)),
}
VALUES = [0.25, 0.75]


@pytest.mark.parametrize("name", MAKE)
def test_a_sweep_is_a_vmap(name):
    params = small_params()

    def step(value):
        tx = MAKE[name](value)
        updates, _ = tx.update(gradients_at(0, params), tx.init(params), params, loss=torch.tensor(1.0))
        return updates

    together = vmap(step)(torch.tensor(VALUES, dtype=torch.float64))
    for lane, value in enumerate(VALUES):
        assert_trees_close(fo.tree.map(lambda u, lane=lane: u[lane], together), step(value))
        assert_trees_close(step(torch.tensor(value, dtype=torch.float64)), step(value))
