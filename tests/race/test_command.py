"""`python -m funcopt race`: the command line in front of the race."""

import json

import pytest

import funcopt as fo
from funcopt.__main__ import main
from funcopt.race import defaults
from funcopt.race.tasks import TASKS


@pytest.fixture
def methods(monkeypatch):
    """Two small entries in place of the seven of the default race."""
    methods = {
        "adamw": defaults.Method(lambda rate, seed: fo.adamw(rate)),
        "sgd": defaults.Method(lambda rate, seed: fo.sgd(rate), members=("one",)),
    }
    monkeypatch.setattr(defaults, "METHODS", methods)


def test_race_prints_a_table_and_says_where_everything_is(methods, tmp_path, capsys):
    assert main(["race", "--steps", "2", "--seeds", "2", "--out", str(tmp_path), "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert "mlp: 2 steps of 64, 2 seeds" in out and "against adamw, paired by seed" in out
    assert str(tmp_path / "results.json") in out and (tmp_path / "race.png").exists()
    written = json.loads((tmp_path / "results.json").read_text())
    assert list(written["optimizers"]) == ["adamw", "sgd"]
    assert written["settings"]["sgd"] == {"rate": defaults.RATES["mlp"]["sgd"]} and written["labels"] == {"sgd": ["one"]}


def test_only_chooses_and_task_chooses(methods, tmp_path):
    assert main(["race", "--task", "cnn", "--only", "sgd", "--steps", "1", "--seeds", "1", "--out", str(tmp_path), "--no-progress"]) == 0
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["task"] == "digits cnn" and list(written["optimizers"]) == ["sgd"] and written["baseline"] == "sgd"


def test_a_task_by_name_tunes_what_needs_a_rate_and_races_what_needs_none(methods, tmp_path, capsys):
    line = ["race", "wine", "--only", "sgd", "rate_free", "--steps", "3", "--seeds", "2", "--out", str(tmp_path)]
    assert main(line) == 0
    told = capsys.readouterr()
    # no terminal: one line each, the search first
    assert [text.split(":")[0] for text in told.err.splitlines()] == ["sgd", "sgd", "rate_free"]
    assert "rates, found on held-out data: sgd" in told.out and "against sgd, paired by seed" in told.out
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["settings"]["sgd"]["rate"] in json.loads((tmp_path / "tune.json").read_text())["rates"]
    page = (tmp_path / "results.html").read_text()
    assert "data:image/png;base64," in page and "rate_free" in page and "| rate_free |" in (tmp_path / "results.md").read_text()
    assert main([*line, "--resume"]) == 0
    assert capsys.readouterr().err == ""  # all is there already


def test_tune_tries_every_rate_on_held_out_data(methods, tmp_path, capsys):
    assert main(["race", "--tune", "--only", "sgd", "--steps", "3", "--out", str(tmp_path), "--no-progress"]) == 0
    found = json.loads((tmp_path / "tune.json").read_text())
    assert min(found["seeds"]) >= 1000 and len(found["rates"]) == 13
    sgd = found["methods"]["sgd"]
    good = [accuracy is not None and accuracy >= max(filter(None, sgd["accuracy"])) - sgd["error"] for accuracy in sgd["accuracy"]]
    assert sgd["rate"] == found["rates"][good.index(True)]
    assert "mean held-out accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line, message",
    [
        (["race", "iris"], f"python -m funcopt: race: no task 'iris'; there are {', '.join(TASKS)}; noisy-2 is noisy in batches of 2"),
        (["race", "mlp", "--task", "cnn"], "python -m funcopt: race: one task at a time, got 'mlp' and --task 'cnn'"),
        (
            ["race", "--only", "adamw", "sgdd"],
            "python -m funcopt: race: no optimizer 'sgdd'; there are adamw, sgd, rate_free, schedule_free, prodigy, dog, "
            "pilot+find, roulette+find, aees+find, sentence+find",
        ),
        (["race", "--seeds", "0"], "python -m funcopt: race.run: seeds must be >= 1, got 0"),
        (["race", "--steps", "0"], "python -m funcopt: race.run: steps must be >= 1, got 0"),
        (["race", "--tune", "--steps", "0"], "python -m funcopt: race.tune: steps must be >= 1, got 0"),
    ],
)
def test_says_what_is_wrong_in_one_sentence(methods, line, message, capsys):
    assert main(line) == 2
    assert capsys.readouterr().err.strip() == message


def test_ctrl_c_ends_with_the_exit_code_of_a_shell(methods, monkeypatch, tmp_path, capsys):
    def update(updates, state, params=None, **extra):
        raise KeyboardInterrupt

    tx = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="interrupted")
    monkeypatch.setitem(defaults.METHODS, "sgd", defaults.Method(lambda rate, seed: tx))
    assert main(["race", "--steps", "2", "--seeds", "1", "--out", str(tmp_path), "--no-progress"]) == 130
    assert "race: interrupted in sgd at step 0 of 2; finished: adamw" in capsys.readouterr().out


def test_an_unknown_command_lists_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["walk"])
    assert "race" in capsys.readouterr().err
