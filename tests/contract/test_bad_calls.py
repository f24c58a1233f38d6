"""What a bad call is answered with: a sentence that names who refuses, the argument, the rule, what it got and what to do.

Two tables: slips that people make, each with what the sentence tells them; and every parameter of every public function whose
annotation rules something out, with values that it rules out.
"""

import copy
import inspect
import pickle
import re
import warnings

import numpy as np
import pytest
import torch

import funcopt as fo
from funcopt.core.door.kinds import kind
from tests.core.test_front import public, sample

MODEL = torch.nn.Linear(2, 1)
PARAMS = {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}
GRADS = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
LEAVES = [torch.nn.Parameter(torch.zeros(2))]
W = torch.zeros(3)


def step(loss, **settings):
    made = fo.make_step(loss, fo.sgd(0.1), **settings)
    return made(*made.init(torch.ones(2)))


def copies(loss):
    pop = fo.population.make_step(loss, fo.sgd, hyper={"lr": [0.1, 0.2]})
    return pop(*pop.init(fo.population.repeat(torch.ones(2), 2)))


def updated(tx, grads=GRADS, params=PARAMS, state=None, **extra):
    return tx.update(grads, tx.init(PARAMS) if state is None else state, params, **extra)


def link(update):
    return fo.GradientTransformation(lambda params: (), update, name="mine")


