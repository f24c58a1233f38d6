"""Where a run stands: a bar on a terminal, one line elsewhere, nothing where nobody wants it."""

import io
import sys

import pytest

import funcopt as fo


class Terminal(io.StringIO):
    def isatty(self):
        return True


def go(done=3, **options):
    with fo.race.Progress("snes", 3, unit="generation", **options) as progress:
        for generation in range(done):
            progress.at(generation + 1, f"best {generation}")


def test_a_file_has_one_line_at_the_end(capsys):
    go()
    told = capsys.readouterr()
    assert told.out == "" and told.err == "snes: 3 of 3 generations in 0 s, best 2\n"


def test_a_terminal_has_a_bar(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    go()
    assert "snes: 100%" in sys.stderr.getvalue() and "3/3" in sys.stderr.getvalue() and "best 2" in sys.stderr.getvalue()


def test_a_terminal_without_tqdm_has_the_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("funcopt.race.progress.util.find_spec", lambda name: None)
    go()
    assert sys.stderr.getvalue() == "snes: 3 of 3 generations in 0 s, best 2\n"


def test_nothing_is_said_where_it_is_not_shown(capsys):
    go(shown=False)
    assert capsys.readouterr() == ("", "")


def test_what_was_interrupted_says_how_far_it_came(capsys):
    with pytest.raises(KeyboardInterrupt), fo.race.Progress("snes", 3) as progress:
        progress.at(2)
        raise KeyboardInterrupt
    assert "snes: 2 of 3 steps in" in capsys.readouterr().err
