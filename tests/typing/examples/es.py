"""What an editor knows of `fo.es`: a search, its state, and what a run gives."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import assert_type

import funcopt as fo
from funcopt import es


def bowl(x: Tensor) -> Tensor:
    return x.square().sum()


search = fo.es.cma_es(popsize=8, sigma=0.5, variant="pycma")
assert_type(search, es.Search[es.CMAESState])
state = search.init(torch.zeros(3), key=fo.random.key(0))
assert_type(state, es.CMAESState)
population, state = search.ask(state)
assert_type(population, es.Population)
assert_type(population.popsize, int)
state = search.tell(state, torch.zeros(8), population=population)
state = search.tell(state, np.zeros(8))
state = search.tell(state, [0.0] * 8)
assert_type(state, es.CMAESState)
assert_type(state.p_sigma, Tensor)
assert_type(search.best(state)[1], Tensor)
assert_type(search.name, str)

assert_type(es.snes(), es.Search[es.SNESState])
assert_type(es.xnes(), es.Search[es.XNESState])
assert_type(es.pgpe(), es.Search[es.PGPEState])
assert_type(es.ars(), es.Search[es.ARSState])
assert_type(es.cem(), es.Search[es.CEMState])
assert_type(es.openai_es(lr=0.1), es.Search[es.OpenAIESState])
assert_type(es.sep_cma_es(), es.Search[es.SepCMAESState])
assert_type(es.simple_es(), es.Search[es.SimpleESState])
assert_type(es.restarts(es.cma_es, strategy="bipop"), es.Search[es.RestartsState])

last, history = es.run(es.snes(popsize=6), bowl, torch.ones(3), 0, 5)
assert_type(last, es.SNESState)
assert_type(history, es.History)
assert_type(history.best, Tensor)


es.run(es.snes(), bowl, torch.ones(3), 0, 5, chunk_size="auto", vectorize="vmap", compile={"mode": "max-autotune"})
es.evaluator(bowl, common_random_numbers="pairs", has_aux=True)
es.grad_and_value(bowl, popsize=2, sigma=0.1, shaping="centered_rank", antithetic=True)
es.estimator(bowl, popsize=4, sigma=0.1, subspace=1, maximize=True)
es.layerwise(bowl, popsize=4, sigma=0.1, tie="last")


def any_search(search: es.Search) -> None:
    """Without a word on its state a search takes any."""
    started = search.init(torch.zeros(3), 0)
    search.tell(started, search.best(started)[1].expand(4))