ADAM = fo.adam(0.1)
NAMED = re.escape("write dict(model.named_parameters())")
SLIPS = {
    # --- params
    "init of a module": (lambda: ADAM.init(MODEL), TypeError, f"params must be a tree of tensors, got the module Linear; {NAMED}"),
    "init of parameters()": (lambda: ADAM.init(MODEL.parameters()), TypeError, f"got a generator, as model.parameters.. gives; {NAMED}"),
    "init of named_parameters()": (lambda: ADAM.init(MODEL.named_parameters()), TypeError, f"got a generator.*{NAMED}"),
    "init of a list of pairs": (lambda: ADAM.init(list(MODEL.named_parameters())), TypeError, f"got the string 'weight' at '0.0'.*{NAMED}"),
    "init of an iterator": (lambda: ADAM.init(iter(LEAVES)), TypeError, f"got a list_iterator.*{NAMED}"),
    "init of a filter": (lambda: ADAM.init(filter(None, LEAVES)), TypeError, f"got a filter.*{NAMED}"),
    "init of an optimizer": (lambda: ADAM.init(torch.optim.SGD(LEAVES, 0.1)), TypeError, f"got the optimizer torch.SGD; {NAMED}"),
    "init of numbers": (lambda: ADAM.init({"a": 3.0}), TypeError, r"got 3.0 at 'a'; write torch.as_tensor\("),
    "init of an array": (lambda: ADAM.init({"a": np.ones(2)}), TypeError, r"got array\(.*at 'a'; write torch.as_tensor\("),
    "init of a function": (lambda: ADAM.init(lambda: W), TypeError, "params must be a tree of tensors, got function"),
    "init of ints": (lambda: ADAM.init(torch.arange(3)), TypeError, "needs floating point leaves, got int64 at ''; mask it out"),
    "init of complex leaves": (
        lambda: fo.clip(1.0).init(torch.zeros(2) * 1j),
        TypeError,
        "got complex64 at ''; wrap it in split_real_and_imaginary",
    ),
    "init of a sparse leaf": (
        lambda: ADAM.init(torch.eye(2).to_sparse()),
        TypeError,
        r"params must be dense, got a sparse_coo tensor at ''; call .to_dense\(\)",
    ),
    "init of float8": (
        lambda: ADAM.init(W.to(torch.float8_e4m3fn)),
        TypeError,
        "params must be of a dtype that computes, got float8_e4m3fn at ''",
    ),
    "a search of a module": (
        lambda: fo.es.snes(4, 0.1).init(MODEL, 0),
        TypeError,
        f"es.snes: params must be a tree of tensors, got the module Linear; {NAMED}",
    ),
    # --- updates
    "no state": (
        lambda: ADAM.update(GRADS),
        TypeError,
        r"update needs the state; write updates, state = tx.update\(updates, state, params\)",
    ),
    "state of another": (
        lambda: updated(ADAM, state=fo.sgd(0.1).init(PARAMS)),
        ValueError,
        "at '0' it is EmptyState in place of ScaleByAdamState",
    ),
    "state of a link": (
        lambda: updated(ADAM, state=fo.trace(0.9).init(PARAMS)),
        ValueError,
        "must have one part for each of the 3 links, got 1; is it the state of another chain",
    ),
    "state of other params": (
        lambda: updated(ADAM, state=ADAM.init({"weight": W})),
        ValueError,
        "at '0.mu' it is a dict of weight in place of a dict of bias",
    ),
    "state of other shapes": (
        lambda: updated(ADAM, state=ADAM.init({"weight": torch.zeros(5), "bias": torch.zeros(7)})),
        ValueError,
        r"at '0.mu.weight' it is a tensor of shape \(5,\) in place of a tensor of shape \(1, 2\)",
    ),
    "no state at all": (
        lambda: ADAM.update(GRADS, None, PARAMS),
        ValueError,
        "it is None in place of a tuple of 3; it is the state of another",
    ),
    "the transformation for the state": (lambda: updated(ADAM, state=ADAM), ValueError, "is it the state of another chain"),
    "a dict for the state": (lambda: updated(fo.sgd(0.1), state={"lr": 1}), ValueError, "sta"),
    "state of a longer chain": (
        lambda: updated(fo.chain(fo.sgd(0.1)), state=fo.chain(fo.sgd(0.1), fo.clip(1.0)).init(PARAMS)),
        ValueError,
        "chain: the state must have one part for each of the 1 links, got 2; is it the state of another chain",
    ),
    "state of a named chain": (
        lambda: updated(fo.named_chain(("a", fo.sgd(0.1))), state=fo.named_chain(("b", fo.sgd(0.1))).init(PARAMS)),
        ValueError,
        "named_chain: the state must have the parts a, got b",
    ),
    "gradients of fewer leaves": (
        lambda: updated(ADAM, {"weight": GRADS["weight"]}),
        ValueError,
        "at 'bias' params has a leaf and updates has none",
    ),
    "a gradient that is None": (
        lambda: updated(ADAM, {**GRADS, "bias": None}),
        ValueError,
        "at 'bias' params has a leaf and updates has none",
    ),
    "gradients of other shapes": (
        lambda: updated(ADAM, {**GRADS, "bias": W}),
        ValueError,
        r"at 'bias' updates has shape \(3,\) and params \(1,\)",
    ),
    "gradients that are numbers": (
        lambda: ADAM.update(1.0, ADAM.init(W), W),
        TypeError,
        "updates must be a tree of tensors, got 1.0; write torch.as_tensor",
    ),
    "params that are numbers": (
        lambda: ADAM.update(W, ADAM.init(W), 1.0),
        TypeError,
        "params must be a tree of tensors, got 1.0; write torch.as_tensor",
    ),
    "params that are a module": (
        lambda: ADAM.update(W, ADAM.init(W), MODEL),
        TypeError,
        f"params must be a tree of tensors, got the module Linear; {NAMED}",
    ),
    "sparse gradients": (
        lambda: updated(ADAM, {**GRADS, "weight": GRADS["weight"].to_sparse()}),
        TypeError,
        r"updates must be dense, got a sparse_coo tensor at 'weight'; call .to_dense\(\), or build the layer with sparse=False",
    ),
    "complex gradients": (
        lambda: updated(ADAM, {**GRADS, "bias": GRADS["bias"] * 1j}),
        TypeError,
        "the gradient of a real leaf must be real, got complex64",
    ),
    "no params for decay": (
        lambda: updated(fo.adamw(0.1), params=None),
        ValueError,
        r"needs the params; call update\(updates, state, params\)",
    ),
    "no loss for a controller": (lambda: updated(fo.aees(fo.sgd(0.1))), ValueError, "needs the loss of this step"),
    "no rate": (lambda: updated(fo.sgd(None)), ValueError, "lr_scale: needs 'base_lr' and nobody to its left says it; pass lr="),
    # --- transformations of one's own
    "no extra": (
        lambda: link(lambda updates, state, params=None: (updates, state)),
        TypeError,
        r"mine: update must take any extra keyword.*\*\*extra",
    ),
    "update is no function": (lambda: link(3), TypeError, "mine: update must be a function, got 3"),
    "init is no function": (lambda: fo.GradientTransformation(None, lambda *a, **k: a), TypeError, "init must be a function, got None"),
    "hears one string": (lambda: fo.GradientTransformation(W, lambda *a, **k: a, hears="loss"), TypeError, "must be a"),
    "links of one": (
        lambda: fo.GradientTransformation(lambda p: (), lambda *a, **k: a, name="mine", links=ADAM),
        TypeError,
        "links must be a sequence",
    ),
    "stateless of a number": (lambda: fo.stateless(0.5), TypeError, "stateless: f must be a function"),
    "a transformation is pickled": (lambda: pickle.dumps(ADAM), TypeError, "cannot be pickled; save its state with funcopt.checkpoint"),
    "a step of torch's": (
        lambda: ADAM.step(),
        AttributeError,
        r"no attribute 'step'; a transformation is a pair of functions.*fo.torch_optim.Optimizer",
    ),
    "zero_grad": (lambda: ADAM.zero_grad(), AttributeError, "no attribute 'zero_grad'; a transformation is a pair of functions"),
    # --- chains
    "chain of a list": (
        lambda: fo.chain([ADAM, ADAM]),
        TypeError,
        r"every link must be a GradientTransformation, got a list of 2 of them; write chain\(\*links\)",
    ),
    "chain of a factory": (lambda: fo.chain(fo.clip(1.0), fo.adam), TypeError, r"got the function adam; call it: adam\(\.\.\.\)"),
    "chain of a torch class": (
        lambda: fo.chain(torch.optim.Adam),
        TypeError,
        r"fo.torch_optim.from_torch\(torch.optim.Adam, lr=\.\.\.\) makes one of it",
    ),
    "chain of a torch optimizer": (
        lambda: fo.chain(torch.optim.SGD(LEAVES, 0.1)),
        TypeError,
        r"got the optimizer torch.SGD; fo.torch_optim.from_torch",
    ),
    "chain of our shim": (
        lambda: fo.chain(fo.torch_optim.adamw(LEAVES)),
        TypeError,
        r"funcopt.adamw; its transformation is fo.adamw\(\.\.\.\)",
    ),
    "chain of our class": (lambda: fo.chain(fo.torch_optim.adamw), TypeError, r"its transformation is fo.adamw\(\.\.\.\)"),
    "chain of a number": (lambda: fo.chain(0.1), TypeError, "every link must be a GradientTransformation, got 0.1"),
    "chain of a state": (lambda: fo.chain(ADAM.init(W)), TypeError, "every link must be a GradientTransformation, got"),
    "named_chain of links": (
        lambda: fo.named_chain(ADAM, ADAM),
        TypeError,
        r"named_chain: every link must be a pair of a name and a transformation.*write named_chain\(\(name, tx\)",
    ),
    "partition of factories": (lambda: fo.partition({"a": fo.sgd}, "a"), TypeError, "partition: transforms must map labels.*call it: sgd"),
    "lookahead of a factory": (
        lambda: fo.lookahead(fo.adam, 5, 0.5),
        TypeError,
        "lookahead: fast_optimizer must be a GradientTransformation.*call it: adam",
    ),
    "apply_if_finite of a factory": (lambda: fo.apply_if_finite(fo.adam, 3), TypeError, "apply_if_finite: inner must be.*call it: adam"),
    "pool of factories": (lambda: fo.roulette({"a": fo.Member(fo.sgd, lr=0.1)}), TypeError, "Member: transformation must be.*call it: sgd"),
    "injected transformation": (
        lambda: fo.inject_hyperparams(fo.adam(0.1)),
        TypeError,
        "must be the function that makes a transformation, not what it returns",
    ),
    "adaptive of a transformation": (
        lambda: fo.adaptive(fo.adam(0.1)),
        TypeError,
        "adaptive: factory must be the function that makes a transformation",
    ),
    # --- numbers and schedules
    "lr of a string": (lambda: fo.sgd("0.1"), TypeError, "must be a number"),
    "lr of a vector": (lambda: fo.sgd(torch.ones(2)), ValueError, r"lr must be a number or a 0-dim tensor, got a tensor of shape \(2,\)"),
    "lr below zero": (lambda: fo.sgd(-0.1), ValueError, "lr must be >= 0, got -0.1"),
    "lr of nan": (lambda: fo.sgd(float("nan")), ValueError, "lr must be >= 0, got nan"),
    "lr of a bool": (lambda: fo.sgd(True), TypeError, "lr must be a number.*got True"),
    "lr of a list": (lambda: fo.sgd([0.1]), TypeError, "lr must be a number"),
    "betas in one": (lambda: fo.adam(0.1, (0.9, 0.999)), TypeError, "b1 must be a number"),
    "b1 of one": (lambda: fo.adam(0.1, 1.0), ValueError, r"b1 must be in \[0, 1\), got 1.0"),
    "a schedule that is not called": (
        lambda: fo.sgd(fo.schedules.cosine_decay_schedule),
        TypeError,
        "lr must be a number or a function of the count.*call it",
    ),
    "a schedule without the count": (
        lambda: fo.sgd(lambda: 0.1),
        TypeError,
        "lr must be a number or a function of the count of steps alone, got <lambda>, which takes nothing",
    ),
    "a schedule of a class": (lambda: fo.sgd(int), TypeError, "got the class int"),
    "a schedule of a module": (lambda: fo.sgd(MODEL), TypeError, "lr must be a number or a function of the count of steps"),
    "a schedule that gives a vector": (
        lambda: fo.sgd(lambda count: torch.ones(2)),
        ValueError,
        r"the schedule of lr must give a number.*shape \(2,\)",
    ),
    "a schedule that gives nan": (
        lambda: fo.sgd(lambda count: float("nan")),
        ValueError,
        "the schedule of lr must give finite numbers, got nan",
    ),
    "a schedule that gives a nan tensor": (
        lambda: fo.sgd(lambda count: torch.tensor(torch.nan)),
        ValueError,
        "lr at step 0 must be >= 0, got nan",
    ),
    "a schedule below zero": (
        lambda: fo.adamw(0.1, weight_decay=lambda count: -1.0),
        ValueError,
        "weight_decay at step 0 must be >= 0, got -1.0",
    ),
    "a schedule that gives a string": (
        lambda: fo.sgd(lambda count: "fast"),
        TypeError,
        "the schedule of lr must give a number or a 0-dim tensor, got 'fast'",
    ),
    "a schedule that gives a schedule": (
        lambda: fo.sgd(lambda count: fo.schedules.constant_schedule(1.0)),
        TypeError,
        "the schedule of lr must give a number",
    ),
    "a schedule that gives None": (
        lambda: fo.sgd(lambda count: None),
        TypeError,
        "the schedule of lr must give a number or a 0-dim tensor, got None",
    ),
    "a scheduler of torch": (
        lambda: fo.sgd(torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(LEAVES, 0.1), lambda n: 1.0)),
        TypeError,
        "lr must be a number",
    ),
    "a vector later": (
        lambda: updated(fo.sgd(lambda count: torch.ones(2) if not fo.core.versions.compiling() and int(count) == -1 else torch.ones(2))),
        ValueError,
        "the schedule of lr",
    ),
    "scale_by_schedule of a number": (lambda: fo.scale_by_schedule(0.1), TypeError, "scale_by_schedule: schedule must be"),
    "scale_by_schedule of a vector": (lambda: fo.scale_by_schedule(lambda count: torch.ones(2)), ValueError, "scale_by_schedule: "),
    "k of zero": (lambda: fo.multi_steps(ADAM, 0), ValueError, "every_k_schedule must be >= 1, got 0"),
    "a schedule of k of zero": (
        lambda: fo.multi_steps(ADAM, lambda made: 0),
        ValueError,
        "multi_steps: what every_k_schedule gives must be >= 1, got 0",
    ),
    "a schedule of k of a half": (
        lambda: fo.multi_steps(ADAM, lambda made: 1.5),
        TypeError,
        "multi_steps: what every_k_schedule gives must be an int, got 1.5",
    ),
    "a schedule of k of a float tensor": (
        lambda: fo.multi_steps(ADAM, lambda made: torch.ones(())),
        ValueError,
        "must give an int or a 0-dim integer tensor",
    ),
    "a schedule of k of a vector": (
        lambda: fo.multi_steps(ADAM, lambda made: torch.ones(2).long()),
        ValueError,
        "must give an int or a 0-dim integer tensor",
    ),
    "k of a word": (lambda: fo.multi_steps(ADAM, "4"), TypeError, "every_k_schedule must be an int"),
    # --- make_step
    "a step of a factory": (
        lambda: fo.make_step(lambda w: w.sum(), fo.adam),
        TypeError,
        "make_step: tx must be a GradientTransformation.*call it: adam",
    ),
    "a step of a torch optimizer": (lambda: fo.make_step(lambda w: w.sum(), torch.optim.SGD(LEAVES, 0.1)), TypeError, "from_torch"),
    "a step of a loss": (lambda: fo.make_step(torch.ones(()), ADAM), TypeError, "make_step: loss_fn must be a function"),
    "a step the other way round": (lambda: fo.make_step(ADAM, lambda w: w.sum()), TypeError, "make_step: "),
    "a loss of many": (
        lambda: step(lambda w: w**2),
        ValueError,
        r"make_step: loss_fn must return one number.*shape \(2,\); take its mean or sum",
    ),
    "a loss and more": (lambda: step(lambda w: (w.sum(), 1)), TypeError, "got a tuple of 2; pass has_aux=True"),
    "has_aux without": (
        lambda: step(lambda w: w.sum(), has_aux=True),
        TypeError,
        r"with has_aux=True loss_fn must return a pair \(loss, aux\)",
    ),
    "has_aux of three": (lambda: step(lambda w: (w.sum(), 1, 2), has_aux=True), TypeError, "must return a pair"),
    "a loss that is detached": (
        lambda: step(lambda w: w.detach().sum()),
        ValueError,
        "make_step: the loss does not depend on params, so that nothing would be trained",
    ),
    "a loss without gradients": (lambda: step(torch.no_grad()(lambda w: w.sum())), ValueError, "the loss does not depend on params"),
    "a loss that is constant": (lambda: step(lambda w: torch.tensor(1.0)), ValueError, "the loss does not depend on params"),
    "a loss that is an item": (lambda: step(lambda w: w.sum().item()), TypeError, "got 2.0; leave out .item.. and float"),
    "a loss that is an integer": (
        lambda: step(lambda w: (w > 0).sum()),
        TypeError,
        "got int64, which has no gradient; an objective without one is for fo.es.grad",
    ),
    "a loss that is complex": (lambda: step(lambda w: (w * 1j).sum()), TypeError, "must return a real floating point loss, got complex64"),
    "a loss that is None": (lambda: step(lambda w: None), TypeError, "must return the loss as a 0-dim tensor.*got None"),
    "a loss that is a dict": (
        lambda: step(lambda w: {"loss": w.sum()}),
        TypeError,
        "must return the loss, a 0-dim tensor, got a dict of 1",
    ),
    "a loss that is detached, accumulated": (lambda: detached_parts(), ValueError, "the loss does not depend on params"),
    "a loss that is detached, with aux": (
        lambda: step(lambda w: (w.detach().sum(), 1), has_aux=True),
        ValueError,
        "the loss does not depend on params",
    ),
    "copies with a detached loss": (
        lambda: copies(lambda w: w.detach().sum()),
        ValueError,
        "population.make_step: the loss does not depend on params",
    ),
    "copies with a loss of many": (lambda: copies(lambda w: w**2), ValueError, "population.make_step: loss_fn must return one number"),
    "copies with an integer loss": (lambda: copies(lambda w: (w > 0).sum()), TypeError, "population.make_step: .*got int64"),
    "copies with a pair": (lambda: copies(lambda w: (w.sum(), 1)), TypeError, "population.make_step: .*pass has_aux=True"),
    "init of a module in a step": (
        lambda: fo.make_step(lambda w: w, ADAM).init(MODEL),
        TypeError,
        f"make_step: params must be.*got the module Linear; {NAMED}",
    ),
    "init of a generator in a step": (lambda: fo.make_step(lambda w: w, ADAM).init(MODEL.parameters()), TypeError, f"make_step: .*{NAMED}"),
    "a step without init": (lambda: fo.make_step(lambda w: w.sum(), ADAM)(MODEL, None), TypeError, f"make_step: params must be.*{NAMED}"),
    "a step without a state": (
        lambda: fo.make_step(lambda w: w.sum(), ADAM)(W, None),
        ValueError,
        r"init must come first; write params, state = step.init\(params\)",
    ),
    "a step with another's state": (
        lambda: other_state(),
        ValueError,
        "make_step: state must be in the form that step.init gives, but at '0' it is EmptyState",
    ),
    "a step with swapped arguments": (lambda: swapped(), ValueError, "make_step: params must be in the form that step.init gives"),
    "a step is pickled": (
        lambda: pickle.dumps(fo.make_step(lambda w: w, ADAM)),
        TypeError,
        "a step is made of functions and cannot be pickled",
    ),
    "accumulate of zero": (lambda: fo.make_step(lambda w: w, ADAM, accumulate=0), ValueError, "accumulate must be >= 1, got 0"),
    "compile of a word": (
        lambda: fo.make_step(lambda w: w, ADAM, compile="yes"),
        ValueError,
        "compile must be one of True, False, 'ahead'",
    ),
    "flat of a word": (lambda: fo.make_step(lambda w: w, ADAM, flat="yes"), ValueError, "flat must be one of True, False, 'auto'"),
    "in_dims of a word": (lambda: fo.make_step(lambda w: w, ADAM, in_dims="batch"), TypeError, "in_dims must be an axis"),
    "copies of a number": (
        lambda: fo.population.make_step(lambda w: w, 3),
        TypeError,
        "factory must be a function that makes a transformation",
    ),
    "functional of a function": (lambda: fo.functional(lambda x: x), TypeError, "functional: "),
    # --- states, checkpoints, trees
    "find what is not there": (
        lambda: fo.find(ADAM.init(W), "momentum"),
        KeyError,
        "no part of the state is called 'momentum'; it has .*mu, nu",
    ),
    "find in a dict": (lambda: fo.find({}, "mu"), KeyError, "it has no named parts; give the state of a transformation"),
    "find what is there twice": (lambda: fo.find(fo.chain(fo.trace(0.9), fo.trace(0.8)).init(W), "trace"), KeyError, "use find_all"),
    "replace what is not there": (
        lambda: fo.replace(ADAM.init(W), "momentum", W),
        KeyError,
        "no part of the state is called 'momentum'; it has",
    ),
    "save a number": (lambda: fo.checkpoint.state_dict({"step": 3}), TypeError, "every leaf must be a tensor, got int at 'step'"),
    "save a module": (lambda: fo.checkpoint.state_dict(MODEL), TypeError, "every leaf must be a tensor, got Linear"),
    "load what is no file": (
        lambda: fo.checkpoint.load("nowhere.pt", W),
        FileNotFoundError,
        "checkpoint.load: there is no file nowhere.pt",
    ),
    "an average of other shapes": (
        lambda: fo.incremental_update(torch.ones(2), torch.ones(1), 0.5),
        ValueError,
        r"new and old must be alike.*\(2,\) and old \(1,\)",
    ),
    "an average of other trees": (
        lambda: fo.incremental_update(PARAMS, {"weight": W}, 0.5),
        ValueError,
        "incremental_update: new and old must be alike",
    ),
    "a copy of other shapes": (
        lambda: fo.periodic_update(torch.ones(2), torch.ones(1), 0, 2),
        ValueError,
        "periodic_update: new and old must be alike",
    ),
    "updates of other shapes": (
        lambda: fo.apply_updates(torch.ones(2), torch.ones(1)),
        ValueError,
        "apply_updates: updates and params must be alike",
    ),
    "a norm of order three": (lambda: fo.tree.norm(W, 3), ValueError, "tree.norm: ord must be 1, 2 or inf, got 3"),
    # --- searches
    "cma_es of 20,000 numbers": (
        lambda: fo.es.cma_es(8, 0.1).init(torch.zeros(20_000), 0),
        ValueError,
        "es.cma_es: params must hold at most 10000 numbers, got 20000, for which it would keep .* GiB.*use es.sep_cma_es",
    ),
    "an objective that is none": (lambda: fo.es.grad(3, popsize=4, sigma=0.1), TypeError, "es.grad: objective must be a function"),
    "an option that is none": (
        lambda: fo.es.grad_and_value(lambda w: w, popsize=4, sigma=0.1, pop_size=4),
        TypeError,
        "unknown option|takes no 'pop_size'",
    ),
    "an odd popsize": (lambda: fo.es.openai_es(5, 0.1), ValueError, "popsize must be even"),
    "an optimizer that is a factory": (
        lambda: fo.es.openai_es(4, 0.1, optimizer=fo.adam),
        TypeError,
        "optimizer must be a GradientTransformation or None.*call it: adam",
    ),
    "a group that is a word": (
        lambda: fo.es.snes(4, 0.1, process_group="world"),
        TypeError,
        "process_group must be None, True, False or a group of torch.distributed",
    ),
    # --- torch_optim
    "the shim of a factory": (
        lambda: fo.torch_optim.Optimizer(LEAVES, fo.adam),
        TypeError,
        "torch_optim.Optimizer: transformation must be.*call it: adam",
    ),
    "the shim of a torch class": (lambda: fo.torch_optim.Optimizer(LEAVES, torch.optim.Adam), TypeError, "from_torch"),
    "the shim of a module": (lambda: fo.torch_optim.Optimizer(LEAVES, MODEL), TypeError, "torch_optim.Optimizer: transformation must be"),
    "the shim twice its rate": (
        lambda: fo.torch_optim.Optimizer(LEAVES, fo.adam(0.1), lr=0.1),
        ValueError,
        "lr must not be given, since chain has its own rate",
    ),
    "the shim without a rate": (lambda: fo.torch_optim.Optimizer(LEAVES, fo.adam(None)), ValueError, "needs lr"),
    "betas of three": (lambda: fo.torch_optim.adamw(LEAVES, betas=(0.9, 0.9, 0.9)), TypeError, "adamw: betas must be a tuple of 2"),
    "betas of a word": (lambda: fo.torch_optim.adamw(LEAVES, betas="fast"), TypeError, "adamw: betas must be a tuple of 2"),
    "betas of None": (lambda: fo.torch_optim.lamb(LEAVES, betas=None), TypeError, "lamb: betas must be a tuple of 2"),
    "eps of a word": (lambda: fo.torch_optim.adam(LEAVES, eps="small"), TypeError, "adam: eps must be a number"),
    "an inner that is none": (lambda: fo.torch_optim.aees(LEAVES, inner="adamx"), TypeError, "aees: inner must be one of"),
    "an unknown word around": (lambda: fo.torch_optim.aees(LEAVES, learning_rate=0.1), TypeError, "aees: takes no 'learning_rate'"),
    "maximize around": (lambda: fo.torch_optim.aees(LEAVES, maximize="no"), TypeError, "maximize must be True or False, got 'no'"),
    # --- masks, labels, settings
    "a mask of a word in a tree": (lambda: fo.masked(ADAM, {"w": "yes"}), TypeError, "mask must hold bools, got .*; it is a tree of them"),
    "a mask of ones": (lambda: fo.adamw(0.1, weight_decay_mask={"w": 1}), TypeError, "mask must hold bools, got .*; it is a tree of them"),
    "a mask of None in a step": (lambda: fo.masked(ADAM, lambda params: None).init(PARAMS), (TypeError, ValueError), "mask"),
    "a dtype of a word": (lambda: fo.adam(0.1, mu_dtype="bfloat16"), TypeError, "mu_dtype must be"),
    "a dtype of a type": (lambda: fo.adam(0.1, mu_dtype=float), TypeError, "mu_dtype must be"),
    "roles of a dict": (lambda: fo.Member(fo.trace(0.9), lr=0.1, roles={"velocity": "trace"}), TypeError, "Member: roles must be fo.Roles"),
    "a member with a schedule": (lambda: fo.Member(fo.trace(0.9), lr=lambda count: 0.1), TypeError, "Member: lr must be a number"),
    "draws of a number": (
        lambda: fo.roulette({"a": fo.Member(fo.identity(), lr=0.1)}, draw=3),
        TypeError,
        "draw must have the functions init, uniform, choice",
    ),
    "rules that are no rules": (lambda: fo.adaptive(fo.adam, lr="up"), ValueError, "rules: the rules are"),
    "rules that are not called": (
        lambda: fo.adaptive(fo.adam, lr=fo.rules.trend),
        TypeError,
        "lr must be a rule, got the function trend; call it",
    ),
    "a normal seed": (lambda: fo.add_noise(0.1, 0.5, key=0.5), TypeError, "must be an int"),
    "a unit of milestones": (lambda: fo.schedules.piecewise_constant_schedule(0.1, [10, 20]), TypeError, "boundaries_and_scales must be"),
    "join of one schedule": (lambda: fo.schedules.join_schedules(lambda n: n, [1]), TypeError, "schedules must be"),
    "steps of nan": (lambda: fo.schedules.linear_schedule(1.0, 0.0, float("nan")), ValueError, "transition_steps must be finite, got nan"),
    "unroll of numbers": (lambda: fo.unroll(lambda c, i: (c, None), 1.0, steps=2), TypeError, "unroll: carry must be a tree of tensors"),
    # --- numbers that are none, wherever they lie
    "a search's rate in a tensor": (
        lambda: fo.es.snes(4, 0.1, lr=torch.tensor(float("nan"))),
        ValueError,
        "es.snes: lr must be >= 0, got nan",
    ),
    "a spread in a tensor": (
        lambda: fo.es.grad(len, popsize=4, sigma=torch.tensor(-1.0)),
        ValueError,
        "es.grad: sigma must be > 0, got -1.0",
    ),
    "a spread of pairs": (
        lambda: fo.es.persistent(popsize=4, sigma=torch.tensor(0.0)),
        ValueError,
        "es.persistent: sigma must be > 0, got 0.0",
    ),
    "a schedule of a negative spread": (
        lambda: fo.es.estimator(len, popsize=4, sigma=lambda c: -1.0),
        ValueError,
        "es.estimator: sigma at step 0 must be",
    ),
    "a schedule of spreads": (
        lambda: fo.es.estimator(len, popsize=4, sigma=lambda c: W),
        ValueError,
        "the schedule of sigma must give a number or a real 0-dim",
    ),
    "weights of nan": (
        lambda: fo.es.grad(len, popsize=4, sigma=0.1, weights=[1.0, float("nan")]),
        ValueError,
        "es.grad: weights must be finite, got nan",
    ),
    "two points uphill": (lambda: fo.es.spsa_step(len, lr=-0.1), ValueError, "es.spsa_step: lr must be >= 0, got -0.1"),
    "two points that grow": (
        lambda: fo.es.spsa_step(len, lr=0.1, weight_decay=-0.1),
        ValueError,
        "es.spsa_step: weight_decay must be >= 0, got -0.1",
    ),
    "pairs in chunks of none": (
        lambda: fo.es.unrolled(len, len, popsize=4, sigma=0.1, unroll=2, chunk_size=0),
        ValueError,
        "es.unrolled: chunk_size must be >= 1, got 0",
    ),
    "a pole without mass": (lambda: fo.es.cartpole(masspole=-1.0), ValueError, "cartpole: masspole must be > 0, got -1.0"),
    "a gravity of nan": (lambda: fo.es.pendulum(g=torch.tensor(float("nan"))), ValueError, "pendulum: g must be finite, got nan"),
    "no horizon": (lambda: fo.es.mountain_car(horizon=-1), ValueError, "mountain_car: horizon must be >= 1, got -1"),
    "a rule in a tensor": (
        lambda: fo.rules.variance(0.1, strength=torch.tensor(-1.0)),
        ValueError,
        "variance: strength must be >= 0, got -1.0",
    ),
    "a member's rate in a tensor": (
        lambda: fo.Member(fo.scale_by_adam(), lr=torch.tensor(float("nan"))),
        ValueError,
        "Member: lr must be >= 0, got nan",
    ),
    "no rules": (
        lambda: fo.roulette({"a": fo.Member(fo.sgd(0.1))}, seed=0, rules=()),
        ValueError,
        "rules must be made by switch_rules.*an empty tuple",
    ),
    # --- optimizers of torch
    "a module for parameters": (
        lambda: fo.torch_optim.adam(MODEL),
        TypeError,
        r"adam: params must be parameters or groups of them, got the module Linear; write model.parameters\(\)",
    ),
    "parameters not called": (
        lambda: fo.torch_optim.sgd(MODEL.parameters, lr=0.1),
        TypeError,
        r"got the function parameters; call it: parameters\(\)",
    ),
    "a dict of parameters": (
        lambda: fo.torch_optim.lion(dict(MODEL.named_parameters())),
        TypeError,
        r"got a dict; write params.items\(\).*\[params\]",
    ),
    "a number for parameters": (lambda: fo.torch_optim.muon(3), TypeError, "muon: params must be parameters or groups of them, got 3"),
    "a rate of nan in a tensor": (
        lambda: fo.torch_optim.adamw(LEAVES, lr=torch.tensor(float("nan"))),
        ValueError,
        "Invalid learning rate: nan",
    ),
    "a rate below zero in a tensor": (
        lambda: fo.torch_optim.adamw(LEAVES, lr=torch.tensor([-1.0])),
        ValueError,
        "Invalid learning rate: -1.0",
    ),
    "an infinite rate": (lambda: fo.torch_optim.adamw(LEAVES, lr=float("inf")), ValueError, "Invalid learning rate: inf"),
    "betas in tensors": (
        lambda: fo.torch_optim.adam(LEAVES, lr=torch.tensor(0.1), betas=(torch.tensor(2.0), torch.tensor(0.9))),
        ValueError,
        r"b1 must be in \[0, 1\), got 2.0",
    ),
    "a dampening in a tensor": (
        lambda: fo.torch_optim.sgd(LEAVES, lr=0.1, momentum=0.9, dampening=torch.tensor(float("nan"))),
        ValueError,
        "Invalid dampening value: nan",
    ),
    "an infinite decay of the rate": (
        lambda: fo.torch_optim.adagrad(LEAVES, lr_decay=float("inf")),
        ValueError,
        "Invalid lr_decay value: inf",
    ),
    "a start in a tensor": (
        lambda: fo.torch_optim.rate_free(LEAVES, start=torch.tensor(-1.0)),
        ValueError,
        "rate_free: start must be > 0, got -1.0",
    ),
    "a number for a rule": (
        lambda: fo.torch_optim.adaptive(LEAVES, lr=0.1, lr_rule=0.1),
        TypeError,
        "adaptive: a rule must be a name .* or be made by fo.rules",
    ),
    "one arm": (
        lambda: fo.torch_optim.aees(LEAVES, lr=0.1, lr_candidates=0.5),
        TypeError,
        "aees: lr_candidates must be a sequence of numbers, got 0.5",
    ),
    "a number for members": (
        lambda: fo.torch_optim.optiroulette(LEAVES, optimizer_specs=0.5),
        TypeError,
        "optimizer_specs must be a dict or None, got 0.5",
    ),
    "a name for names": (
        lambda: fo.torch_optim.optiroulette(LEAVES, active_names="adam"),
        TypeError,
        "active_names must be a list of names or None, got 'adam'",
    ),
    "a factory that needs more": (
        lambda: fo.torch_optim.optimizer_class(lambda lr, power: fo.sgd(lr)),
        TypeError,
        "optimizer_class: every argument of factory but lr must have a default, got 'power' without one",
    ),
    # --- what a step is told
    "losses for a loss": (
        lambda: updated(fo.momo(1.0), loss=W),
        ValueError,
        r"momo: loss must be a number or a 0-dim tensor, got .*\(3,\)",
    ),
    "a complex loss": (
        lambda: updated(fo.momo_adam(1.0), loss=torch.tensor(1j)),
        TypeError,
        "loss must be a real number, got a complex64 tensor",
    ),
    "losses for a plateau": (
        lambda: updated(fo.chain(fo.sgd(0.1), fo.reduce_on_plateau()), loss=W),
        ValueError,
        "reduce_on_plateau: loss must be a number or a 0-dim tensor",
    ),
    "losses for a search of the rate": (lambda: updated(fo.rate_free(), loss=W), ValueError, "find_rate: loss must be a number or a 0-dim"),
    "losses for a pool": (
        lambda: updated(fo.roulette({"a": fo.Member(fo.sgd(0.1))}, seed=0), loss=W),
        ValueError,
        "roulette: loss must be a number or a 0-dim tensor",
    ),
    "a word for a loss": (lambda: updated(fo.aees(fo.sgd(0.1), (0.5, 1.0)), loss="low"), TypeError, "loss must be a number or a 0-dim"),
    "losses for the best": (
        lambda: updated(fo.keep_best(fo.sgd(0.1)), validation_loss=W),
        ValueError,
        "validation_loss must be a number or",
    ),
    "an expanded parameter": (
        lambda: fo.torch_optim.sgd([torch.nn.Parameter(torch.ones(1).expand(3))], lr=0.1),
        ValueError,
        "every entry of a parameter must have memory of its own, but 0 of group 0 was expanded; clone it",
    ),
    # --- trees
    "updates of a module": (
        lambda: fo.apply_updates(MODEL, GRADS),
        TypeError,
        f"apply_updates: params must be a tree of tensors, got the module Linear; {NAMED}",
    ),
    "updates that are numbers": (
        lambda: fo.apply_updates(PARAMS, {**GRADS, "bias": 1.0}),
        TypeError,
        "updates must be a tree of tensors, got 1.0 at 'bias'",
    ),
    "copies of a module": (
        lambda: fo.population.repeat(MODEL, 3),
        TypeError,
        f"population.repeat: params must be a tree of tensors, got the module.*{NAMED}",
    ),
    "a copy that is not there": (
        lambda: fo.population.member({"w": torch.ones(3, 2)}, 5),
        ValueError,
        "i must be one of the copies, of which 'w' has 3, got 5",
    ),
    "copies of other trees": (
        lambda: fo.population.stack([PARAMS, {"w": W}]),
        ValueError,
        "population.stack: tree 1 and tree 0 must be alike, but at",
    ),
    "labels from paths alone": (
        lambda: fo.by_path(lambda path: True),
        TypeError,
        "by_path: what must be a function of .path, leaf., got one of path; write lambda",
    ),
    "unroll inputs of numbers": (
        lambda: fo.unroll(lambda c, i: (c, None), W, [1, 2]),
        TypeError,
        "unroll: inputs must be a tree of tensors",
    ),
}


