"""What a step must be told is declared by links: the shim refuses or holds by that, and reads no sentences."""

import pytest
import torch

import funcopt as fo


def by_loss(needs, sentence="my own words"):
    """Sizes the step by the loss; a loss that is NaN leaves the size as it is."""

    def init(params):
        return torch.ones((), dtype=torch.float64)

    def update(updates, state, params=None, *, loss=None, **extra):
        if loss is None:
            raise RuntimeError(sentence) if sentence == "another kind" else ValueError(sentence)
        size = torch.where(torch.as_tensor(loss).isnan(), state, torch.as_tensor(loss, dtype=torch.float64))
        return fo.tree.map(lambda g: size * g, updates), size

    return fo.GradientTransformation(init, update, name="by_loss", needs=needs, turns=False)


def stepped(tx, told=({"loss": 2.0}, {}, {}), **options):
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = fo.torch_optim.Optimizer([w], tx, lr=1.0, **options)
    for given in told:
        w.grad = torch.ones(1, dtype=torch.float64)
        opt.step(**given)
    return w.item()


AROUND = {
    "alone": lambda tx: fo.chain(tx, fo.lr_scale()),
    "guarded": lambda tx: fo.apply_if_finite(fo.chain(fo.chain(fo.clip(9.0), tx), fo.lr_scale()), 2),
    "scoped": lambda tx: fo.chain(fo.scoped("mine", tx), fo.lr_scale()),
}


@pytest.mark.parametrize("sentence", ["my own words", "another kind"])
@pytest.mark.parametrize("around", AROUND.values(), ids=list(AROUND))
def test_a_link_of_ones_own_holds_still_whatever_the_words_of_its_error(around, sentence):
    assert stepped(around(by_loss(("loss",), sentence)), on_missing="hold") == -6.0


def test_who_needs_what_is_said_before_anything_is_run():
    tx = fo.chain(by_loss(("loss",)), fo.lr_scale())
    with pytest.raises(
        ValueError,
        match=r"by_loss: needs the loss of this step; call step\(loss=loss\), or observe\(loss=loss\).*on_missing='hold' goes on without",
    ):
        stepped(tx)


def test_what_nothing_can_stand_in_for_is_refused_though_told_to_hold():
    tx = fo.chain(by_loss({"loss": "always"}), fo.lr_scale())
    with pytest.raises(ValueError, match="by_loss: needs the loss of this step; .*, and nothing can stand in for it"):
        stepped(tx, on_missing="hold")
    plateau = fo.chain(fo.reduce_on_plateau(), fo.lr_scale())
    with pytest.raises(ValueError, match="reduce_on_plateau: needs the loss of this step; .*, and nothing can stand in for it"):
        stepped(plateau, on_missing="hold")


def test_an_error_of_a_link_that_declares_nothing_passes_as_it_is():
    for on_missing in ("raise", "hold"):
        with pytest.raises(ValueError, match="^my own words$"):
            stepped(fo.chain(by_loss(()), fo.lr_scale()), on_missing=on_missing)
    sentence = "nothing to do with it; call update(..., loss=loss) or not"
    with pytest.raises(ValueError, match=r"call update\(\.\.\., loss=loss\) or not"):
        stepped(fo.chain(by_loss((), sentence), fo.lr_scale()), on_missing="hold")


def test_one_of_several_words_is_enough():
    def update(updates, state, params=None, *, loss=None, value=None, **extra):
        return fo.tree.scale(loss if value is None else value, updates), state

    either = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="either", needs=("loss|value",), turns=False)
    tx = fo.chain(either, fo.lr_scale())
    assert stepped(tx, ({"loss": 1.0}, {"value": 2.0})) == -3.0
    with pytest.raises(ValueError, match="either: needs the loss of this step"):
        stepped(tx, ({},))


def test_a_step_of_somebody_elses_graph_holds_too():
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = fo.torch_optim.Optimizer([w], fo.chain(by_loss(("loss",)), fo.lr_scale()), lr=1.0, on_missing="hold")
    step = torch.compile(lambda **told: opt.step(**told), backend="eager")
    for told in ({"loss": 2.0}, {}, {"loss": 3.0}):
        w.grad = torch.ones(1, dtype=torch.float64)
        step(**told)
    assert w.item() == -7.0


def test_a_roulette_holds_its_epoch_and_the_loss_of_its_members():
    pool = {"bandit": fo.Member(fo.aees(fo.sgd(0.5), (1.0,), seed=0)), "sgd": fo.Member(fo.sgd(0.5))}
    tx = fo.chain(fo.roulette(pool, switch="epoch", seed=0), fo.lr_scale())
    assert tx.needs == {"epoch|epoch_start": "may hold", "loss": "may hold"}
    w = torch.nn.Parameter(torch.zeros(1))
    opt = fo.torch_optim.Optimizer([w], tx, on_missing="hold")
    for _ in range(3):
        w.grad = torch.ones(1)
        opt.step()
    assert w.item() == -1.5
    strict = fo.torch_optim.Optimizer([w], tx)
    with pytest.raises(ValueError, match=r"roulette: needs the epoch of this step; call step\(epoch=epoch\)"):
        strict.step(loss=1.0)


def roulette_of_one():
    return fo.chain(fo.roulette({"sgd": fo.Member(fo.identity(), lr=0.25)}), fo.lr_scale())


AT_HOME = {
    "chain": roulette_of_one,
    "scoped": lambda: fo.scoped("x", roulette_of_one()),
    "a group": lambda: fo.partition({"*": roulette_of_one()}, by="path"),
    "each leaf": lambda: fo.partition(roulette_of_one(), by="leaf"),
    "in a chain": lambda: fo.chain(fo.clip(9.0), fo.average_params(fo.scoped("x", roulette_of_one()))),
}


@pytest.mark.parametrize("make", AT_HOME.values(), ids=AT_HOME)
def test_a_rate_that_is_said_inside_is_asked_of_nobody_and_taken_from_nobody(make):
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = fo.torch_optim.Optimizer([("w", w)], make())
    w.grad = torch.ones(1, dtype=torch.float64)
    opt.step()
    assert w.item() == -0.25
    with pytest.raises(ValueError, match="Optimizer: lr must not be given, since .* has its own rate"):
        fo.torch_optim.Optimizer([("w", w)], make(), lr=5.0)


def test_a_group_without_a_rate_is_told_that_of_the_optimizer_beside_one_that_says_its_own():
    a, b = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    tx = fo.partition({"a": roulette_of_one(), "b": fo.sgd(None)}, by="path")
    with pytest.raises(ValueError, match="Optimizer: needs lr"):
        fo.torch_optim.Optimizer([("a", a), ("b", b)], tx)
    opt = fo.torch_optim.Optimizer([("a", a), ("b", b)], tx, lr=2.0)
    a.grad, b.grad = torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    opt.step()
    assert (a.item(), b.item()) == (-0.25, -2.0)
