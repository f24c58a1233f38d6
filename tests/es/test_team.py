"""Many ranks, one estimate: the same bits as one rank alone. Ranks are threads here; processes under gloo in the long run."""

import threading
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch

import funcopt as fo
from funcopt.core.ranks import WORDS, Team
from tests.es import programs
from tests.helpers import assert_trees_equal

PARAMS = {"w": torch.linspace(-1, 1, 20000), "b": torch.zeros(3, dtype=torch.float64), "n": torch.arange(2)}


class Threads(Team):
    """A rank that is a thread."""

    def __init__(self, rank, size, barrier, desk):
        self.rank, self.size, self.barrier, self.desk = rank, size, barrier, desk

    def gather(self, x):
        self.desk[self.rank] = x
        self.barrier.wait(300)
        parts = list(self.desk)
        self.barrier.wait(300)
        return parts

    gather_object = gather

    def put_together(self, x):
        return sum(self.gather(x.view(WORDS[x.element_size()]))).view(x.dtype)


def together(size, act):
    """`act(team)` on every rank; the results by rank, errors raised."""
    barrier, desk, results = threading.Barrier(size), [None] * size, [None] * size

    def run(rank):
        try:
            results[rank] = act(Threads(rank, size, barrier, desk))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def objective(params):
    return params["w"][:50].square().sum() + params["b"].sum().float(), params["w"][:2]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": "replicated"},
        {"noise": {"w": fo.es.sphere(), "b": fo.es.sphere(), "n": "normal"}},
        {"vectorize": "loop"},
        {"antithetic": False, "baseline": "center"},
    ],
    ids=str,
)
def test_any_number_of_ranks_gives_the_same_bits(options):
    settings = {"popsize": 22, "sigma": 0.1, "chunk_size": 4, "has_aux": True, **options}
    grads, info = fo.es.grad(objective, **{key: value for key, value in settings.items() if key != "gradient"})(PARAMS, key=0)
    for size in (1, 2, 3):
        for others, told in together(size, lambda team: fo.es.grad(objective, process_group=team, **settings)(PARAMS, key=0)):
            assert_trees_equal(others, grads)
            assert torch.equal(told.fitness, info.fitness) and torch.equal(told.user_aux, info.user_aux)
            assert_trees_equal(told.member(9), info.member(9))


def plain(p):
    return p["w"][:5].square().sum() + p["b"].sum().float()


