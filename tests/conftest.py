"""Hypothesis without deadlines (a first call compiles), and without surprises where nobody watches; what old torches skip."""

import os
import sys

import pytest
import torch
from hypothesis import settings

from funcopt.core.versions import TORCH

pytest.register_assert_rewrite("tests.helpers")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

if TORCH < (2, 10):  # whose compiler takes a part of our trees alone
    _compile = torch.compile

    def _skipped(*arguments, **options):
        pytest.skip(f"torch {torch.__version__}: compiled from 2.10 on")

    def _compiled_by_newer_ones(*arguments, **options):
        """What tests find in the place of torch.compile; the library finds what there is."""
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("tests."):
            return _compile(*arguments, **options)
        return _skipped() if "PYTEST_CURRENT_TEST" in os.environ else _skipped  # the latter while a file of tests is read

    torch.compile = _compiled_by_newer_ones
