"""What an editor offers for a word out of a list is the list that the code looks at: each public parameter that is typed by words."""

import inspect
import re
import types
import warnings
from functools import partial
from typing import Literal, Union, get_args, get_origin

import pytest
import torch

import funcopt as fo
from funcopt.torch_optim.classes.make import OPTIONS, FromFactory
from tests.core.test_front import call_with, public

# What is needed before the word is looked at.
BESIDE = {
    "describe_groups": {"labels": {"w": "a"}, "params": {"w": torch.ones(2)}},
    "sam": {"optimizer": fo.sgd(0.1)},
    "unroll": {"carry": torch.ones(2), "steps": 2},
}
MADE = {"es.Domain", "es.GymnasiumRollout"}  # by a function, which has looked


def words(annotation):
    """The words that an annotation allows; empty where it has no list."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return {word for part in parts if get_origin(part) is Literal for word in get_args(part) if isinstance(word, str)}


CHOICES: dict[str, list[tuple]] = {}  # by namespace
for name, value in public().items():
    made = inspect.isclass(value) and issubclass(value, FromFactory) and value is not fo.torch_optim.adamw
    for parameter in inspect.signature(value).parameters.values():
        if name not in MADE and (allowed := words(parameter.annotation)) and not (made and parameter.name in OPTIONS):
            CHOICES.setdefault(name.partition(".")[0], []).append((name, value, parameter, allowed))


@pytest.mark.parametrize("space", CHOICES)
def test_words_are_those_that_are_looked_for(space):
    assert [case for name, *case in CHOICES[space] if looked_for(*case) != case[-1]] == []


def looked_for(value, parameter, allowed):
    """The words that a refusal names."""
    with warnings.catch_warnings(), pytest.raises(ValueError) as stopped:
        warnings.simplefilter("ignore")
        call_with(partial(value, **BESIDE.get(value.__name__, {})), parameter, "no such word")
    told = re.search(rf"{parameter.name}\b.* must be (.*), got 'no such word'", stopped.value.args[0])
    return told and set(re.findall(r"'([^']*)'", told[1]))


def test_there_are_many_choices():
    assert sum(map(len, CHOICES.values())) > 100
