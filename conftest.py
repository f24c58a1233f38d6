"""What every test and every doctest stands on: one thread, a seed of its own, and the names `torch` and `fo`."""

import doctest

import pytest
import torch

import funcopt as fo
import funcopt.es  # here first: else pytest, asked for one file of it alone, puts the file in the place of the function of the same name
from tests.printed import PrintedNumbers


def pytest_configure(config):
    # Workers share the cores; more threads than cores only wait for each other.
    torch.set_num_threads(1)
    # pytest's checker of doctests is made of the one that stands there, and `doctest.testfile` takes it as it is.
    doctest.OutputChecker = PrintedNumbers


def pytest_runtest_setup(item):
    # A test that draws from torch's generator draws the same numbers alone, in any order and on any worker.
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _names_that_doctests_know(doctest_namespace):
    doctest_namespace.update(torch=torch, fo=fo)
