"""The picture of README's first screen: made by one command, with what stands below it."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARKS = "<!-- by examples/rate_sensitivity.py -->", "<!-- end -->"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["rate_sensitivity.py", "--seeds", "2", "--steps", "2", *map(str, arguments)])
    return runpy.run_path(str(ROOT / "examples" / "rate_sensitivity.py"), run_name="__main__")


def test_prints_a_table_and_draws(tmp_path, monkeypatch, capsys):
    names = run(monkeypatch, "--out", tmp_path / "rate.png")
    out = capsys.readouterr().out
    assert all(f"{rate:.0e}" in out for rate in names["RATES"]) and "rate_free" in out
    assert names["RATES"][0] == 1e-7 and names["RATES"][-1] / names["RATES"][0] >= 1e5
    assert (tmp_path / "rate.png").exists()


def test_puts_the_sentence_between_its_marks_and_the_picture_beside(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    run(monkeypatch, "--readme", readme)
    first, _, rest = readme.read_text().partition(MARKS[0])
    said, _, after = rest.partition(MARKS[1])
    assert first == "before\n" and after == "\nafter\n" and "old" not in said
    assert said.strip() in capsys.readouterr().out and "after 2 steps of 64, 2 seeds" in said
    assert (tmp_path / "docs" / "rate.png").exists()


def test_readme_shows_the_picture_and_what_the_command_says_of_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = readme.partition(MARKS[0])[2].partition(MARKS[1])[0]
    assert "](docs/rate.png)" in readme and 0 < (ROOT / "docs" / "rate.png").stat().st_size < 200_000
    assert "after 600 steps of 64, 5 seeds" in said and "`rate_free` ends between" in said
