"""Params on a device that is not the CPU: the same numbers, nothing beside a tensor of another place, no wait in a step.

The device is that of `tests/elsewhere.py`; what only a real one can tell is in `scripts/device_check.py`.
"""

import pytest
import torch
from torch.func import functional_call, vmap

import funcopt as fo
from funcopt.race.defaults import METHODS
from tests.elsewhere import THERE, Elsewhere, away, bring, send
from tests.helpers import assert_trees_close, rollout, small_params
from tests.population.test_population import KEYS, PLAIN, STEERED, X, Y, loss_fn, network
from tests.zoo import ROWS

P = {"w": torch.linspace(-1, 1, 12).reshape(4, 3), "b": torch.zeros(3)}
INPUTS = torch.linspace(-1, 1, 32).reshape(8, 4)


def objective(params, x):
    return ((x @ params["w"] + params["b"]).tanh() - x[:, :3]).square().mean()


def lies_there(tree):
    return all(isinstance(x, Elsewhere) for x in fo.tree.leaves(tree))


def both(f, **close):
    """`f(move)` here and there: the same numbers. Returns what it gave there, and the watch."""
    here = f(lambda tree: tree)
    with away() as watch:
        there = f(send)
        assert_trees_close(bring(there), here, **({"rtol": 1e-5, "atol": 1e-6} | close))
    return there, watch


# --- the device itself ------------------------------------------------------------------------------------------------------------


def test_what_lies_here_and_what_lies_there_do_not_mix():
    with away():
        x = send(torch.ones(3))
        assert x.device == THERE and (x + 1).device == THERE and lies_there(torch.zeros(2, device=THERE) + torch.ones(()))
        for mixed in (lambda: x + torch.ones(3), lambda: torch.cat([x, torch.ones(1)]), lambda: torch.where(x > 0, x, torch.zeros(3))):
            with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
                mixed()
        with pytest.raises(RuntimeError, match="cannot be written into a tensor on cpu"):
            torch.zeros(()).add_(x.sum())


@pytest.mark.parametrize(
    "read",
    [float, lambda x: bool(x > 0), lambda x: x.item(), lambda x: x.cpu(), lambda x: torch.zeros(()).copy_(x), lambda x: x[x > 0]],
    ids=["float", "bool", "item", "cpu", "copy_", "mask"],
)
def test_what_makes_the_host_wait_is_noted_with_its_line(read):
    with away() as watch:
        x = send(torch.tensor([[2.0]])).sum()
        assert not watch.waits
        read(x)
    assert watch.waits and watch.waits[0][1].startswith("tests/contract/test_elsewhere.py")


# --- updates ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_an_update_elsewhere_is_the_update_here_and_waits_for_nothing(row):
    history, _, state = rollout(row.make(), small_params(), 3, extra=row.extra)
    told = [lambda step: row.extra(step)]
    if any(isinstance(value, torch.Tensor) for value in row.extra(0).values()):
        told.append(lambda step: send(row.extra(step)))  # a loss that lies here, and one that lies there
    for extra in told:
        with away() as watch:
            tx, params = row.make(), send(small_params())
            began = tx.init(params)
            watch.waits.clear()
            updates, _, there = rollout(tx, params, 3, extra=extra, state=began)
            assert lies_there(updates)
        assert_trees_close(bring(updates), history)
        assert_trees_close(bring(there), state)
        assert "host" in row.cannot or not watch.waits, watch.waits


def test_an_optimizer_of_torch_keeps_numbers_that_a_tensor_class_holds_in_attributes():
    def moved(move):
        tx = fo.torch_optim.from_torch(torch.optim.SGD, lr=0.5, momentum=0.9)
        return rollout(tx, move(small_params()), 3)[1]

    both(moved)


def test_steps_elsewhere_are_those_here():
    def trained(move, **form):
        step = fo.make_step(objective, fo.adamw(0.1), **form)
        params, state = step.init(move(P))
        for _ in range(3):
            params, state, loss = step(params, state, move(INPUTS))
        return step.params(params), step.state(state), loss

    for form in ({}, {"flat": True}, {"donate": True}):
        there, watch = both(lambda move, form=form: trained(move, **form))
        assert lies_there(there) and not watch.waits


# --- what runs them ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": "rademacher", "shaping": "zscore"},
        {"noise": "binomial32", "shaping": "none", "baseline": "center"},
        {"noise": fo.es.low_rank(1), "memory": "regenerate"},
        {"noise": fo.es.orthogonal(), "vectorize": "loop"},
        {"antithetic": False, "shaping": "nes", "chunk_size": 3},
        {"shaping": "sign", "mask": {"w": True, "b": False}},
    ],
    ids=str,
)
def test_an_es_gradient_elsewhere_is_the_gradient_here(options):
    def estimated(move):
        grads, info = fo.es.grad(objective, popsize=8, sigma=0.1, **options)(move(P), move(INPUTS), key=3)
        return grads, info.fitness, info.best

    there, watch = both(estimated)
    assert lies_there(there)
    assert options.get("vectorize") == "loop" or not [line for _, line in watch.waits if "watch.py" not in line], watch.waits


def test_autograd_through_an_es_gradient_elsewhere():
    def derived(move):
        params = {name: x.clone().requires_grad_() for name, x in move(P).items()}
        # In a backward no function mode is on, and `torch.tensor` has nobody to ask.
        fo.es.differentiable(objective, popsize=8, sigma=0.1, vectorize="loop")(params, move(INPUTS), key=3).backward()
        return {name: x.grad for name, x in params.items()}

    assert lies_there(both(derived)[0])


