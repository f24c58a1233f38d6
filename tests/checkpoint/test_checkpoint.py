"""Checkpoints: flat, loadable with weights_only, bit for bit, and whole even when a save is killed."""

import builtins
import os
from pathlib import Path

import pytest
import torch

import funcopt as fo

DATA = Path(__file__).parents[1] / "data"
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


@pytest.mark.parametrize("name", ["run.pt", "run.safetensors"])
@pytest.mark.parametrize("at", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, at, name):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(lambda count: 0.1 / (count + 1.0)))
    params, state = advance(tx, PARAMS, tx.init(PARAMS), at)
    fo.checkpoint.save(tmp_path / name, {"params": params, "state": state})
    fresh = fo.checkpoint.load(tmp_path / name, {"params": PARAMS, "state": tx.init(PARAMS)})
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


def test_numbers_that_were_kept_narrower_are_taken_as_they_are():
    tx, params = fo.scale_by_novograd(), {"w": torch.ones(2)}
    _, state = tx.update({"w": torch.tensor([1.0, 2.0])}, tx.init(params), params)
    saved = fo.checkpoint.state_dict(state)
    name = next(name for name in saved if name.startswith("nu"))
    saved[name] = saved[name].float()  # as version 1 kept it
    loaded = fo.find(fo.checkpoint.load_state_dict(tx.init(params), saved), "nu")["w"]
    assert loaded.dtype == torch.float64 and loaded == 5
    half = {"w": torch.ones(2, dtype=torch.float16)}
    saved = {"trace.w": torch.tensor([1.5, 2.0], dtype=torch.float16)}  # of float16 params version 1 kept float16
    assert fo.checkpoint.load_state_dict(fo.trace(0.9).init(half), saved).trace["w"].dtype == torch.float32


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
    with pytest.raises(ValueError, match="must be at most 1, got 99; it was saved by a newer funcopt"):
        fo.checkpoint.load_state_dict(PARAMS, saved)


@pytest.mark.parametrize("name", ["checkpoint-format-1.pt", "checkpoint-format-1.safetensors"])
def test_files_of_every_form_that_there_was_are_read(name):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    params = {"w": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.float64)}
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adam(0.1))
    run = fo.checkpoint.load(DATA / name, {"params": params, "state": tx.init(params)})
    assert run["params"]["b"] == 0.3073498972548695
    assert fo.find(run["state"], "count") == 3
    torch.testing.assert_close(fo.find(run["state"], "nu")["w"][1], torch.tensor([4.3820700375e-4, 4.3208306304e-4, 5.2839313867e-4]))


def test_older_forms_are_brought_up_one_version_at_a_time(monkeypatch):
    """As if this were version 3: version 1 called its entries otherwise, version 2 counted from one."""

    def from_1(saved):
        return {path.replace("velocity", "trace"): value for path, value in saved.items()}

    def from_2(saved):
        return {path: value - 1 if path == "trace.w" else value for path, value in saved.items()}

    monkeypatch.setattr("funcopt.checkpoint.mapping.VERSION", 3)
    monkeypatch.setattr("funcopt.checkpoint.mapping.MIGRATIONS", {1: from_1, 2: from_2})
    template = fo.trace(0.9).init({"w": torch.zeros(2)})
    for version, name in ((1, "velocity.w"), (2, "trace.w")):
        saved = {"funcopt.format": torch.tensor(version), name: torch.ones(2)}
        assert fo.checkpoint.load_state_dict(template, saved).trace["w"].abs().sum() == 0


def test_a_migration_renames_beginnings_of_paths_the_longest_first():
    saved = fo.checkpoint.state_dict({"net": {"w": torch.ones(1), "old": {"b": torch.ones(2)}}, "network": torch.ones(3)})
    moved = fo.checkpoint.migrate(saved, {"net": "model", "net.old": None})
    assert {path: tuple(value.shape) for path, value in moved.items()} == {"funcopt.format": (), "model.w": (1,), "network": (3,)}
    template = {"model": {"w": torch.zeros(1)}, "network": torch.zeros(3)}
    assert fo.checkpoint.load_state_dict(template, saved, migration={"net": "model", "net.old": None})["network"].sum() == 3
    by_function = fo.checkpoint.load_state_dict(
        template, saved, migration=lambda old: {"model.w": old["net.w"], "network": 2 * old["network"]}
    )
    assert by_function["network"].sum() == 6
    with pytest.raises(ValueError, match="two entries become 'network'"):
        fo.checkpoint.migrate(saved, {"net.w": "network"})


def test_a_run_goes_on_in_a_chain_that_has_a_link_more(tmp_path):
    _, state = advance(fo.adam(0.1), PARAMS, fo.adam(0.1).init(PARAMS), 2)
    fo.checkpoint.save(tmp_path / "state.pt", state)
    longer = fo.chain(fo.clip(1.0), fo.adam(0.1)).init(PARAMS)
    with pytest.raises(ValueError, match="migration= to say what was renamed"):
        fo.checkpoint.load(tmp_path / "state.pt", longer)
    loaded = fo.checkpoint.load(tmp_path / "state.pt", longer, migration={"0": "1.0", "2": "1.2"})
    assert fo.find(loaded, "count") == 2


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


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="needs safetensors; pip install safetensors"):
        fo.checkpoint.save(tmp_path / "state.safetensors", PARAMS)
    assert os.listdir(tmp_path) == []


def test_who_may_read_a_file_follows_the_habits_of_the_machine(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    for name in ("state.pt", "state.safetensors"):
        if name.endswith(".safetensors"):
            pytest.importorskip("safetensors")
        fo.checkpoint.save(tmp_path / name, PARAMS)
        assert os.stat(tmp_path / name).st_mode == os.stat(tmp_path / "plain").st_mode


def test_a_file_that_is_not_there_or_not_ours_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        fo.checkpoint.load(tmp_path / "state.pt", PARAMS)
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="must be a file of checkpoint.save, got one that holds a dict"):
        fo.checkpoint.load(tmp_path / "other.pt", PARAMS)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: fo.adam(0.1), "0.count"),
        (lambda: fo.adan(0.1), "0.t"),
        (lambda: fo.schedule_free_sgd(0.1), "step_count"),
        (lambda: fo.multi_steps(fo.sgd(0.1), 2), "mini_step"),
        (lambda: fo.apply_if_finite(fo.chain(fo.ademamix(0.1)), 2), "inner_state.0.0.count_m2"),
    ],
    ids=["adam", "adan", "schedule_free", "multi_steps", "inside"],
)
def test_a_negative_count_is_no_count(make, name):
    """1 - decay^-3 is negative: the moments would be corrected with the wrong sign."""
    state = make().init(PARAMS)
    saved = {**fo.checkpoint.state_dict(state), name: torch.tensor(-3)}
    with pytest.raises(ValueError, match=f"negative: {name} counts, and cannot be -3; the entry was changed by hand or is damaged"):
        fo.checkpoint.load_state_dict(state, saved)
    assert fo.find(fo.checkpoint.load_state_dict(state, saved, strict=False), name.rpartition(".")[2]) >= 0


def test_a_tree_of_ones_own_may_hold_a_negative_number_by_any_name():
    own = {"step": torch.tensor(-1), "count": torch.tensor(-2)}
    assert fo.checkpoint.load_state_dict(fo.tree.zeros_like(own), fo.checkpoint.state_dict(own))["count"] == -2
