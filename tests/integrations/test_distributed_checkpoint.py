"""torch.distributed.checkpoint with FSDP2: saved on two ranks and loaded on two (`workers/saved.py`), on one, and back (D2)."""

import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp

from funcopt.core.versions import TORCH
from tests.integrations.launches import checks_of, found_by

pytestmark = [
    pytest.mark.skipif(
        not torch.distributed.is_available() or sys.platform != "linux" or TORCH < (2, 6), reason="needs gloo and fully_shard"
    ),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized"),
]

if TORCH >= (2, 6):
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    from tests.integrations.workers.common import model, whole
    from tests.integrations.workers.saved import FIRST, MAKERS, THEN, fresh, loaded, steps

METHODS = ("adamw", "sgd", "pilot", "clipped", "aees", "adaptive", "roulette")


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What two ranks found and left behind; before, one process has left them something."""
    folder = tmp_path_factory.mktemp("saved")
    for name in METHODS:
        net = model()
        opt = MAKERS[name](net.parameters())
        steps(net, opt, FIRST)
        dcp.save(
            {"model": get_model_state_dict(net), "optim": get_optimizer_state_dict(net, opt)}, checkpoint_id=str(folder / "one" / name)
        )
        kept = [dict(opt.state[param]) for param in net.parameters()]
        torch.save({"params": whole(net), "state": kept, "words": opt.signals()}, folder / "one" / f"{name}.pt")
    return folder, found_by("saved.py", folder, checks_of("saved.py"))


@pytest.mark.parametrize("name", checks_of("saved.py"))
def test_on_two_ranks(launched, name):
    assert launched[1][name] == ""


@pytest.mark.parametrize("name", METHODS)
def test_from_two_ranks_to_one(launched, name):
    folder, _ = launched
    net, opt = loaded(name, folder / "sharded" / name)
    other, whole_opt = fresh(name)
    state = torch.load(folder / f"full-{name}.pt", weights_only=True)
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(other, state["model"], options=options)
    set_optimizer_state_dict(other, whole_opt, state["optim"], options=options)
    for param, twin in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(param, twin)
        assert opt.state[param].keys() == whole_opt.state[twin].keys()
        for path, leaf in opt.state[param].items():
            assert torch.equal(leaf, whole_opt.state[twin][path]) and leaf.dtype == whole_opt.state[twin][path].dtype
    for x, y in zip(steps(net, opt, THEN, FIRST), steps(other, whole_opt, THEN, FIRST), strict=True):
        assert torch.equal(x, y)
    # Alone from the start: the same but for the order of sums.
    alone = model()
    for x, y in zip(whole(net), steps(alone, MAKERS[name](alone.parameters()), FIRST + THEN), strict=True):
        torch.testing.assert_close(x, y, rtol=5e-5, atol=2e-6)  # a run of sgd that grows makes more of its roundings


def test_what_is_on_disk_is_tensors_and_plain_numbers(launched):
    folder, _ = launched
    saved = dcp.FileSystemReader(str(folder / "sharded" / "pilot")).read_metadata().state_dict_metadata
    sizes = {name: tuple(entry.size) for name, entry in saved.items() if hasattr(entry, "size")}
    assert sizes["optim.state.0.weight.0/mu"] == (5, 3)  # whole, though each rank has written its rows
    assert len(saved["optim.state.0.weight.0/mu"].chunks) == 2
    assert any(name.startswith("optim.param_groups.") and name.endswith("phi") for name in sizes), sorted(sizes)
