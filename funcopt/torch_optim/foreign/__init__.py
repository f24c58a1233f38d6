"""Optimizers of torch as transformations."""

from funcopt.torch_optim.foreign.from_torch import FromTorch as FromTorch, FromTorchState as FromTorchState, from_torch as from_torch