def detached_parts():
    made = fo.make_step(lambda w, x: (w.detach() * x).sum(), fo.sgd(0.1), accumulate=2)
    return made(*made.init(torch.ones(2)), torch.ones(4, 2))


def other_state():
    made = fo.make_step(lambda w: w.square().sum(), ADAM)
    params, _ = made.init(W)
    return made(params, fo.sgd(0.1).init(params))


def swapped():
    made = fo.make_step(lambda w: w["weight"].square().sum(), ADAM)
    params, state = made.init(PARAMS)
    return made(state, params)


@pytest.mark.parametrize("call, error, told", SLIPS.values(), ids=SLIPS)
def test_a_slip_is_answered_with_what_to_do(call, error, told):
    with warnings.catch_warnings(), pytest.raises(error) as stopped:
        warnings.simplefilter("ignore")
        call()
    message = stopped.value.args[0]
    assert re.search(told, message), message
    assert "0x" not in message and "'<' not supported" not in message, message


# ------------------------------------------------------------------------------------------- what annotations rule out

A, B, LONGER, WORDS = ({"w": torch.ones(2)}, {"b": torch.ones(2)}, {"w": torch.ones(3)}, {"w": "text"})
NO_TENSORS = "must be a tree of tensors, got str at 'w'"
RAW = {  # what torch and the tree library would say in words of their own: the call, and ours
    "tree.add: leaves must have shapes that fit, but at 'w' the first tree has shape (2,) and the second (3,)": lambda: fo.tree.add(
        A, LONGER
    ),
    "tree.vdot: the trees must have one structure, but at 'b' the second has a leaf": lambda: fo.tree.vdot(A, B),
    "tree.map_plain: the trees must have one structure, but at 'b' the second": lambda: fo.tree.map_plain(lambda x, y: x, A, B),
    f"tree.scale: the tree {NO_TENSORS}": lambda: fo.tree.scale(2.0, WORDS),
    f"tree.zeros_like: the tree {NO_TENSORS}": lambda: fo.tree.zeros_like(WORDS),
    "tree.sum: the tree must be a tree of tensors, got float itself; torch.as_tensor makes one of it": lambda: fo.tree.sum(1.0),
    f"tree.norm: the tree {NO_TENSORS}": lambda: fo.tree.norm(WORDS),
    f"tree.max: the tree {NO_TENSORS}": lambda: fo.tree.max(WORDS),
    f"tree.size: the tree {NO_TENSORS}": lambda: fo.tree.size(WORDS),
    f"tree.all_finite: the tree {NO_TENSORS}": lambda: fo.tree.all_finite(WORDS),
    f"tree.clip: the tree {NO_TENSORS}": lambda: fo.tree.clip(WORDS, 0.0, 1.0),
    "tree.unflatten: leaves must be a list of as many as `like` has, 1, got 2": lambda: fo.tree.unflatten(A, [1, 2]),
    "moments.update_moment: the trees must have one structure, but at 'b'": lambda: fo.moments.update_moment(A, B, 0.5),
    f"moments.update_moment: the first tree {NO_TENSORS}": lambda: fo.moments.update_moment(WORDS, A, 0.5),
    "moments: count must be a 0-dim tensor, the steps taken so far, got 3": lambda: fo.moments.bias_correction(3, 0.9),
    f"Layout: params {NO_TENSORS}": lambda: fo.Layout(WORDS),
    "numerics.safe_norm: x must be a tensor, got 'x'": lambda: fo.numerics.safe_norm("x"),
    "numerics.safe_norm: takes no 'axis'": lambda: fo.numerics.safe_norm(W, axis=0),
    "numerics.safe_norm: needs x": lambda: fo.numerics.safe_norm(),
    "numerics.safe_norm: dim must be axes of a tensor of shape (3,), each once, got 2": lambda: fo.numerics.safe_norm(W, dim=2),
    "numerics.wide_safe_norm: dim must be axes of a tensor of shape (3,)": lambda: fo.numerics.wide_safe_norm(W, dim=(0, -1)),
    "numerics.divide: updates must be a tree of tensors, got the module Linear": lambda: fo.numerics.divide(MODEL, torch.ones(())),
    "power_iteration: matrix must be square and of floating dtype, got float32 of shape (3,)": lambda: fo.numerics.power_iteration(W),
    "power_iteration: v0 must be a vector [2], got shape (3,)": lambda: fo.numerics.power_iteration(torch.eye(2), W),
    "moments.bias_correction: needs at least one decay": lambda: fo.moments.bias_correction(torch.tensor(1)),
    "moments.update_moment: decay must be a number or a tensor, got 'fast'": lambda: fo.moments.update_moment(W, W, "fast"),
    "moments.bias_factors: decays must be a number or a tensor, got 'fast'": lambda: fo.moments.bias_factors(torch.tensor(1), "fast"),
    "projections.projection_vector: x and a must be alike": lambda: fo.projections.projection_vector(W, A),
    "projections.projection_vector: a must be a tree of tensors, got None": lambda: fo.projections.projection_vector(W, None),
    "random.normal: device must be a device or None, got 'gpu'": lambda: fo.random.normal(fo.random.key(0), 2, device="gpu"),
    "random.normal: shape must be an int or a sequence, each an int, got None": lambda: fo.random.normal(fo.random.key(0), None),
    "random.fold_in: i must be an int or a 0-dim integer tensor, got a tensor of shape (2,)": lambda: fo.random.fold_in(
        0, torch.tensor([1, 2])
    ),
    "random.randint: low must be an int or an integer tensor, got a tensor": lambda: fo.random.randint(0, 2, W),
    "tree.zeros_like: dtype must be a torch.dtype or None, got 'half'; write torch.half": lambda: fo.tree.zeros_like(A, "half"),
    "tree.map: f must be a function, got 3": lambda: fo.tree.map(3, A),
    "tree.prune: kept must have a bool for each of 1 leaves, got 2": lambda: fo.tree.prune(A, [True, False], None),
    "tree.subtrees: the tree must have the structure of `like`": lambda: fo.tree.subtrees(A, B),
    "tree.paths_of: must be given a structure": lambda: fo.tree.paths_of(A),
    "reshape_batch_axis: every batch must have the axis 1, but the tree.w has shape (2,)": lambda: fo.microbatching.reshape_batch_axis(
        A, 1, 1
    ),
    "microbatch: argnums must be int or a sequence of them": lambda: fo.microbatching.microbatch(sum, "x", 2),
    "apply_updates: updates must be a tree of tensors": lambda: fo.apply_updates(A, {"w": 1.0}),
    "unitwise_clip: the arguments must fit each other, got g_norm of shape (3,), max_norm of shape (2,)": lambda: fo.unitwise_clip(
        W, torch.ones(2), W
    ),
    "es.gru_cell: the arguments must fit each other, got x of shape (3,)": lambda: fo.es.gru_cell(W, W, torch.eye(3), torch.eye(2)),
    "Signals: words must be a mapping from words to 0-dim tensors, got 3": lambda: fo.Signals(3),
    "schedule: count must be a 0-dim tensor or an int, the steps taken so far, got 'x'": lambda: fo.schedules.cosine_decay_schedule(0.1, 2)(
        "x"
    ),
    "Layout.unravel: flat must be a Flat": lambda: fo.Layout(A).unravel(A),
    "Layout.part: kept must be a list of one for each of 1 leaves, got 0": lambda: fo.Layout(A).part([]),
    "checkpoint.load_state_dict: state must be a tree of tensors, got the module Linear": lambda: fo.checkpoint.load_state_dict(MODEL, {}),
    "population.make_step: hyper must map names to tensors, numbers or lists of them, got 'fast'": lambda: fo.population.make_step(
        len, fo.sgd, hyper={"lr": "fast"}
    ),
    "population.permutations: keys must be a tensor, got []": lambda: fo.population.permutations([], 2),
    "population.PopulationStep: hyper must be a mapping, got None": lambda: fo.population.PopulationStep(
        len, ADAM, hyper=None, in_dims=0, compile=False, donate=False, has_aux=False
    ),
    "reshape_batch_axis: the tree must be a tree of tensors, got 1.0": lambda: fo.microbatching.reshape_batch_axis(1.0, 1),
    "make_step: init must come first": lambda: fo.make_step(len, ADAM).params(A),
    "make_step: params must be in the form that step.init gives": lambda: begun().params(B),
    "make_step: state must be in the form that step.init gives": lambda: begun().state(A),
    "population.make_step: state must be what init gives, got 3": lambda: fo.population.make_step(len, fo.sgd(0.1))(W, 3),
    "es.snes: state must be what init and tell give, got 3": lambda: fo.es.snes(4, 0.1).ask(3),
    "es.merge_observations: stats must be an ObservationStats, got 3": lambda: fo.es.merge_observations(3),
    "functional: params must be a dict of tensors by name": lambda: fo.functional(MODEL)(W, {}, W),
    "sgd: a group must have 'params', got lr": lambda: fo.torch_optim.sgd(LEAVES, lr=0.1).add_param_group({"lr": 0.1}),
}