@pytest.mark.parametrize("name, inputs, outputs", [("cartpole", 4, 2), ("pendulum", 3, 1), ("mountain_car", 2, 1)])
def test_environments_start_where_the_policy_is(name, inputs, outputs):
    def act(params, observed):
        scores = observed @ params["w"]
        return scores.argmax(-1) if outputs > 1 else scores

    def estimated(move):
        episodes = fo.es.rollout(act, getattr(fo.es, name)(), horizon=8, episodes=2)
        w = torch.linspace(-1, 1, inputs * outputs).reshape(inputs, outputs)
        grads, info = fo.es.grad(episodes, popsize=6, sigma=0.5, maximize=True)(move({"w": w}), key=3)
        return grads, info.fitness

    assert lies_there(both(estimated, rtol=1e-4)[0])


@pytest.mark.parametrize("name", ["ars", "cem", "cma_es", "openai_es", "pgpe", "sep_cma_es", "simple_es", "snes", "xnes"])
def test_a_search_elsewhere_is_the_search_here(name):
    def searched(move):
        search = getattr(fo.es, name)(sigma=0.3, popsize=8)
        state = search.init(move(P), 1)
        for _ in range(3):
            population, state = search.ask(state)
            state = search.tell(state, vmap(objective, in_dims=(0, None))(population.stacked(), move(INPUTS)))
        return state

    there, watch = both(searched, rtol=1e-4, atol=1e-5)
    assert lies_there(there) and not watch.waits


@pytest.mark.parametrize("name", ["adamw", "muon", "roulette", "aees", "the sentence", "adaptive"])
def test_a_population_elsewhere_is_the_population_here(name):
    factory, hyper = PLAIN.get(name) or STEERED[name]

    def trained(move):
        step = fo.population.make_step(loss_fn, factory, hyper={word: move(value) for word, value in hyper.items()})
        params, state = step.init(network, move(KEYS))
        noted.clear()
        for _ in range(3):
            params, state, losses = step(params, state, move(X), move(Y))
        return params, losses

    noted: list = []
    here = trained(lambda tree: tree)
    with away() as watch:
        noted = watch.waits
        there = trained(send)
    assert_trees_close(bring(there), here)
    assert lies_there(there) and not noted, noted


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_step_of_a_race_elsewhere(name):
    pytest.importorskip("sklearn")
    task = fo.race.digits_mlp(hidden=4)
    keys = fo.random.split(fo.random.key(0), 2)
    made = METHODS[name].make

    def raced(move):
        step = fo.population.make_step(task.loss, lambda seed: made(0.01, seed), hyper={"seed": move(keys)}, in_dims=None)
        params, state = step.init(task.init, move(keys))
        batch = tuple(move(column[:16]) for column in task.data["train"])
        noted.clear()
        for epoch in range(2):
            params, state, losses = step(params, state, batch, epoch=epoch)
        return params, losses

    noted: list = []
    here = raced(lambda tree: tree)
    with away() as watch:
        noted = watch.waits
        there = raced(send)
    assert_trees_close(bring(there), here, rtol=1e-4, atol=1e-5)
    assert lies_there(there) and not watch.waits, watch.waits


@pytest.mark.parametrize("name", ["adamw", "muon_with_adam", "roulette", "from_torch"])
def test_the_optimizer_class_elsewhere(name):
    def made(params):
        pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "lion": fo.Member(fo.scale_by_lion(), lr=0.01)}
        tx = {
            "adamw": lambda: fo.adamw(0.1),
            "muon_with_adam": lambda: fo.muon_with_adam(0.1),
            "roulette": lambda: fo.chain(fo.roulette(pool, every=2, seed=0), fo.ucb_episodes(episode_length=2, seed=1), fo.lr_scale()),
            "from_torch": lambda: fo.torch_optim.from_torch(torch.optim.AdamW, lr=0.1),
        }[name]()
        return fo.torch_optim.Optimizer(params, tx)

    def trained(move):
        params = {name: torch.nn.Parameter(move(x)) for name, x in (("weight", P["w"].T.contiguous()), ("bias", P["b"].clone()))}
        model, opt, x = torch.nn.Linear(4, 3), made(params.values()), move(INPUTS)
        for step in range(4):
            if step == 1:  # what a state begins with is sent in the first
                noted.clear()
            opt.zero_grad()
            loss = (functional_call(model, params, (x,)).tanh() - x[:, :3]).square().mean()
            loss.backward()
            opt.step(loss=loss.detach())
        return [p.detach() for p in params.values()]

    noted: list = []
    here = trained(lambda tree: tree)
    with away() as watch:
        noted = watch.waits
        there = trained(send)
    assert_trees_close(bring(there), here, rtol=1e-5, atol=1e-6)
    assert lies_there(there) and (name == "from_torch" or not noted), noted


def test_a_checkpoint_moves_between_devices():
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(0.1), fo.add_noise(0.01, 0.55, key=0))
    _, straight, _ = rollout(tx, small_params(), 4)
    _, params, state = rollout(tx, small_params(), 2)
    saved = fo.checkpoint.state_dict({"params": params, "state": state})
    with away():
        fresh = send(small_params())
        loaded = fo.checkpoint.load_state_dict({"params": fresh, "state": tx.init(fresh)}, saved)
        assert lies_there(loaded["params"])
        _, params, state = rollout(tx, loaded["params"], 1, state=loaded["state"], start=2)
        saved = fo.checkpoint.state_dict({"params": params, "state": state})
    back = fo.checkpoint.load_state_dict({"params": small_params(), "state": tx.init(small_params())}, saved)
    assert not any(isinstance(x, Elsewhere) for x in fo.tree.leaves(back))
    assert_trees_close(rollout(tx, back["params"], 1, state=back["state"], start=3)[1], straight)
