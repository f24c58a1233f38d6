"""unroll: derivatives through many updates equal finite differences, with and without checkpoints, and checkpoints save memory."""

import weakref

import pytest
import torch
from torch.func import grad, grad_and_value, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from tests.helpers import assert_trees_close

STEPS = 7
X = torch.linspace(-1, 1, 4 * STEPS * 2, dtype=torch.float64).reshape(STEPS, 4, 2)
Y = torch.sin(3 * X.sum(-1))
CHECKPOINTS = (None, 1, 3, STEPS, 100, "sqrt")


def start():
    return {"w": torch.linspace(-0.5, 0.7, 6, dtype=torch.float64).reshape(2, 3), "v": torch.linspace(0.2, 0.9, 3, dtype=torch.float64)}


def loss_fn(params, x, y):
    return ((torch.tanh(x @ params["w"]) @ params["v"] - y) ** 2).mean()


def trained(make, hyper, params, checkpoint_every=None):
    """The loss after an epoch, and the mean of the losses on the way, as a function of hyperparameters and initial params."""

    def step(carry, batch, hyper):
        params, state = carry
        gradients, loss = grad_and_value(loss_fn)(params, *batch)
        updates, state = make(**hyper).update(gradients, state, params, loss=loss)
        return (fo.apply_updates(params, updates), state), loss

    state = make(**hyper).init(params)
    (params, _), losses = fo.unroll(step, (params, state), (X, Y), hyper, checkpoint_every=checkpoint_every)
    return loss_fn(params, X[0], Y[0]) + losses.mean()


