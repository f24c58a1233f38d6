"""A population is the loop over its copies: eagerly, in a graph, donated, with controllers, and after it was saved."""

from operator import attrgetter

import pytest
import torch
from torch.func import grad_and_value

import funcopt as fo
from funcopt.execute import policy, runner
from tests.contract.test_functional import RATED
from tests.helpers import assert_trees_close, assert_trees_equal
from tests.zoo import ROWS

COPIES, STEPS = 3, 4
X = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(8, 4)
Y = torch.sin(2 * X[:, :2])
KEYS = fo.random.split(fo.random.key(0), COPIES)
SEEDS = fo.random.split(fo.random.key(1), COPIES)
RATES = torch.tensor([0.01, 0.05, 0.002], dtype=torch.float64)


def network(key):
    shapes = {"w": (4, 3), "v": (3, 2), "b": (2,)}
    return {name: fo.random.normal(fo.random.fold_in(key, i), shape, torch.float64) for i, (name, shape) in enumerate(shapes.items())}


def loss_fn(params, x, y):
    return ((torch.tanh(x @ params["w"]) @ params["v"] + params["b"] - y) ** 2).mean()


def trained(factory, hyper, steps=STEPS, batch=(X, Y), extra=lambda step: {}, params=network, keys=KEYS, **form):
    pop = fo.population.make_step(loss_fn, factory, hyper=hyper, **form)
    params, state = pop.init(params, keys)
    losses = None
    for step in range(steps):
        params, state, losses = pop(params, state, *batch, **extra(step))
    return params, state, losses


def alone(factory, hyper, copy, steps=STEPS, batch=(X, Y)):
    """What copy `copy` does without the others."""
    tx, params = factory(**{name: value[copy] for name, value in hyper.items()}), network(KEYS[copy])
    state, loss = tx.init(params), None
    for _ in range(steps):
        gradients, loss = grad_and_value(loss_fn)(params, *batch)
        updates, state = tx.update(gradients, state, params, loss=loss)
        params = fo.apply_updates(params, updates)
    return params, state, loss


def wheel(lr, seed):
    members = {"adam": fo.Member(fo.scale_by_adam(), lr=lr), "momentum": fo.Member(fo.trace(0.9), lr=0.1 * lr)}
    return fo.chain(fo.roulette(members, every=2, seed=seed), fo.lr_scale())


def episodes(lr, seed):
    return fo.aees(fo.adam(lr), (0.5, 1.0, 2.0), episode_length=2, seed=seed)


def sentence(lr, seed):
    draw, arms = (fo.random.fold_in(seed, stream) for stream in range(2))
    members = {"adam": fo.Member(fo.scale_by_adam(), lr=lr), "lion": fo.Member(fo.scale_by_lion(), lr=0.1 * lr)}
    settings = {"dispatch": "select"}
    wheel = fo.roulette(members, every=2, seed=draw, **settings)
    return fo.chain(fo.agreement_policy(), wheel, fo.ucb_episodes(episode_length=2, seed=arms, **settings), fo.lr_scale())


def steered(lr):
    return fo.adaptive(fo.sgd, lr=fo.rules.trend(lr) * fo.rules.variance(), momentum=0.9)


RATE = {"lr": RATES}
SEEDED = {"lr": RATES, "seed": SEEDS}
CANNOT = {row.name for row in ROWS if "vmap" in row.cannot}
PLAIN = {name: (attrgetter(name)(fo), RATE) for name in RATED if name not in CANNOT}
STEERED = {"roulette": (wheel, SEEDED), "aees": (episodes, SEEDED), "the sentence": (sentence, SEEDED), "adaptive": (steered, RATE)}
DECAYED = (
    fo.adamw,
    {"lr": RATES, "weight_decay": torch.tensor([0.0, 0.1, 0.01], dtype=torch.float64), "b1": torch.tensor([0.9, 0.5, 0.0])},
)
DRAWN = {"apollo": (lambda lr, seed: fo.apollo(lr, rank=1, every=2, key=seed), SEEDED)}
METHODS = PLAIN | DRAWN | STEERED | {"adamw with three settings": DECAYED}


# The last vectors of a basis are rounding, where there is no gradient: any others would do, and Adam divides what is left there by eps.
BASES = {"galore", "soap", "splus"}


@pytest.mark.parametrize("name", METHODS)
def test_a_population_is_the_loop_over_its_copies(name):
    factory, hyper = METHODS[name]
    params, state, losses = trained(factory, hyper)
    for copy in range(COPIES):
        ours, theirs = fo.population.member((params, state.inner, losses), copy), alone(factory, hyper, copy)
        if name in BASES:
            assert_trees_close((ours[0], ours[2]), (theirs[0], theirs[2]), rtol=1e-6, atol=1e-7)
            continue
        assert_trees_close(ours, theirs, rtol=1e-9, atol=1e-12)


