"""The direction of torch.optim.SGD from its settings under torch's names: one reading for every folder of recordings.

d_t = g_t + weight_decay * p,   buf_1 = d_1,   buf_t = momentum * buf_{t-1} + (1 - dampening) * d_t,
u_t = buf_t, or with Nesterov d_t + momentum * buf_t
"""

from collections.abc import Mapping
from typing import Any

import funcopt as fo
from tests.parity.encoding import only_keys

__all__ = ["SGD_SETTINGS", "has_momentum", "sgd_direction"]

SGD_SETTINGS = {"momentum", "dampening", "weight_decay", "nesterov", "maximize"}
HOW_IT_RUNS = {"foreach", "fused", "differentiable", "capturable"}  # change no number


def has_momentum(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("momentum"))


def sgd_direction(where: str, settings: Mapping[str, Any]) -> fo.GradientTransformation:
    """What torch multiplies by -lr; `settings` without lr. A setting that is not torch's is an error."""
    only_keys(f"{where}: sgd", dict(settings), SGD_SETTINGS | HOW_IT_RUNS)
    momentum, dampening = settings.get("momentum") or 0.0, settings.get("dampening") or 0.0
    nesterov, decay = bool(settings.get("nesterov")), settings.get("weight_decay") or 0.0
    if nesterov and (not momentum or dampening):
        raise ValueError(f"{where}: torch takes nesterov with a momentum and without dampening, recorded {dict(settings)}")
    links = [fo.scale(-1.0)] if settings.get("maximize") else []
    links += [fo.add_decayed_weights(decay)] if decay else []
    if momentum and dampening:
        links.append(fo.scale_by_schedule(lambda count: 1 - dampening * (count > 0).double()))  # the first gradient comes undampened
    links += [fo.trace(momentum, nesterov)] if momentum else []
    return fo.chain(*links)
