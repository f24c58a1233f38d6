"""Checkpoints: flat, loadable with weights_only, bit for bit, and whole even when a save is killed."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import funcopt as fo

PARAMS = {"w": torch.linspace(-1, 1, 6).reshape(2, 3), "b": torch.zeros(())}


def advance(tx, params, state, steps):
    for step in range(steps):
        gradients = fo.tree.map(lambda p, step=step: torch.sin(p + step), params)
        updates, state = tx.update(gradients, state, params)
        params = fo.apply_updates(params, updates)
    return params, state


def test_paths_name_link_field_and_parameter():
    saved = fo.checkpoint.state_dict(fo.adam(0.1).init(PARAMS))
    assert set(saved) == {"funcopt.format", "0.count", "0.mu.w", "0.mu.b", "0.nu.w", "0.nu.b", "2.lr"}


@pytest.mark.parametrize("at", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, at):
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(lambda count: 0.1 / (count + 1.0)))
    params, state = advance(tx, PARAMS, tx.init(PARAMS), at)
    fo.checkpoint.save(tmp_path / "run.pt", {"params": params, "state": state})
    fresh = fo.checkpoint.load(tmp_path / "run.pt", {"params": PARAMS, "state": tx.init(PARAMS)})
    resumed = advance(tx, fresh["params"], fresh["state"], 5)
    straight = advance(tx, params, state, 5)
    for ours, theirs in zip(fo.tree.leaves(resumed), fo.tree.leaves(straight), strict=True):
        assert torch.equal(ours, theirs)


def test_the_file_holds_tensors_only(tmp_path):
    fo.checkpoint.save(tmp_path / "state.pt", fo.adam(0.1).init(PARAMS))
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in saved.values())


def test_what_was_saved_does_not_change_when_the_state_is_written_into():
    state = fo.trace(0.9).init(PARAMS)
    saved = fo.checkpoint.state_dict(state)
    state.trace["w"].fill_(7.0)
    assert saved["trace.w"].abs().max() == 0


def test_an_error_lists_all_that_does_not_fit():
    saved = fo.checkpoint.state_dict(fo.trace(0.9).init({"w": torch.zeros(2), "c": torch.zeros(1)}))
    with pytest.raises(ValueError, match="missing: trace.b") as error:
        fo.checkpoint.load_state_dict(fo.trace(0.9).init(PARAMS), saved)
    assert "unexpected: trace.c (1,)" in str(error.value)
    assert "of other shape: trace.w is (2, 3), saved (2,)" in str(error.value)


def test_dtypes_count_when_strict_and_are_cast_when_not():
    saved = fo.checkpoint.state_dict(fo.trace(0.9).init({"w": torch.ones(2, dtype=torch.float64)}))
    template = fo.trace(0.9).init({"w": torch.zeros(2)})
    with pytest.raises(ValueError, match="of other dtype: trace.w"):
        fo.checkpoint.load_state_dict(template, saved)
    assert fo.checkpoint.load_state_dict(template, saved, strict=False).trace["w"].dtype == torch.float32


def test_without_strict_what_fits_is_taken():
    _, state = advance(fo.trace(0.9), PARAMS, fo.trace(0.9).init(PARAMS), 2)
    saved = fo.checkpoint.state_dict(state)
    del saved["trace.b"]
    loaded = fo.checkpoint.load_state_dict(fo.trace(0.9).init(PARAMS), saved, strict=False)
    assert torch.equal(loaded.trace["w"], state.trace["w"])
    assert loaded.trace["b"] == 0


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(ValueError, match="two leaves have the path 'a.b'"):
        fo.checkpoint.state_dict({"a": {"b": torch.zeros(1)}, "a.b": torch.zeros(1)})


def test_a_newer_form_is_refused():
    saved = {**fo.checkpoint.state_dict(PARAMS), "funcopt.format": torch.tensor(99)}
    with pytest.raises(ValueError, match="saved by a newer funcopt"):
        fo.checkpoint.load_state_dict(PARAMS, saved)


def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    fo.checkpoint.save(path, PARAMS)

    def broken(saved, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        fo.checkpoint.save(path, PARAMS)
    monkeypatch.undo()
    assert torch.equal(fo.checkpoint.load(path, PARAMS)["w"], PARAMS["w"])
    assert os.listdir(tmp_path) == ["state.pt"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which Windows has not")
def test_a_save_that_is_killed_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "state.pt"
    fo.checkpoint.save(path, {"w": torch.zeros(10)})
    script = f"""
        import os, signal, torch, funcopt as fo
        real = torch.save
        def save(saved, file):
            real(saved, file)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        torch.save = save
        fo.checkpoint.save({str(path)!r}, {{"w": torch.ones(10)}})
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert fo.checkpoint.load(path, {"w": torch.zeros(10)})["w"].sum() == 0