def noisy_and_begun_anew(lr, first=None, second=None):
    """Two draws, one of them begun again at every second step."""
    return fo.lookahead(fo.chain(fo.add_noise(0.1, 0.55, key=first), fo.noisy_sgd(lr, key=second)), 2, 0.5, reset_state=True)


@pytest.mark.parametrize("compile", [False, True])
def test_a_factory_without_a_key_draws_one_for_each_copy_once(compile, traced):
    torch.manual_seed(3)
    drawn = trained(noisy_and_begun_anew, RATE, compile=compile)
    torch.manual_seed(3)
    first, second = (fo.random.split(fo.random.key(None), COPIES) for _ in range(2))
    given = trained(noisy_and_begun_anew, RATE | {"first": first, "second": second})
    assert_trees_close((drawn[0], drawn[1].inner), (given[0], given[1].inner), rtol=1e-9, atol=1e-12)


def test_a_saved_population_that_draws_goes_on_as_it_would_have():
    torch.manual_seed(3)
    params, state, _ = trained(lambda lr: fo.noisy_sgd(lr), RATE, steps=2)
    pop = fo.population.make_step(loss_fn, lambda lr: fo.noisy_sgd(lr), hyper=RATE)
    params, state = pop.init(params, state=state)
    for _ in range(2):
        params, state, _ = pop(params, state, X, Y)
    torch.manual_seed(3)
    assert_trees_equal((params, state), trained(lambda lr: fo.noisy_sgd(lr), RATE, steps=4)[:2])


TRACED, TRACED_LONG = ("adamw with three settings",), ("aees", "muon", "pilot", "roulette", "the sentence", "adaptive")


@pytest.fixture
def traced(monkeypatch):
    """Graphs without the compiler behind them, one for each function and never made anew."""
    torch._dynamo.reset()
    monkeypatch.setattr(runner, "compiled", lambda f, name, **_: torch.compile(f, backend="aot_eager", fullgraph=True, dynamic=False))
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield monkeypatch


