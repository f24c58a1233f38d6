"""XOR of a sequence: a small recurrent network says after every bit whether it has seen an odd number of ones.

    h_t = tanh(W h_{t-1} + U x_t + b),  l_t = V h_t      x_t = +-1, h of 12 units; the logistic loss of l_t against the parity of x_1 .. x_t
    mean over positions 1 .. d; the value is over all 64 sequences

No single bit tells anything, and gradients pass through time. LightBench: xor_sequence_rnn.py.
"""

import torch
import torch.nn.functional as F

from funcopt.race.levels.kind import Kind

__all__ = ["XOR"]

UNITS, LONGEST, BATCH = 12, 6, 16
ALL = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * LONGEST)  # [64, 6]


def init(z, d):
    w, u, v = z.split((UNITS * UNITS, UNITS, UNITS))
    return {
        "w": w.reshape(UNITS, UNITS) / UNITS**0.5,
        "u": u.reshape(UNITS, 1).clone(),
        "b": torch.zeros_like(u).reshape(UNITS, 1),
        "v": v.reshape(1, UNITS) / UNITS**0.5,
    }


def mean_loss(params, x, d):
    odd = (x < 0).cumsum(1) % 2  # -1 stands for a one
    h = x.new_zeros(UNITS, len(x))
    losses = []
    for t in range(LONGEST):
        h = torch.tanh(params["w"] @ h + params["u"] * x[:, t] + params["b"])
        losses.append(F.binary_cross_entropy_with_logits((params["v"] @ h)[0], odd[:, t].to(x.dtype)))
    return torch.where(torch.arange(LONGEST) < d, torch.stack(losses), 0.0).sum() / d


def objective(params, z, d):
    return mean_loss(params, z.sign(), d)


def value(params, d):
    return mean_loss(params, ALL, d)


XOR = Kind(
    "xor",
    "parity of a sequence by a recurrent network",
    "bits",
    (2, 3, 4, 6),
    0.1,
    (UNITS * (UNITS + 2),),
    (BATCH, LONGEST),
    init,
    objective,
    value,
)