def begun():
    step = fo.make_step(lambda tree: tree["w"].sum(), ADAM)
    step.init(A)
    return step


@pytest.mark.parametrize("told", RAW)
def test_functions_of_trees_say_what_is_wrong_with_a_tree(told):
    with pytest.raises((TypeError, ValueError), match=re.escape(told)):
        RAW[told]()


def test_what_a_function_of_leaves_raises_by_itself_passes():
    with pytest.raises(ZeroDivisionError):
        fo.tree.map(lambda x: 1 / 0, A)
    with pytest.raises(RuntimeError, match="of its own"):
        fo.tree.map(lambda x, y: (_ for _ in ()).throw(RuntimeError("of its own")), A, LONGER)

    with pytest.raises(ValueError, match="size of tensor"):
        fo.tree.map_with_path(lambda path, x: same_size(x), A)


def same_size(x):
    raise ValueError("size of tensor, said by a function of the caller's")


WRONG = {
    "word": "nonsense",
    "nothing": None,
    "number": 0.5,
    "list": [object()],
    "function": lambda: 0,
    "class": int,
    "complex": 1j,
    "module": MODEL,
    "transformation": ADAM,
    "dict": {3: object()},
}
# Calls that read or write files, or train, whatever they are given first; and what needs an extra that may not be here.
LEFT_OUT = ("race.", "viz.", "distributed.", "es.gymnasium_rollout", "checkpoint.load", "checkpoint.save", "torch_optim.from_torch")