@pytest.mark.parametrize("name", [*TRACED, *(pytest.param(name, marks=pytest.mark.long) for name in TRACED_LONG)])
def test_traced_whole_it_gives_the_same_numbers(name, traced):
    factory, hyper = METHODS[name]
    assert_trees_close(trained(factory, hyper, compile=True, donate=True), trained(factory, hyper), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("two_graphs, donate", [(False, False), (False, True), (True, True)])
def test_every_form_gives_the_same_numbers(two_graphs, donate, traced):
    traced.setattr(runner, "TWO_GRAPHS", two_graphs)
    factory, hyper = METHODS["sgd"]
    assert_trees_close(trained(factory, hyper, compile=True, donate=donate), trained(factory, hyper), rtol=1e-9, atol=1e-11)


def test_donated_and_eager_it_gives_the_same_numbers():
    assert_trees_equal(trained(*DECAYED, donate=True), trained(*DECAYED))


@pytest.mark.long
def test_compiled_and_donated_it_gives_the_same_numbers_whatever_becomes_of_the_hyperparameters():
    """The compiler itself: matrices under vmap are products of batches, which a donated parameter must not overtake."""
    torch._dynamo.reset()
    runs = []
    with torch._dynamo.config.patch(error_on_recompile=True):
        for form in ({}, {"compile": True, "donate": True}):
            pop = fo.population.make_step(loss_fn, fo.adamw, hyper={"lr": RATES, "weight_decay": 0.1}, **form)
            params, state = pop.init(network, KEYS)
            for turn in range(4):
                params, state, losses = pop(params, state, X, Y)
                if turn == 1:
                    params, state, _ = fo.population.exploit_explore(fo.random.key(3), params, state, losses, fraction=0.4)
            runs.append((params, state, losses))
    assert_trees_close(runs[1], runs[0], rtol=1e-7, atol=1e-9)


def test_changing_hyperparameters_does_not_trace_anew(traced):
    pop = fo.population.make_step(loss_fn, fo.sgd, hyper=RATE, compile=True)
    params, state = pop.init(network, KEYS)
    first = pop(params, state, X, Y)[0]
    frozen = pop(params, state._replace(hyper={"lr": torch.zeros_like(RATES)}), X, Y)[0]
    assert_trees_equal(frozen, params)
    assert not torch.equal(first["w"], params["w"])


def test_a_donated_step_writes_into_the_buffers_it_was_given():
    pop = fo.population.make_step(loss_fn, fo.adam, hyper=RATE, donate=True)
    params, state = pop.init(network, KEYS)
    addresses = [leaf.data_ptr() for leaf in fo.tree.leaves((params, state))]
    params, state, _ = pop(params, state, X, Y)
    assert [leaf.data_ptr() for leaf in fo.tree.leaves((params, state))] == addresses


def test_every_leaf_of_a_fresh_population_has_memory_of_its_own():
    given = fo.tree.map(lambda x: x.expand(COPIES, *x.shape), network(KEYS[0]))
    params, state = fo.population.make_step(loss_fn, episodes, hyper=SEEDED).init(given)
    leaves = fo.tree.leaves((params, state))
    assert all(leaf.is_contiguous() and (0 not in leaf.stride() or leaf.numel() < 2) for leaf in leaves)
    assert len({leaf.data_ptr() for leaf in leaves}) == len(leaves)
    params["w"].zero_(), state.hyper["lr"].zero_()
    assert given["w"].any() and RATES.all()


def moving(lr):
    """A link whose state moves on by one place: results that are old leaves."""

    def init(params):
        return tuple(torch.full((2,), float(place), dtype=torch.float64) for place in range(3))

    def update(updates, state, params=None, **extra):
        return fo.tree.map(lambda u: -lr * u, updates), (state[-1], *state[:-1])

    return fo.GradientTransformation(init, update, name="moving")


@pytest.mark.parametrize("compile", [False, True])
def test_a_result_that_is_an_old_leaf_in_another_place_arrives(compile, traced):
    _, state, _ = trained(moving, RATE, steps=2, compile=compile, donate=True)
    assert [part[:, 0].tolist() for part in state.inner] == [[1.0] * COPIES, [2.0] * COPIES, [0.0] * COPIES]


def test_a_donated_state_must_keep_its_structure():
    growing = fo.GradientTransformation(
        lambda params: (torch.zeros(()),), lambda updates, state, params=None, **extra: (updates, (*state, *state)), name="growing"
    )
    with pytest.raises(
        ValueError, match="population.make_step: donate=True needs a state of constant structure, got 5 leaves in place of 4"
    ):
        trained(growing, None, donate=True)


# --- data and extras


def test_each_copy_sees_its_own_batches_in_its_own_order():
    rows = fo.population.permutations(KEYS, len(X), epoch=2)[:, :5]
    assert len({tuple(order) for order in rows.tolist()}) == COPIES
    params, _, _ = trained(fo.adam, RATE, batch=(X[rows], Y[rows]), in_dims=0)
    for copy in range(COPIES):
        own = fo.random.uniform(fo.random.fold_in(KEYS[copy], 2), (len(X),)).argsort(stable=True)[:5]
        assert_trees_close(fo.population.member(params, copy), alone(fo.adam, RATE, copy, batch=(X[own], Y[own]))[0])


def test_a_batch_may_be_shared_in_part():
    def noisy(params, x, y, noise):
        return loss_fn(params, x, y + noise)

    noise = torch.arange(COPIES, dtype=torch.float64)
    pop = fo.population.make_step(noisy, fo.sgd(0.1), in_dims=(None, None, 0))
    params, state = pop.init(network, KEYS)
    _, _, losses = pop(params, state, X, Y, noise)
    for copy in range(COPIES):
        torch.testing.assert_close(losses[copy], noisy(network(KEYS[copy]), X, Y, noise[copy]))


def test_extras_with_an_axis_are_one_per_copy_and_others_for_all(traced):
    def update(updates, state, params=None, *, reward, epoch, signals=None, **extra):
        size = reward * epoch * signals["base_lr"]
        return fo.tree.map(lambda u: -size * u, updates), state

    told = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="told")
    reward = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    for form in ({}, {"compile": True}):
        after, _, _ = trained(
            told, None, steps=1, extra=lambda step: {"reward": reward, "epoch": 3, "signals": {"base_lr": torch.tensor(0.1)}}, **form
        )
        for copy in range(COPIES):
            before = network(KEYS[copy])
            slope, _ = grad_and_value(loss_fn)(before, X, Y)
            expected = fo.tree.map(lambda p, g, copy=copy: p - 3 * 0.1 * reward[copy] * g, before, slope)
            assert_trees_close(fo.population.member(after, copy), expected, rtol=1e-6)


def test_aux_comes_back_for_every_copy():
    pop = fo.population.make_step(lambda p, x, y: (loss_fn(p, x, y), {"mean": p["w"].mean()}), fo.adam(0.1), has_aux=True)
    params, state = pop.init(network, KEYS)
    means = params["w"].mean((1, 2))
    params, state, (losses, aux) = pop(params, state, X, Y)
    assert losses.shape == (COPIES,)
    torch.testing.assert_close(aux["mean"], means)


def test_words_are_said_by_every_copy():
    _, state, _ = trained(episodes, SEEDED)
    words = fo.read_signals(state)
    assert words["lr"].shape == (COPIES,) and set(words) >= {"lr", "lr_multiplier"}


