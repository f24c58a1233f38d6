"""Objectives for worker processes, which find them by their module."""

import os

import torch


def bowl(params, target):
    return (params["w"] - target).square().sum()


def moody(params, target, mood):
    """A Python number with something beside it; fails or dies where the first parameter is above zero, if it is in the mood."""
    if mood == "always fails" or (mood == "fails" and params["w"][0] > 0):
        raise ArithmeticError("not here")
    if mood == "dies" and params["w"][0] > 0:
        os._exit(3)
    return float((params["w"] - target).square().sum()), {"half": params["w"] / 2, "process": os.getpid()}


def keyed(params, target, key):
    return params["w"].sum() + key[0].remainder(1000).to(torch.float32)
