"""An example that shows a wrong number fails, under pytest and on the pages."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from tests.printed import PrintedNumbers

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize(
    "want, got",
    [
        ("tensor(1.)", "tensor(2.)"),
        ("tensor(0.)", "tensor(0.0010)"),
        ("tensor(0.5)", "tensor(0.5100)"),
        ("tensor([1., 2.])", "tensor([1., 2., 3.])"),
        ("tensor(1.0000e-05)", "tensor(2.0000e-05)"),
        ("1e-05", "2e-05"),
        ("0.123456", "0.123466"),
        ("3", "4"),
        ("tensor(-1.)", "tensor(1.)"),
    ],
)
def test_another_number_is_another_number(want, got):
    assert not PrintedNumbers().check_output(want + "\n", got + "\n", FLAGS)


@pytest.mark.parametrize(
    "want, got",
    [
        ("tensor([ 1., -1.])", "tensor([ 1.0000, -1.0000])"),
        ("tensor([1.0000-0.5000j])", "tensor([1.-0.5000j])"),
        ("tensor(0.3333)", "tensor(0.3334)"),
        ("tensor([0.])", "tensor([-0.])"),
        ("0.3", "0.30000000000000004"),
        ("tensor(1.0000e-05)", "tensor(1.0001e-05)"),
        ("1e-05", "1.00000001e-05"),
        ("{'w': tensor([2.]), ...}", "{'w': tensor([2.]), 'b': tensor([3.])}"),
    ],
)
def test_rounding_is_no_other_number(want, got):
    assert PrintedNumbers().check_output(want + "\n", got + "\n", FLAGS)


def test_an_example_of_the_code_that_shows_a_wrong_number_fails(tmp_path):
    """With the project's own settings and conftest, in a pytest of its own."""
    module = tmp_path / "shows.py"
    module.write_text('def right():\n    """\n    >>> torch.tensor(1 / 3)\n    tensor(0.3333)\n    """\n')
    module.write_text(module.read_text() + module.read_text().replace("right", "wrong").replace("0.3333", "1."))
    options = "-q -n 0 -p no:cacheprovider -p conftest -c pyproject.toml".split()
    told = subprocess.run([sys.executable, "-m", "pytest", *options, str(module)], cwd=ROOT, capture_output=True, text=True).stdout
    assert "1 failed, 1 passed" in told and "shows.wrong" in told, told


def test_an_example_of_a_page_that_shows_a_wrong_number_fails(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(">>> 1.0 + 1.0\n1.\n>>> 0.1 + 0.2\n0.3\n")
    assert doctest.testfile(str(page), module_relative=False, optionflags=FLAGS) == (1, 2)