# --- saving


def test_a_saved_population_goes_on_bit_for_bit(tmp_path):
    pop = fo.population.make_step(loss_fn, episodes, hyper=SEEDED)
    params, state = pop.init(network, KEYS)
    for _ in range(3):
        params, state, losses = pop(params, state, X, Y)
    params, state, _ = fo.population.exploit_explore(fo.random.key(7), params, state, losses, fraction=0.4)
    fo.checkpoint.save(tmp_path / "population.pt", {"params": params, "state": state})

    fresh = fo.population.make_step(loss_fn, episodes, hyper=SEEDED)
    like_params, like_state = fresh.init(network, KEYS)
    read = fo.checkpoint.load(tmp_path / "population.pt", {"params": like_params, "state": like_state})
    again = fresh.init(read["params"], state=read["state"])
    for _ in range(3):
        params, state, losses = pop(params, state, X, Y)
        *again, losses_again = fresh(*again, X, Y)
    assert_trees_equal((params, state, losses), (*again, losses_again))


# --- errors


def given(**changes):
    arguments = {"hyper": RATE} | changes
    init = arguments.pop("init", (network, KEYS))
    loss, factory = arguments.pop("loss_fn", loss_fn), arguments.pop("factory", fo.sgd)
    pop = fo.population.make_step(loss, factory, **arguments)
    params, state = pop.init(*init)
    return pop(params, state, X, Y)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"loss_fn": 3}, TypeError, "population.make_step: loss_fn must be a function"),
        (
            {"factory": 3},
            TypeError,
            "population.make_step: factory must be a function that makes a transformation, or a transformation, got 3",
        ),
        ({"factory": fo.sgd(0.1)}, TypeError, "population.make_step: hyper is for a factory, and chain is made already"),
        ({"factory": lambda lr: lr}, TypeError, "population.make_step: the factory must return a GradientTransformation"),
        ({"in_dims": 1}, ValueError, "population.make_step: in_dims must be 0, None or a tuple of these, got 1"),
        ({"in_dims": (0,)}, ValueError, "population.make_step: in_dims must say 0 or None for each of 2 arguments of the batch"),
        (
            {"hyper": {"lr": RATES, "momentum": [0.9]}},
            ValueError,
            "population.make_step: hyper at 'momentum' must have a leading axis of 3 copies, got 1",
        ),
        ({"init": (network, KEYS[:2])}, ValueError, "population.make_step: keys must have a leading axis of 3 copies, got 2"),
        ({"init": (network,)}, ValueError, "population.make_step: init needs keys exactly if params is a function of one, got none"),
        (
            {"init": (network(KEYS[0]), KEYS)},
            ValueError,
            "population.make_step: init needs keys exactly if params is a function of one, got a tree and keys",
        ),
        ({"init": (network(KEYS[0]),)}, ValueError, "population.make_step: params at 'b' must have a leading axis of 3 copies, got 2"),
        (
            {"init": ({"s": torch.tensor(1.0)},)},
            ValueError,
            "must have a leading axis of copies, got a tensor without axes; population.repeat makes",
        ),
    ],
)
def test_says_what_is_wrong(changes, error, message):
    with pytest.raises(error, match=message):
        given(**changes)


def test_without_a_compiler_it_says_so_and_runs_eagerly(monkeypatch):
    monkeypatch.setattr(policy, "compiler_missing", lambda device: "no C++ compiler")
    pop = fo.population.make_step(loss_fn, fo.sgd, hyper=RATE, compile=True)
    with pytest.warns(UserWarning, match=r"population.make_step: runs eagerly, since there is no compiler here \(no C\+\+ compiler\)"):
        params, state = pop.init(network, KEYS)
    pop(params, state, X, Y)


def test_each_copy_searches_along_a_loss_of_its_own():
    def valley(p, scale):
        return (scale * (p - 1.0) ** 2 + p**4).sum()

    scales = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    tx = fo.lbfgs(memory_size=3, linesearch=fo.scale_by_zoom_linesearch(6, initial_guess_strategy="one"))
    pop = fo.population.make_step(valley, tx, in_dims=0)
    params, state = pop.init(lambda key: fo.random.normal(key, (2,), torch.float64), KEYS)
    for _ in range(14):
        params, state, _ = pop(params, state, scales)
    slopes = torch.func.vmap(torch.func.grad(valley))(params, scales)
    assert slopes.abs().max() < 1e-6


def test_a_hyperparameter_in_a_list_is_the_number_that_was_written():
    step = fo.population.make_step(torch.sum, fo.sgd, hyper={"lr": [1e-3]}, compile=False)
    params, state = step.init(lambda key: torch.zeros(1, dtype=torch.float64), KEYS[:1])
    assert step(params, state)[0].item() == -1e-3
