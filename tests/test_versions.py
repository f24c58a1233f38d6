"""The page of versions of torch says what was counted, and the script that counts reads pytest rightly."""

import json
import subprocess

import pytest

from scripts import versions

SAID = """....
=========================== short test summary info ============================
SKIPPED [3] tests/conftest.py:20: torch 2.1.2: compiled from 2.10 on
FAILED tests/core/test_a.py::test_b[x - y] - assert 1 == 2
FAILED funcopt/core/tree/__init__.py::funcopt.core.tree.map
ERROR tests/core/test_c.py - AttributeError: [no]
2 failed, 1234 passed, 3 skipped, 56 deselected, 1 error in 12.34s
"""


def test_page_and_readme_are_those_of_the_results():
    results = versions.held()
    assert versions.PAGE.read_text(encoding="utf-8") == versions.page(results), "python scripts/versions.py --page writes it"
    readme = versions.README.read_text(encoding="utf-8")
    assert versions.BEGIN + versions.summary(results) + versions.END in readme
    for found in results.values():
        assert set(found["parts"]) <= set(versions.PARTS)
        assert all(counts["failed"] == len(counts["wrong"]) for counts in found["parts"].values())


def test_the_oldest_and_the_newest_are_there():
    known = [versions.release(version) for version in versions.held()]
    assert known[0] == (2, 1) and known[-1] >= (2, 14) and len(known) >= 3


def test_what_pytest_says_is_counted():
    wrong = ["tests/core/test_a.py::test_b[x - y]", "funcopt/core/tree/__init__.py::funcopt.core.tree.map", "tests/core/test_c.py"]
    assert versions.counted(SAID) == {"passed": 1234, "failed": 3, "skipped": 3, "wrong": wrong}
    assert versions.counted("Killed\n")["wrong"] == ["pytest did not come to its end"]
    assert versions.cell(versions.counted(SAID)) == "1,234 (3), **3 not**"


def test_parts_that_are_run_again_replace_theirs_alone(tmp_path, monkeypatch):
    results = {"2.1.2": {"with": {"python": "3", "numpy": "1", "optree": "0"}, "parts": {"es": versions.counted("1 passed in 1s")}}}
    for name, content in (
        ("RESULTS", json.dumps(results)),
        ("PAGE", ""),
        ("README", f"before\n{versions.BEGIN}old\n{versions.END}\nafter"),
    ):
        (tmp_path / name).write_text(content)
        monkeypatch.setattr(versions, name, tmp_path / name)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "environment", lambda version, python: tmp_path / "venv" / "bin" / "python")
    monkeypatch.setattr(versions, "beside", lambda python: results["2.1.2"]["with"])
    monkeypatch.setattr(versions, "tested", lambda python, version, part, jobs, rest, before: versions.counted(SAID))
    assert versions.main(["2.1.2", "--only", "core", "--keep"]) == 1
    parts = json.loads((tmp_path / "RESULTS").read_text())["2.1.2"]["parts"]
    assert {part: counts["passed"] for part, counts in parts.items()} == {"core": 1234, "es": 1}
    assert "- torch 2.1.2: 1 of `tests/core/test_c.py`" in (tmp_path / "PAGE").read_text()
    text = (tmp_path / "README").read_text()
    assert "| 2.1.2 | 1,235 | 3 | 2 of 11 parts |" in text and text.startswith("before") and text.endswith("after") and "old" not in text


def test_what_did_not_pass_is_run_again_alone(monkeypatch, tmp_path):
    lines = []

    def pytest_of_old(line, **settings):
        lines.append(line)
        return subprocess.CompletedProcess(line, 1, "FAILED a.py::b - no\n1 failed, 1 passed, 1 skipped in 1s\n", "")

    monkeypatch.setattr(versions, "run", pytest_of_old)
    monkeypatch.setattr(versions, "LOGS", tmp_path)
    found = versions.tested(tmp_path, "2.1.2", "core", 1, [], versions.counted(SAID))
    assert lines[0][-3:] == versions.counted(SAID)["wrong"]
    assert found == {"passed": 1235, "failed": 1, "skipped": 4, "wrong": ["a.py::b"]}


@pytest.mark.parametrize(
    "arguments, message", [(["2.0.1"], "funcopt needs torch 2.1 or newer, got 2.0.1"), ([], "needs at least one version")]
)
def test_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        versions.main(arguments)
    assert message in capsys.readouterr().err
