"""What an editor and a type checker know of the package: examples that mypy reads here (and pyright in `lint`), and the printed classes."""

import ast
import inspect
import operator
import runpy
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import pytest

import funcopt as fo
from funcopt.controllers.pulseopt import ucb_episodes
from funcopt.controllers.roulette import roulette
from funcopt.es import keywords, options
from scripts import stubs

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "tests" / "typing" / "examples").glob("*.py"))
MISTAKES = ROOT / "tests" / "typing" / "examples" / "mistakes.py"


def test_mypy_sees_what_the_examples_say(tmp_path):
    line = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(tmp_path)]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, f"{said.stdout}{said.stderr}"  # an ignore in mistakes.py that is not needed is an error, too


@pytest.mark.parametrize("example", [path for path in EXAMPLES if path != MISTAKES], ids=lambda path: path.stem)
def test_what_is_typed_runs(example):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(example))


def test_what_a_checker_marks_is_refused_at_run_time():
    text = MISTAKES.read_text(encoding="utf-8")
    names, refused = {}, 0
    for statement in ast.parse(text).body:
        code = compile(ast.Module([statement], []), str(MISTAKES), "exec")
        if text.splitlines()[statement.lineno - 1].endswith("# type: ignore"):
            with warnings.catch_warnings(), pytest.raises((AttributeError, TypeError, ValueError)):
                warnings.simplefilter("ignore")
                exec(code, names)
            refused += 1
        else:
            exec(code, names)
    assert refused == text.count("# type: ignore") >= 10


def test_the_printed_classes_are_those_of_the_code():
    assert stubs.STUB.read_text(encoding="utf-8") == stubs.text(), "write it anew: python scripts/stubs.py --write"


def printed():
    return ast.parse(stubs.STUB.read_text(encoding="utf-8")).body


def test_the_printed_file_shows_every_public_name_and_no_other():
    shown = {node.name for node in printed() if isinstance(node, ast.ClassDef)}
    shown |= {alias.asname for node in printed() if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname == alias.name}
    public = {name for name, value in vars(fo.torch_optim).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert shown == public


def test_a_printed_constructor_takes_what_the_class_takes():
    wrong = []
    for node in printed():
        if isinstance(node, ast.ClassDef):
            (constructor,) = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            takes = list(inspect.signature(getattr(fo.torch_optim, node.name)).parameters.values())
            if as_printed(constructor.args) != [(p.kind, p.name, written(p.default)) for p in takes]:
                wrong.append(node.name)
    assert not wrong


def written(default):
    return ... if callable(default) and default is not inspect.Parameter.empty else default


def as_printed(given):
    """Kind, name and default of every argument but `self`."""
    empty = [None] * (len(given.args) - len(given.defaults))
    places = [("POSITIONAL_OR_KEYWORD", *pair) for pair in zip(given.args, [*empty, *given.defaults], strict=True)][1:]
    words = [("KEYWORD_ONLY", *pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    rest = [] if given.kwarg is None else [("VAR_KEYWORD", given.kwarg, None)]
    return [
        (getattr(inspect.Parameter, kind), argument.arg, inspect.Parameter.empty if default is None else ast.literal_eval(default))
        for kind, argument, default in (*places, *words, *rest)
    ]


def test_namespaces_of_first_use_are_known_to_checkers():
    (known,) = [node for node in ast.parse((ROOT / "funcopt" / "__init__.py").read_text(encoding="utf-8")).body if is_for_checkers(node)]
    assert sorted(alias.name for line in known.body for alias in line.names) == sorted(fo.ON_FIRST_USE)


def is_for_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


OF_ES = {**typing.get_type_hints(options.Estimand), **typing.get_type_hints(options.Execution)}
HANDED_ON = {  # the keywords of a function, those that they are part of, and which of these it does not take or names itself
    "es.run": (keywords.Evaluation, typing.get_type_hints(options.Execution), {"process_group"}),
    "es.evaluator": (keywords.Evaluation, typing.get_type_hints(options.Execution), {"process_group"}),
    "es.grad_and_value": (keywords.Estimation, OF_ES, {"popsize", "sigma"}),
    "es.estimator": (keywords.Estimation, OF_ES, {"popsize", "sigma"}),
    "es.layerwise": (keywords.LayerEstimation, OF_ES, {"popsize", "sigma", "maximize"}),
    "es.differentiable": (keywords.Differentiation, OF_ES, {"popsize", "sigma", "maximize", "shaping", "has_aux", "weights"}),
    "aees": (
        ucb_episodes.Keywords,
        typing.get_type_hints(fo.ucb_episodes),
        {"lr_candidates", "noise_candidates", "episode_length", "return"},
    ),
    "optiroulette": (roulette.Keywords, typing.get_type_hints(fo.roulette), {"pool", "return"}),
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_keywords_that_are_handed_on_are_those_of_whom_they_reach(name):
    kinds, reached, without = HANDED_ON[name]
    function = inspect.unwrap(operator.attrgetter(name)(fo))
    (told,) = typing.get_args(next(p for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD).annotation)
    assert told is kinds
    assert typing.get_type_hints(kinds) == {word: kind for word, kind in reached.items() if word not in without}
