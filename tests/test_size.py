"""scripts/size.py counts what stands there, and what should be written once is not written more often than it is."""

import pytest

from scripts import size

PACKAGE = size.ROOT / "funcopt"
# One each, and one more for the engine ahead of time (`size.WHY`).
AT_MOST = {"write back a step": 2, "decide on flat": 1, "compile": 2}

STEP = """
def step(old, new):
    def late():
        foreach_copy_(old, new)
        versions.foreach_copy_(old, new)
    for x, y in zip(old, new):
        x.copy_(y)
    return late

def flat(leaves):
    return len(leaves) >= MANY_LEAVES

def compiled(f):
    return torch.compile(f), outside_autocast(compile_fx_inner, f)

def looks(x):
    return x.copy()
"""


def test_counts_files_lines_and_places(tmp_path, capsys):
    for name, text in (("core/step.py", STEP), ("core/empty.py", ""), ("viz/plot.py", "x.copy_(y)\n"), ("__init__.py", "import core\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert size.counted(tmp_path) == {"": (1, 1), "core": (2, len(STEP.splitlines())), "viz": (1, 1)}
    assert size.places(tmp_path, "write back a step") == [("core/step.py", 4, "late"), ("core/step.py", 7, "step")]
    assert [place.function for place in size.places(tmp_path, "decide on flat")] == ["flat"]
    assert [place.function for place in size.places(tmp_path, "compile")] == ["compiled"]
    size.main([str(tmp_path), "--places"])
    said = capsys.readouterr().out
    assert "core                  2" in said and "places that compile: 1\n  core/step.py:14 compiled" in said


@pytest.mark.parametrize("question", size.QUESTIONS)
def test_no_place_more(question):
    found = size.places(PACKAGE, question)
    listing = "\n  ".join(f"{place.file}:{place.line} {place.function}" for place in found)
    assert found and len(found) <= AT_MOST[question], f"{len(found)} places {question}, at most {AT_MOST[question]}:\n  {listing}"


def test_what_is_no_step_is_still_there():
    there = {(place.file, place.function) for place in size.asked_for(PACKAGE, "write back a step")}
    stale = [key for key in size.NOT_A_STEP if key not in there]
    assert not stale, f"NOT_A_STEP of scripts/size.py names what is no longer there: {stale}"