OPTIONS = {
    "sparse": (plain, {"noise": fo.es.sparse(5)}),
    "orthogonal": (plain, {"noise": fo.es.orthogonal(4)}),
    "low rank": (lambda p: (torch.ones(2, 90) @ p["w"]).square().sum(), {"noise": {"w": fo.es.low_rank(2), "b": "normal"}}),
    "split": (lambda p: (torch.ones(2, 90) @ p["w"]).square().sum(), {"noise": {"w": fo.es.split(), "b": "normal"}}),
    "torch's generators": (plain, {"rng": "generator"}),
    "keys of members": (lambda p, key: plain(p) + fo.random.normal(key, ()), {"common_random_numbers": False}),
    "some fail": (lambda p: p["b"].sum().log(), {"on_failure": "drop"}),
    "stacked": (lambda p: p["w"].sum((1, 2)), {"vectorize": "external"}),
    "bfloat16": (plain, {"dtype": torch.bfloat16, "noise_dtype": torch.bfloat16}),
    "sigma of a tree": (plain, {"sigma": {"w": torch.full((90, 100), 0.1), "b": 0.2}, "mask": ["w"]}),
    "odd": (plain, {"popsize": 21, "antithetic": False, "shaping": "none", "baseline": "loo"}),
    "one at a time": (plain, {"chunk_size": 1}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_whatever_the_options(name):
    objective, options = OPTIONS[name]
    params = {"w": torch.linspace(-1, 1, 9000).reshape(90, 100), "b": torch.zeros(3, dtype=torch.float64)}
    settings = {"popsize": 20, "sigma": 0.1, "chunk_size": 4, **options}
    grads, info = fo.es.grad(objective, **settings)(params, key=0)
    for others, told in together(3, lambda team: fo.es.grad(objective, process_group=team, **settings)(params, key=0)):
        assert_trees_equal(others, grads)
        assert torch.equal(told.fitness.nan_to_num(7.0), info.fitness.nan_to_num(7.0))


def test_ranks_share_the_rows_of_a_large_matrix(monkeypatch):
    low_rank = import_module("funcopt.es.noise.low_rank")

    monkeypatch.setattr(low_rank, "TILE", 1000)
    params = {"w": torch.zeros(70, 90), "conv": torch.zeros(30, 4, 3, 3), "b": torch.zeros(70)}
    rows = []
    product = low_rank.LowRank.combine_tile
    monkeypatch.setattr(low_rank.LowRank, "combine_tile", lambda *arguments: rows.append(None) or product(*arguments))

    def call(team):
        objective = lambda p: (p["w"] @ torch.ones(90) + p["b"]).square().sum() + p["conv"].sum()  # noqa: E731
        return fo.es.grad(objective, popsize=20, sigma=0.1, chunk_size=4, noise=fo.es.low_rank(2), process_group=team)(params, key=0)

    grads, _ = call(None)
    for others, _ in together(3, call):
        assert_trees_equal(others, grads)
    assert len(rows) == 5 + 2  # 16 of 70 rows and 16 of 30 at once, each on one rank


class Counting(Threads):
    """Knows how many bytes went through its connection: a sum goes round the ring twice."""

    def gather(self, x):
        self.bytes = [*getattr(self, "bytes", []), x.numel() * x.element_size() * self.size]
        return super().gather(x)

    def put_together(self, x):
        total = super().put_together(x)
        self.bytes[-1] = 2 * x.numel() * x.element_size()
        return total


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("chunk_size", [2, 6])
def test_what_is_sent_is_what_the_cost_model_says(size, chunk_size, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import es_cost_model

    def bytes_of(team):
        counting = Counting(team.rank, team.size, team.barrier, team.desk)
        fo.es.grad(lambda p: p.square().sum(), popsize=22, sigma=0.1, chunk_size=chunk_size, process_group=counting)(
            torch.ones(30_000), key=0
        )
        return counting.bytes[1:]  # without what is settled once

    cost = es_cost_model.cost(es_cost_model.Work("", 30_000, 22, 0.0, chunk_size), size)
    expected = [cost.fitness_bytes, cost.gradient_bytes] if size > 1 else [cost.fitness_bytes]
    assert together(size, bytes_of) == [expected] * size


def test_few_tiles_for_many_ranks_keep_their_bits():
    minus = {"w": torch.zeros(9000), "still": torch.zeros(4, dtype=torch.float64)}
    settings = {"popsize": 8, "sigma": 0.1, "chunk_size": 2, "shaping": lambda fitness: -torch.zeros_like(fitness)}
    grads, _ = fo.es.grad(lambda p: p["w"].sum(), **settings)(minus, key=0)
    for others, _ in together(7, lambda team: fo.es.grad(lambda p: p["w"].sum(), process_group=team, **settings)(minus, key=0)):
        assert all(torch.equal(others[name].signbit(), grads[name].signbit()) and torch.equal(others[name], grads[name]) for name in grads)


@pytest.mark.parametrize("search", [fo.es.openai_es(26), fo.es.snes(13)], ids=lambda search: search.name)
def test_searches_too(search):
    def three_generations(team):
        return fo.es.run(
            search._replace(process_group=team), lambda x: (x - 1).square().sum(), torch.linspace(-1, 1, 300), 5, 3, chunk_size=4
        )

    alone, history = three_generations(None)
    for size in (1, 2, 4):
        for state, told in together(size, three_generations):
            assert_trees_equal(state, alone)
            assert_trees_equal(told, history)


def test_ranks_without_members_know_the_dtype_of_fitness():
    third = lambda p: p.double().sum() / 3  # noqa: E731
    grads, info = fo.es.grad(third, popsize=4, sigma=0.1, chunk_size=4, shaping="none")(torch.ones(3), key=0)
    for others, told in together(
        4, lambda team: fo.es.grad(third, popsize=4, sigma=0.1, chunk_size=4, shaping="none", process_group=team)(torch.ones(3), key=0)
    ):
        assert told.fitness.dtype == torch.float64 and torch.equal(told.fitness, info.fitness) and torch.equal(others, grads)


def test_ranks_settle_on_the_smallest_chunk(monkeypatch):
    from funcopt.es.estimate import ranks as module

    monkeypatch.setattr(
        module, "auto_chunk", lambda perturbations, task, popsize: 4 if threading.current_thread().name.endswith("1") else 16
    )
    sizes = []

    def act(team):
        threading.current_thread().name = f"rank {team.rank}"
        result = fo.es.grad(lambda p: sizes.append(None) or p.square().sum(), popsize=32, sigma=0.1, process_group=team, vectorize="vmap")(
            torch.ones(3), key=0
        )
        return result[0]

    first, second = together(2, act)
    assert torch.equal(first, second) and len(sizes) == 8  # chunks of four members, not of sixteen


def test_an_objective_that_one_rank_cannot_evaluate_stops_all():
    def act(team):
        def here(p):
            if team.rank == 1:
                raise OSError("no such file")
            return p.sum()

        return fo.es.grad(here, popsize=4, sigma=0.1, process_group=team)(torch.ones(3), key=0)

    first, second = together(2, act)
    assert "rank 1 cannot evaluate the objective; its own message says why" in str(first) and "no such file" in str(second)


def test_too_few_chunks_are_told():
    settings = {"popsize": 32, "sigma": 0.1}
    with pytest.warns(UserWarning, match=r"es.grad: chunks of 32 members leave ranks of 4 without work; say chunk_size=8 or less"):
        together(4, lambda team: fo.es.grad(lambda p: p.sum(), process_group=team, **settings)(torch.ones(3), key=0))


def test_several_objectives():
    settings = {"popsize": 10, "sigma": 0.1, "chunk_size": 2, "weights": (1.0, 0.5)}
    both = lambda p: (p.sum(), p.square().sum())  # noqa: E731
    grads, info = fo.es.grad(both, **settings)(torch.ones(4), key=0)
    for others, told in together(4, lambda team: fo.es.grad(both, process_group=team, **settings)(torch.ones(4), key=0)):
        assert torch.equal(others, grads) and torch.equal(told.fitness, info.fitness)


def test_what_fails_on_a_rank_is_nan_on_all():
    def sometimes(p):
        if p[0] > 0:
            raise ArithmeticError("not here")
        return p.sum()

    settings = {"popsize": 8, "sigma": 0.1, "vectorize": "loop", "chunk_size": 1, "antithetic": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = [
            together(size, lambda team: fo.es.grad(sometimes, process_group=team, **settings)(torch.zeros(3), key=0)) for size in (1, 2)
        ]
    for grads, info in [*results[0], *results[1]]:
        assert torch.equal(grads, results[0][0][0]) and grads[0] > 0
        assert 0 < info.n_failed < 8 and info.n_failed == info.fitness.isnan().sum()

    def never(p):
        raise ArithmeticError("never")

    errors = together(2, lambda team: fo.es.grad(never, process_group=team, **settings)(torch.zeros(3), key=0))
    assert all(isinstance(error, RuntimeError) and "every member raised on its rank" in str(error) for error in errors)


def test_ranks_that_drifted_apart_are_told():
    def drifted(team):
        return fo.es.grad(lambda p: p.sum(), popsize=4, sigma=0.1, chunk_size=2, process_group=team)(
            torch.ones(3) + 1e-6 * team.rank, key=0
        )

    def other_key(team):
        return fo.es.grad(lambda p: p.sum(), popsize=4, sigma=0.1, chunk_size=2, process_group=team)(torch.ones(3), key=team.rank)

    for act in (drifted, other_key):
        assert all("the ranks hold different parameters or keys; broadcast them from one rank" in str(error) for error in together(2, act))


def test_needs_ranks():
    with pytest.raises(ValueError, match="es.grad: process_group needs ranks that know each other; start with torchrun"):
        fo.es.grad(lambda p: p.sum(), popsize=4, sigma=0.1, process_group=True)(torch.ones(3), key=0)


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 4])
def test_processes_under_gloo_give_the_same_bits(size, tmp_path):
    torch.multiprocessing.spawn(programs.rank, args=(size, str(tmp_path / "store"), str(tmp_path)), nprocs=size)
    alone, _ = fo.es.grad(programs.bowl, **programs.SHARED)({"w": torch.linspace(-1, 1, 9000)}, 0.5, key=3)
    for number in range(size):
        assert torch.equal(torch.load(tmp_path / f"{number}.pt", weights_only=True), alone["w"])
