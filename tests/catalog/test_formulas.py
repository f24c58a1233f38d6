"""Formulas at the heads of files become mathematics: pieces that a reader of LaTeX takes, of which none loses a letter."""

import inspect
import re
import sys

import pytest

from funcopt.catalog.reading import public_names
from scripts.formulas import latex, typeset, words

HEADS = sorted(
    {
        inspect.unwrap(public.value).__module__
        for public in public_names()
        if public.family in ("transforms", "optimizers", "controllers", "es")
    }
)


@pytest.mark.parametrize(
    "formula, wanted",
    [
        ("mu_t = b1 * mu_{t-1} + (1 - b1) * g_t", r"\mu_{t} = b_{1} \, \mu_{t-1} + (1 - b_{1}) \, g_{t}"),
        ("u_t = m / (sqrt(v + eps_root) + eps)", r"u_{t} = m / (\sqrt{v + \varepsilon_{\mathrm{root}}} + \varepsilon)"),
        ("e_x_{t-1}", r"e_{x,t-1}"),
        ("mu_i,t-1", r"\mu_{i,t-1}"),
        ("m^ + b2 * v^", r"\hat{m} + b_{2} \, \hat{v}"),
        ("||g||^2", r"\lVert g\rVert ^{2}"),
        ("1 - b1^(t+1)", r"1 - b_{1}^{t+1}"),
        ("c_t = -<g_t, u_t>", r"c_{t} = -\langle g_{t} ,\, u_{t} \rangle"),
        ("u = m where r >= threshold", r"u = m\,\text{ where }\,r \ge \mathrm{threshold}"),
        ("max(out / in, 1)", r"\operatorname{max}(\mathrm{out} / \mathrm{in},\, 1)"),
    ],
)
def test_a_formula_as_latex(formula, wanted):
    assert latex(formula) == wanted


def test_brackets_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="no closing"):
        latex("sqrt(v + eps")


def test_what_stands_apart_in_a_line_may_stand_below_it_on_a_narrow_page():
    assert typeset("    m = g,   v = g^2          (the default)").splitlines()[1] == "$m = g$, &emsp; $v = g^{2}$ &emsp; (the default)"


def test_words_between_formulas_wrap_as_words():
    line = "    w = 1 while held; the search opens again as soon as P_t > 24"
    assert typeset(line).splitlines()[1] == "$w = 1$ while held; the search opens again as soon as $P_{t} > 24$"


def test_words_are_safe_from_markup():
    assert words("d_t the diagonal of H * `x_y` <z>") == r"$d_{t}$ the diagonal of H \* `x_y` \<z\>"


@pytest.mark.parametrize("module", HEADS)
def test_every_head_is_set_with_braces_that_match(module):
    head = inspect.getdoc(sys.modules[module]) or ""
    for line in head.splitlines():
        if line.startswith("    "):
            for formula in re.findall(r"\$([^$]+)\$", typeset(line)):
                assert formula.count("{") == formula.count("}") and not re.search(r"_\{[^{}]*\}_|\}\^\{[^{}]*\}\^", formula), (
                    f"{module}: {line} gives {formula}"
                )
