"""FSDP2 and torch.distributed.checkpoint: sharded, flat, whole and broadcast; what follows is the uninterrupted run, bit for bit (D2).

Leaves what it has saved in the folder, for one process to load, and loads what one process has left there.
"""

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from tests.integrations.workers.common import (
    METHODS,
    assert_equal,
    check,
    controllers,
    folder,
    full,
    losses,
    main,
    model,
    rank,
    split,
    whole,
)

MAKERS = {**{name: ours for name, (ours, _) in METHODS.items()}, **controllers()}
FIRST, THEN = 7, 6  # steps; episodes are under way where they are cut


def steps(net, opt, count, start=0):
    for loss in losses(net, count, start=start, share=dist.is_initialized()):
        opt.step(loss=loss.detach())
    return whole(net)


def fresh(name):
    net = model(seed=1)  # other numbers than those that are loaded
    net = split(net) if dist.is_initialized() else net
    return net, MAKERS[name](net.parameters())


def runs(names=tuple(MAKERS)):
    """Methods that have trained and are about to go on: the model and the optimizer of each."""
    for name in names:
        net = split(model())
        opt = MAKERS[name](net.parameters())
        steps(net, opt, FIRST)
        yield name, net, opt


def told(opt):
    return {word: value.clone() for word, value in opt.signals().items()}


def same_future(name, net, opt, again, resumed):
    """Goes on with both; they must not differ."""
    for param, other in zip(net.parameters(), again.parameters(), strict=True):
        ours, theirs = opt.state[param], resumed.state[other]
        assert ours.keys() == theirs.keys(), f"{name}: {ours.keys()} became {theirs.keys()}"
        for path, leaf in ours.items():
            assert torch.equal(full(leaf), full(theirs[path])) and leaf.dtype == theirs[path].dtype, f"{name}: {path}"
    assert_equal(steps(again, resumed, THEN, FIRST), steps(net, opt, THEN, FIRST), name)
    words = told(resumed)
    for word, value in told(opt).items():
        assert torch.equal(value, words[word]), f"{name} says {word}: {value} and {words[word]}"


def loaded(name, path, options=None):
    """A fresh model and its optimizer, loaded from a checkpoint on disk, as whichever ranks are there hold them."""
    net, opt = fresh(name)
    state = {"model": get_model_state_dict(net), "optim": get_optimizer_state_dict(net, opt, options=options)}
    dcp.load(state, checkpoint_id=str(path))
    set_model_state_dict(net, state["model"])
    set_optimizer_state_dict(net, opt, state["optim"], options=options)
    return net, opt


def through_files(kind, names, options):
    for name, net, opt in runs(names):
        where = folder() / kind / name
        dcp.save(
            {"model": get_model_state_dict(net), "optim": get_optimizer_state_dict(net, opt, options=options)}, checkpoint_id=str(where)
        )
        again, resumed = loaded(name, where, options)
        same_future(name, net, opt, again, resumed)


@check
def sharded():
    through_files("sharded", MAKERS, StateDictOptions())


@check
def flattened():
    through_files("flattened", ("adamw", "pilot", "aees"), StateDictOptions(flatten_optimizer_state_dict=True))


@check
def full_on_every_rank():
    for name, net, opt in runs():
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = {"model": get_model_state_dict(net, options=options), "optim": get_optimizer_state_dict(net, opt, options=options)}
        file = folder() / f"full-{name}.pt"
        if rank() == 0:
            torch.save(state, file)
        dist.barrier()
        state = torch.load(file, weights_only=True)
        if rank() == 1:
            assert not any(hasattr(leaf, "full_tensor") for kept in state["optim"]["state"].values() for leaf in kept.values())
        again, resumed = fresh(name)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(again, state["model"], options=options)
        set_optimizer_state_dict(again, resumed, state["optim"], options=options)
        same_future(name, net, opt, again, resumed)


@check
def broadcast_from_the_first_rank():
    for name, net, opt in runs(("adamw", "pilot", "aees")):
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        state = torch.load(folder() / f"full-{name}.pt", weights_only=True) if rank() == 0 else {"model": {}, "optim": {}}
        again, resumed = fresh(name)
        set_model_state_dict(again, state["model"], options=options)
        set_optimizer_state_dict(again, resumed, state["optim"], options=options)
        same_future(name, net, opt, again, resumed)


@check
def from_one_process():
    """What one process has saved (the parent, in the folder "one") is on two ranks what it was."""
    for name in MAKERS:
        net, opt = loaded(name, folder() / "one" / name)
        expected = torch.load(folder() / "one" / f"{name}.pt", weights_only=True)
        assert_equal(whole(net), expected["params"], name)
        for param, kept in zip(net.parameters(), expected["state"], strict=True):
            for path, leaf in kept.items():
                assert torch.equal(full(opt.state[param][path]), leaf), f"{name}: {path}"
                assert opt.state[param][path].placements == param.placements, f"{name}: {path}"
        for word, value in expected["words"].items():
            assert torch.equal(opt.signals()[word], value), f"{name} says {word}"
        steps(net, opt, THEN, FIRST)


@check
def asking_for_a_state_dict_changes_nothing():
    for name in ("pilot", "aees", "roulette"):
        found = []
        for asked in (False, True):
            net = split(model())
            opt = MAKERS[name](net.parameters())
            if asked:
                get_optimizer_state_dict(net, opt)
            found.append(steps(net, opt, 6))
        assert_equal(*found, name)


if __name__ == "__main__":
    main()