def ruled_out():
    for name, value in public().items():
        door = (
            value
            if inspect.isfunction(value)
            else next((m for m in (vars(value).get("__init__"), value.__new__) if hasattr(m, "__front__")), None)
        )
        if door is None or not hasattr(door, "__front__") or name.startswith(LEFT_OUT):
            continue
        for parameter in inspect.signature(value).parameters.values():
            found = kind(parameter.annotation)
            if found is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            wrong = [
                label for label, given in WRONG.items() if not found.holds(given) and not (given is None and parameter.default is None)
            ]
            if wrong:
                yield name, value, parameter.name, wrong


RULED_OUT: dict[str, list[tuple]] = {}  # by the name of the function
for called, *case in ruled_out():
    RULED_OUT.setdefault(called, []).append(case)


@pytest.mark.parametrize("name", RULED_OUT)
def test_what_an_annotation_rules_out_is_refused_in_a_sentence(name):
    for value, parameter, wrong in RULED_OUT[name]:
        refused_in_a_sentence(value, parameter, wrong)


def refused_in_a_sentence(value, parameter, wrong):
    needed = {
        other.name: sample(other)
        for other in inspect.signature(value).parameters.values()
        if other.name != parameter and other.default is other.empty and other.kind not in (other.VAR_KEYWORD, other.VAR_POSITIONAL)
    }
    for label in wrong:
        with warnings.catch_warnings(), pytest.raises((TypeError, ValueError)) as stopped:
            warnings.simplefilter("ignore")
            value(**needed, **{parameter: WRONG[label]})
        message = str(stopped.value)
        assert re.match(r"[\w.]+( [\w.]+)?(: '[^']*')?: ", message), f"{parameter}, {label}: {message}"
        assert re.search(
            r"must|needs|takes|expected|of which|unknown|the rules are|the settings are|there are|has no|knows|bounds are for|a name is|"
            r"is (one|for|the)",
            message,
        ), f"{parameter}, {label}: {message}"