def numbers(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def pool(lr):
    members = {"adam": fo.Member(fo.scale_by_adam(), lr=lr), "momentum": fo.Member(fo.trace(0.9), lr=lr)}
    return fo.chain(fo.roulette(members, every=2, seed=3), fo.lr_scale())


METHODS = {
    "sgd": (fo.sgd, numbers(lr=0.1)),
    "sgd with momentum": (fo.sgd, numbers(lr=0.05, momentum=0.8, weight_decay=0.01)),
    "nesterov": (lambda **hyper: fo.sgd(nesterov=True, **hyper), numbers(lr=0.05, momentum=0.8)),
    "adam": (fo.adam, numbers(lr=0.02, b1=0.8, b2=0.95)),
    "adamw": (fo.adamw, numbers(lr=0.02, b1=0.8, b2=0.95, weight_decay=0.1)),
    "rmsprop": (fo.rmsprop, numbers(lr=0.02, decay=0.9)),
    "lamb": (fo.lamb, numbers(lr=0.02, weight_decay=0.1)),
    "clipped": (lambda lr, norm: fo.chain(fo.clip_by_global_norm(norm), fo.sgd(lr, momentum=0.5)), numbers(lr=0.2, norm=0.1)),
    "scheduled": (lambda lr: fo.adam(lambda count: lr / (count + 2)), numbers(lr=0.1)),
    "pilot": (fo.pilot, numbers(lr=0.02, gamma=0.7)),
    "roulette": (pool, numbers(lr=0.02)),
    "aees": (lambda lr: fo.aees(fo.adam(lr), (0.5, 1.0, 2.0), episode_length=2, seed=1), numbers(lr=0.02)),
    "adaptive": (lambda factor: fo.chain(fo.adaptive(fo.sgd, lr=fo.rules.trend(0.05)), fo.scale(factor)), numbers(factor=0.8)),
}


def differences(f, tree, h=1e-6):
    """Central differences of a function of a tree."""
    leaves = fo.tree.leaves(tree)
    slopes = []
    for place, leaf in enumerate(leaves):
        slope = torch.zeros(leaf.numel(), dtype=leaf.dtype)
        for entry in range(leaf.numel()):
            nudge = torch.zeros(leaf.numel(), dtype=leaf.dtype)
            nudge[entry] = h
            sides = [
                f(fo.tree.unflatten(tree, [*leaves[:place], leaf + sign * nudge.reshape(leaf.shape), *leaves[place + 1 :]]))
                for sign in (1, -1)
            ]
            slope[entry] = (sides[0] - sides[1]) / (2 * h)
        slopes.append(slope.reshape(leaf.shape))
    return fo.tree.unflatten(tree, slopes)


@pytest.mark.parametrize("name", METHODS)
def test_derivatives_equal_finite_differences(name):
    make, hyper = METHODS[name]
    plain = grad(lambda hyper, params: trained(make, hyper, params), argnums=(0, 1))(hyper, start())
    assert_trees_close(plain[0], differences(lambda hyper: trained(make, hyper, start()), hyper), rtol=1e-5, atol=1e-8)
    assert_trees_close(plain[1], differences(lambda params: trained(make, hyper, params), start()), rtol=1e-5, atol=1e-8)
    assert all((slope != 0).all() for slope in fo.tree.leaves(plain[0]))
    again = grad(lambda hyper, params: trained(make, hyper, params, 3), argnums=(0, 1))(hyper, start())
    assert_trees_close(again, plain, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("checkpoint_every", CHECKPOINTS)
def test_unrolling_is_the_loop(checkpoint_every):
    make, hyper = METHODS["adamw"]
    tx, params = make(**hyper), start()
    state = tx.init(params)
    losses = []
    for row in range(STEPS):
        gradients, loss = grad_and_value(loss_fn)(params, X[row], Y[row])
        updates, state = tx.update(gradients, state, params, loss=loss)
        params = fo.apply_updates(params, updates)
        losses.append(loss)
    expected = loss_fn(params, X[0], Y[0]) + torch.stack(losses).mean()
    torch.testing.assert_close(trained(make, hyper, start(), checkpoint_every), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("checkpoint_every", CHECKPOINTS[1:])
def test_checkpoints_do_not_change_derivatives(checkpoint_every):
    make, hyper = METHODS["sgd with momentum"]
    slopes = grad(lambda hyper: trained(make, hyper, start(), checkpoint_every))(hyper)
    assert_trees_close(slopes, grad(lambda hyper: trained(make, hyper, start()))(hyper))


def test_checkpoints_under_every_transform():
    make, hyper = METHODS["adam"]

    def after(hyper, checkpoint_every):
        return trained(make, hyper, start(), checkpoint_every)

    for transform in (jacrev, lambda f: jacrev(jacrev(f))):
        assert_trees_close(transform(lambda h: after(h, 3))(hyper), transform(lambda h: after(h, None))(hyper))
    lanes = {name: torch.stack([value, 0.9 * value]) for name, value in hyper.items()}
    assert_trees_close(vmap(grad(lambda h: after(h, 3)))(lanes), vmap(grad(lambda h: after(h, None)))(lanes))


def test_checkpoints_under_backward():
    make, hyper = METHODS["adam"]
    leaves = {name: value.clone().requires_grad_() for name, value in hyper.items()}
    trained(make, leaves, start(), 3).backward()
    assert_trees_close({name: leaf.grad for name, leaf in leaves.items()}, grad(lambda hyper: trained(make, hyper, start()))(hyper))


def test_without_checkpoints_forward_mode_passes_too():
    make, hyper = METHODS["sgd"]
    ones = fo.tree.ones_like(hyper)
    _, slope = jvp(lambda hyper: trained(make, hyper, start()), (hyper,), (ones,))
    torch.testing.assert_close(slope, grad(lambda hyper: trained(make, hyper, start()))(hyper)["lr"])


class Peak(TorchDispatchMode):
    """The most bytes held at a time by what operations have made."""

    def __init__(self):
        super().__init__()
        self.held = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(result, torch.Tensor):
                self.watch(result.untyped_storage())
        return results

    def watch(self, storage):
        address, size = storage._cdata, storage.nbytes()
        if address in self.known:
            return
        self.known.add(address)
        self.held += size
        self.most = max(self.most, self.held)
        weakref.finalize(storage, self.forget, address, size)

    def forget(self, address, size):
        self.known.discard(address)
        self.held -= size


def peak(steps, checkpoint_every):
    """Of the derivative of `steps` steps with respect to the rate, in units of the parameters."""
    params = torch.linspace(-1, 1, 1000, dtype=torch.float64)

    def step(carry, _, lr):
        params, state = carry
        updates, state = fo.sgd(lr, momentum=0.9).update(torch.sin(params), state, params)
        return (fo.apply_updates(params, updates), state), None

    def after(lr):
        carry = (params, fo.sgd(lr, momentum=0.9).init(params))
        return fo.unroll(step, carry, None, lr, steps=steps, checkpoint_every=checkpoint_every)[0][0].sum()

    with Peak() as watched:
        grad(after)(torch.tensor(0.1, dtype=torch.float64))
    return watched.most / (8 * len(params))


@pytest.mark.skipif(fo.core.versions.TORCH < (2, 2), reason="a storage of this torch does not tell when it goes")
def test_memory_grows_with_the_square_root_of_the_steps():
    plain, short, long = peak(144, None), peak(36, "sqrt"), peak(144, "sqrt")
    assert long < plain / 3
    assert long < 2.3 * short


def test_integers_and_keys_pass_through_and_outputs_are_stacked():
    def step(carry, row, scale):
        key, count, w = carry
        noise = fo.random.normal(key, w.shape, w.dtype)
        w = w - 0.1 * scale * (w + noise) * row
        return (fo.random.fold_in(key, 0), count + 1, w), {"count": count, "w": w}

    carry = (fo.random.key(1), torch.tensor(0), torch.ones(2, dtype=torch.float64))
    rows = torch.arange(1, 6)
    for checkpoint_every in (None, 2):
        (key, count, w), outputs = fo.unroll(step, carry, rows, torch.tensor(2.0, dtype=torch.float64), checkpoint_every=checkpoint_every)
        assert count == 5 and outputs["count"].tolist() == [0, 1, 2, 3, 4] and torch.equal(outputs["w"][-1], w)
        slope = grad(lambda s, k=checkpoint_every: fo.unroll(step, carry, rows, s, checkpoint_every=k)[0][2].sum())(
            torch.tensor(2.0, dtype=torch.float64)
        )
        h = 1e-6
        two = [fo.unroll(step, carry, rows, torch.tensor(2 + d, dtype=torch.float64))[0][2].sum() for d in (h, -h)]
        torch.testing.assert_close(slope, (two[0] - two[1]) / (2 * h), rtol=1e-6, atol=0)


def test_no_steps_change_nothing():
    carry, outputs = fo.unroll(lambda c, _: (c + 1, None), torch.ones(2), steps=0, checkpoint_every=2)
    assert torch.equal(carry, torch.ones(2)) and outputs is None


def halve(w, _):
    return w / 2, None


@pytest.mark.parametrize(
    "arguments, settings, error, message",
    [
        ((halve, torch.ones(2)), {}, ValueError, "unroll: needs the number of steps where there are no inputs; pass steps="),
        ((halve, torch.ones(2), torch.ones(3)), {"steps": 2}, ValueError, "unroll: inputs must have a row for each of 2 steps, got 3"),
        ((halve, torch.ones(2), (torch.ones(3), torch.ones(2))), {}, ValueError, "unroll: inputs must have one leading axis of steps"),
        ((halve, (torch.ones(2), 3.0)), {"steps": 1}, TypeError, "unroll: carry must be a tree of tensors, got float at '1'"),
        ((halve, torch.ones(2)), {"steps": 2, "checkpoint_every": 0}, ValueError, "unroll: checkpoint_every must be >= 1, got 0"),
        (
            (halve, torch.ones(2)),
            {"steps": 2, "checkpoint_every": "root"},
            ValueError,
            "unroll: checkpoint_every must be an int or 'sqrt', got 'root'",
        ),
        (
            (lambda w, _: ((w, w), None), torch.ones(2)),
            {"steps": 2},
            ValueError,
            "unroll: step must give a carry like the one it takes, but",
        ),
    ],
)
def test_says_what_is_wrong(arguments, settings, error, message):
    with pytest.raises(error, match=message):
        fo.unroll(*arguments, **settings)


TRANSFORMS = {"grad": grad, "grad of grad": lambda f: grad(grad(f)), "autograd": lambda f: lambda x: f(x.clone().requires_grad_())}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_tensor_that_comes_in_through_a_variable_is_refused(name):
    def after(lr):
        return fo.unroll(lambda w, _: (w - lr * w, None), torch.ones(2), steps=4, checkpoint_every=2)[0].sum()

    with pytest.raises(ValueError, match="step must not use a tensor that is differentiated and was not handed in"):
        TRANSFORMS[name](after)(torch.tensor(0.1))