@pytest.mark.parametrize("name", [name for name, value in public().items() if hasattr(value, "__retold__")])
def test_what_runs_in_a_step_says_why_it_has_failed(name):
    value, told = public()[name], []
    parameters = inspect.signature(value).parameters.values()
    for parameter in parameters:
        found = kind(parameter.annotation)
        wrong = [] if found is None or parameter.kind is parameter.VAR_KEYWORD else [x for x in WRONG.values() if not found.holds(x)]
        for given in wrong:
            places = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
            needed = {p.name: sample(p) for p in places if p is not parameter}
            try:
                if parameter.kind is parameter.VAR_POSITIONAL:
                    value(*needed.values(), given)
                else:
                    value(**needed, **{parameter.name: given})
            except (TypeError, ValueError, KeyError) as error:  # and nothing else
                told.append(str(error.args[0]))
    raw = [message for message in told if not re.match(r"[\w.]+(: '[^']*')?: ", message)]
    assert not raw, raw


def test_there_are_hundreds_of_bad_calls():
    assert len(SLIPS) >= 150
    assert len(SLIPS) + sum(len(wrong) for cases in RULED_OUT.values() for _, _, wrong in cases) >= 2000


# ------------------------------------------------------------------------------------------------------- and what is right


def test_a_copy_of_a_step_steps_as_the_original():
    made = fo.make_step(lambda w: w.square().sum(), ADAM)
    params, state = made.init(torch.ones(2))
    other = copy.deepcopy(made)
    assert other is not made
    for ours, theirs in zip(fo.tree.leaves(made(params, state)), fo.tree.leaves(other(params, state)), strict=True):
        assert torch.equal(ours, theirs)


def test_a_transformation_is_its_own_copy():
    assert copy.deepcopy(ADAM) is ADAM and copy.copy(ADAM) is ADAM


def test_a_detached_loss_is_refused_in_a_graph_too(monkeypatch):
    import funcopt.execute.runner as module

    monkeypatch.setattr(module, "compiled", lambda f, name, options, dynamic=None: torch.compile(f, backend="eager", fullgraph=True))
    with pytest.raises(ValueError, match="make_step: the loss does not depend on params"):
        step(lambda w: w.detach().sum(), compile=True)
    step(lambda w: w.square().sum(), compile=True)


def test_a_loss_may_be_constant_where_nothing_is_trained():
    made = fo.make_step(lambda params: torch.tensor(1.0), fo.sgd(0.1))
    assert float(made(*made.init({}))[2]) == 1.0


def test_a_warm_up_may_begin_at_zero_where_a_number_must_be_positive():
    fo.es.clipup(fo.schedules.linear_schedule(0.0, 1.0, 10), max_speed=0.1)


def test_schedules_are_looked_at_without_a_host_read_later():
    seen = []

    def rate(count):
        seen.append(count)
        return 0.1 / (count + 1)

    tx = fo.sgd(rate)
    state = tx.init(W)
    seen.clear()
    tx.update(W, state)
    assert len(seen) == 1
