"""PILOT: its special cases, its laws, what it hears, and where it leaves the reference on purpose."""

import math
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from funcopt.controllers.pilot.policy import meta_gradient, sweep

F64 = torch.float64
ADAM = {"pm": 1.0, "pv": 0.5, "ps": 0.0}
published = partial(fo.agreement_policy, start="published")  # the direction that pilot takes


def find(state) -> fo.AgreementPolicyState:
    return fo.find(state, fo.AgreementPolicyState)


def run(tx, params, gradients, state=None, **extra):
    """Params and states after every step."""
    state = tx.init(params) if state is None else state
    history = []
    for g in gradients:
        updates, state = tx.update(g, state, params, **extra)
        params = fo.apply_updates(params, updates)
        history.append((params, state))
    return history


def assert_close(ours, theirs, rtol=1e-9, atol=1e-13):
    for x, y in zip(fo.tree.leaves(ours), fo.tree.leaves(theirs), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol, equal_nan=True)


SHAPES = st.recursive(
    st.sampled_from([(), (1,), (4,), (2, 3), (0,)]),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=5,
)


def filled(shapes, draw):
    """A tree with `draw(shape)` in place of every shape."""
    if isinstance(shapes, list):
        return [filled(part, draw) for part in shapes]
    if isinstance(shapes, dict):
        return {name: filled(part, draw) for name, part in shapes.items()}
    return draw(shapes)


@st.composite
def problems(draw, steps=4, smallest=1e-4, largest=1e4):
    """Params and gradients of any tree: entries of any size, some of them zero."""
    shapes, seed = draw(SHAPES), draw(st.integers(0, 2**32))
    low, high = math.log(smallest), math.log(largest)
    generator = torch.Generator().manual_seed(seed)

    def entries(shape):
        uniform = torch.rand((3, *shape), generator=generator, dtype=F64)
        return (low + (high - low) * uniform[0]).exp() * (uniform[1] - 0.5).sign() * (uniform[2] > 0.2)

    return filled(shapes, entries), [filled(shapes, entries) for _ in range(steps)]


b1s, b2s = st.floats(0, 0.99), st.floats(0, 0.9999)


# --- special cases ---------------------------------------------------------------------------------------------------------------


@given(problem=problems(), b1=b1s, b2=b2s, eps=st.floats(1e-10, 1e-2), lr=st.floats(0, 1), weight_decay=st.floats(0, 0.5))
def test_pinned_at_one_half_zero_it_is_adamw(problem, b1, b2, eps, lr, weight_decay):
    params, gradients = problem
    ours = run(fo.pilot(lr, b1, b2, eps, weight_decay, pin=ADAM), params, gradients)
    theirs = run(fo.adamw(lr, b1, b2, eps, weight_decay=weight_decay), params, gradients)
    # An entry of the mean between 0 and the floor of 1e-12 would move as if it were 1e-12.
    means = fo.tree.leaves([fo.find(state, "mu") for _, state in theirs])
    assume(all(((m == 0) | (m.abs() > 1e-12)).all() for m in means))
    for (x, state), (y, _) in zip(ours, theirs, strict=True):
        assert_close(x, y)
        torch.testing.assert_close(find(state).phi, find(ours[0][1]).phi, rtol=0, atol=0)


def test_below_its_floor_an_entry_moves_as_if_it_were_on_it():
    adam, ours = fo.scale_by_adam(b1=0.0, eps=1.0), published(b1=0.0, eps=1.0, pin=ADAM, lr=1.0)
    g = torch.tensor([1e-14, -1e-11], dtype=F64)
    torch.testing.assert_close(adam.update(g, adam.init(g))[0], torch.tensor([1e-14, -1e-11], dtype=F64))
    torch.testing.assert_close(ours.update(g, ours.init(g))[0], torch.tensor([1e-12, -1e-11], dtype=F64))


@given(problem=problems(), b1=b1s, b2=b2s, eps=st.floats(0, 1), p_m=st.floats(0, 1))
def test_pinned_at_full_compression_it_is_the_sign_of_the_blend(problem, b1, b2, eps, p_m):
    params, gradients = problem
    tx = published(b1, b2, eps, pin={"pm": p_m, "pv": 0.0, "ps": 1.0}, lr=0.1)
    state = tx.init(params)
    for step, g in enumerate(gradients, 1):
        updates, state = tx.update(g, state)
        blend = fo.tree.map(lambda m, g: p_m * (m / (1 - b1**step)) + (1 - p_m) * g, state.mu, g)  # noqa: B023
        assume(all(((n == 0) | (n.abs() > 1e-9)).all() for n in fo.tree.leaves(blend)))  # a sign that rounding decides
        assert_close(updates, fo.tree.map(lambda n: n.sign() / (1 + eps), blend))


@given(problem=problems())
def test_without_trust_power_or_compression_it_is_the_gradient(problem):
    params, gradients = problem
    tx = published(eps=0.0, pin={"pm": 0.0, "pv": 0.0, "ps": 0.0}, lr=0.1)
    for g in gradients:
        assert_close(tx.update(g, tx.init(params))[0], g)


def test_it_does_not_start_as_adam():
    shape = published(lr=0.1)
    state = shape.init(torch.zeros(1, dtype=F64))
    assert [round(float(p), 9) for p in fo.read_signals(state).values()] == [0.0, 0.802183889, 0.476287063, 0.119202922]
    steps = [float(shape.update(torch.full((1,), g, dtype=F64), state)[0]) for g in (1.0, 1e-4, 1e-6)]
    assert [round(step / steps[0], 2) for step in steps] == [1.0, 1.94, 2.68]  # smaller gradients, larger steps


def test_agreement_by_hand():
    # |g| = 5 and |g'| = 13 with <g, g'> = 3 * 5 + 4 * 12 = 63: r = 63 / 65. rho = (1 - gamma) r = 63 / 130 with gamma = 1/2.
    tx = published(gamma=0.5, lr=0.0)
    params = {"a": torch.zeros(1, dtype=F64), "b": torch.zeros((), dtype=F64)}
    first, second = ({"a": torch.tensor([x], dtype=F64), "b": torch.tensor(y, dtype=F64)} for x, y in ((5.0, 12.0), (3.0, 4.0)))
    (_, state), (_, after) = run(tx, params, [first, second])
    assert (state.r, state.rho) == (0, 0)
    torch.testing.assert_close(torch.stack([after.r, after.rho]), torch.tensor([63 / 65, 63 / 130], dtype=F64))


# --- the meta-gradient -----------------------------------------------------------------------------------------------------------


def meta_gradient_of(g, state, kappa, b1=0.9, b2=0.999):
    knobs = state.momentum_trust, state.variance_power, state.sign_compression
    sums = sweep(g, state.last_grad, state.mu, state.nu, state.count, knobs, b1, b2)
    return meta_gradient(sums, torch.tensor(kappa, dtype=F64), state.sign_compression, state.phi, state.rho)


@settings(max_examples=25)
@given(problem=problems(smallest=1e-2, largest=1e2), degree=st.integers(1, 4), lr=st.floats(1e-3, 1))
def test_meta_gradient_is_the_derivative_of_the_last_step(problem, degree, lr):
    """The closed form against torch.func.grad: through the step at p', then through the policy at (phi, rho')."""
    params, gradients = problem
    state = find(run(fo.pilot(lr, degree=degree), params, gradients[:-1])[-1][1])
    t = len(gradients) - 1

    def surrogate(p):
        def u(g, last, mu, nu):
            m, v = mu / (1 - 0.9**t), nu / (1 - 0.999**t)
            n = p[0] * m + (1 - p[0]) * last
            alive = n != 0
            power = torch.where(alive, n, 1).abs().clamp(min=1e-12) ** (1 - p[2])
            return (g * torch.where(alive, n.sign() * power, 0) / (v.clamp(min=1e-12) ** p[1] + 1e-8)).sum()

        return -lr * fo.tree.sum(fo.tree.map(u, gradients[-1], state.last_grad, state.mu, state.nu))

    def knobs(phi):
        f = sum(phi[:, index] * state.rho ** (degree - index) for index in range(degree + 1))
        return torch.sigmoid(f) * torch.tensor([1.0, 0.5, 1.0], dtype=F64)

    by_p = torch.func.grad(surrogate)(torch.stack([state.momentum_trust, state.variance_power, state.sign_compression]))
    by_phi = torch.func.vjp(knobs, state.phi)[1](by_p)[0]
    ours = meta_gradient_of(gradients[-1], state, lr)
    torch.testing.assert_close(ours, by_phi, rtol=1e-7, atol=1e-9 * (1 + float(by_phi.abs().max())))


def test_only_the_constants_move_at_the_second_step():
    gradients = [torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([0.5, 1.0], dtype=F64)]
    (_, first), (_, second) = run(fo.pilot(0.1, degree=3), torch.zeros(2, dtype=F64), gradients)
    moved = find(second).phi - find(first).phi
    assert (moved[:, :-1] == 0).all() and moved[0, -1].abs() < 1e-12 and (moved[1:, -1] != 0).all()  # m' = g', so S_m = 0


@given(
    problem=problems(steps=6),
    lr=st.floats(0, 100),
    lr_phi=st.floats(0, 10),
    bias=st.tuples(*[st.floats(-20, 20)] * 3),
    degree=st.integers(1, 4),
)
def test_the_policy_stays_in_range(problem, lr, lr_phi, bias, degree):
    params, gradients = problem
    last = None
    for _, state in run(fo.pilot(lr, lr_phi=lr_phi, bias=bias, degree=degree), params, gradients):
        state = find(state)
        assert 0 <= state.momentum_trust <= 1 and 0 <= state.variance_power <= 0.5 and 0 <= state.sign_compression <= 1
        assert state.r.abs() <= 1 + 1e-12 and state.rho.abs() <= 1 + 1e-12
        if last is not None:  # one step of phi is at most lr_phi long
            assert (state.phi - last.phi).norm() <= lr_phi * (1 + 1e-9) + 1e-12
        last = state


def test_a_meta_clip_of_infinity_does_not_clip():
    g = torch.tensor([3.0, -4.0], dtype=F64)
    phis = {}
    for clip in (1.0, 1e12, math.inf):
        phis[clip] = find(run(fo.pilot(100.0, lr_phi=1.0, meta_clip=clip), torch.zeros_like(g), [g, g])[-1][1]).phi
    torch.testing.assert_close(phis[1e12], phis[math.inf])
    assert (phis[1.0] - phis[math.inf]).abs().max() > 1


# --- laws ------------------------------------------------------------------------------------------------------------------------


@given(problem=problems(), seed=st.integers(0, 2**32))
def test_permuted_entries_give_permuted_directions(problem, seed):
    params, gradients = problem
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(x.numel(), generator=generator) for x in fo.tree.leaves(params)]

    def permuted(values):
        mixed = [x.reshape(-1)[order].reshape(x.shape) for x, order in zip(fo.tree.leaves(values), orders, strict=True)]
        return fo.tree.unflatten(values, mixed)

    tx = fo.pilot(0.01)
    straight = run(tx, params, gradients)
    mixed = run(tx, permuted(params), [permuted(g) for g in gradients])
    for (x, state), (y, other) in zip(straight, mixed, strict=True):
        assert_close(permuted(x), y, rtol=1e-7)
        assert_close(find(state).phi, find(other).phi, rtol=1e-7)


@given(problem=problems())
def test_it_does_not_matter_how_entries_are_cut_into_leaves(problem):
    params, gradients = problem

    def one(values):
        leaves = [x.reshape(-1) for x in fo.tree.leaves(values)]
        return torch.cat(leaves)

    tx = fo.pilot(0.01)
    for (x, _), (y, _) in zip(run(tx, params, gradients), run(tx, one(params), [one(g) for g in gradients]), strict=True):
        assert_close(one(x), y, rtol=1e-7)


@given(problem=problems())
def test_the_opposite_gradients_give_the_opposite_directions(problem):
    params, gradients = problem
    tx = published(lr=0.1)
    state = opposite = tx.init(params)
    for g in gradients:
        u, state = tx.update(g, state)
        v, opposite = tx.update(fo.tree.scale(-1.0, g), opposite)
        assert_close(fo.tree.scale(-1.0, v), u, rtol=0, atol=0)
        assert_close(opposite.phi, state.phi, rtol=0, atol=0)


@given(scale=st.floats(1e-3, 1e3), p_v=st.floats(0, 0.5), p_s=st.floats(0, 1))
def test_the_step_scales_as_the_power_that_the_knobs_leave(scale, p_v, p_s):
    tx = published(eps=0.0, pin={"pv": p_v, "ps": p_s}, lr=0.1)
    gradients = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 0.1]], dtype=F64)
    ours, theirs = tx.init(gradients[0]), tx.init(gradients[0])
    # p_m is free and learns; its slope is 0 where nothing is moved, so hold it by a rate of 0.
    tx = published(eps=0.0, lr_phi=0.0, pin={"pv": p_v, "ps": p_s}, lr=0.1)
    for g in gradients:
        u, ours = tx.update(g, ours)
        v, theirs = tx.update(scale * g, theirs)
        torch.testing.assert_close(v, scale ** (1 - p_s - 2 * p_v) * u, rtol=1e-9, atol=0.0)


def test_vmap_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    params = {"w": torch.randn(3, 2, 2, generator=generator), "b": torch.randn(3, generator=generator)}
    gradients = [{"w": torch.randn(3, 2, 2, generator=generator), "b": torch.randn(3, generator=generator)} for _ in range(5)]
    tx = fo.pilot(0.1)
    state = torch.func.vmap(tx.init)(params)
    lanes = [tx.init({name: x[lane] for name, x in params.items()}) for lane in range(3)]
    for g in gradients:
        updates, state = torch.func.vmap(tx.update)(g, state, params)
        for lane in range(3):
            expected, lanes[lane] = tx.update({n: x[lane] for n, x in g.items()}, lanes[lane], {n: x[lane] for n, x in params.items()})
            for name in params:
                torch.testing.assert_close(updates[name][lane], expected[name], rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(find(state).phi[lane], find(lanes[lane]).phi, rtol=1e-6, atol=1e-7)


@given(problem=problems(steps=6), stop=st.integers(0, 5))
def test_going_on_from_a_saved_state_equals_the_run_without_a_stop(problem, stop):
    params, gradients = problem
    tx = fo.pilot(lambda count: 0.1 / (1 + count))
    whole = run(tx, params, gradients)
    start, state = whole[stop - 1] if stop else (params, tx.init(params))
    saved = fo.checkpoint.load_state_dict(tx.init(params), fo.checkpoint.state_dict(state))
    rest = run(tx, start, gradients[stop:], saved)
    for ours, theirs in zip(rest, whole[stop:], strict=True):
        assert_close(ours, theirs, rtol=0, atol=0)


def test_an_empty_tree_is_legal():
    tx = fo.pilot(0.1)
    updates, state = tx.update({}, tx.init({}), {})
    assert updates == {} and find(state).count == 1 and find(state).rho == 0


# --- what it hears ---------------------------------------------------------------------------------------------------------------

GRADIENTS = [torch.tensor(g, dtype=F64) for g in ([1.0, -2.0], [0.5, 1.0], [2.0, 2.0], [1.0, 0.0])]
ZERO = torch.zeros(2, dtype=F64)


def phi_after(tx, **extra):
    return find(run(tx, ZERO, GRADIENTS, **extra)[-1][1]).phi


def falling(count):
    return 0.1 / (1 + count)


def test_listening_to_the_last_step_is_the_rate_of_the_last_step():
    heard = phi_after(fo.chain(published(), fo.lr_scale(falling)))
    told = phi_after(fo.chain(published(lr=falling, lr_of="last step"), fo.lr_scale(falling)))
    torch.testing.assert_close(heard, told, rtol=0, atol=0)
    assert (phi_after(fo.pilot(falling, weight_decay=0.0)) - told).abs().max() > 1e-6  # the reference takes this step's


def test_under_a_constant_rate_all_ways_to_know_it_agree():
    told = phi_after(fo.pilot(0.1, weight_decay=0.0))
    base = torch.tensor(0.1, dtype=F64)
    ways = {
        "heard late": phi_after(fo.chain(published(), fo.lr_scale(0.1))),
        "last step": phi_after(fo.pilot(0.1, weight_decay=0.0, lr_of="last step")),
        "from the loop": phi_after(fo.pilot(None, weight_decay=0.0), signals={"base_lr": base}),
        "as a tensor": phi_after(fo.pilot(base, weight_decay=0.0)),
        "as a tree": phi_after(published(lr=base)),
    }
    for way, phi in ways.items():
        torch.testing.assert_close(phi, told, rtol=0, atol=0, msg=way)


def test_a_multiplier_said_on_the_left_stretches_the_size():
    signals = {"lr_multiplier": torch.tensor(3.0, dtype=F64)}
    torch.testing.assert_close(phi_after(published(lr=0.1), signals=signals), phi_after(published(lr=0.1 * 3.0)))
    signals["base_lr"] = torch.tensor(0.1, dtype=F64)
    torch.testing.assert_close(phi_after(published(), signals=signals), phi_after(published(lr=0.1 * 3.0)))


def test_nobody_says_the_rate():
    message = r"agreement_policy: no link says 'lr' or 'base_lr'; said so far: nothing. Put lr_scale\(\) in the chain or pass lr="
    with pytest.raises(ValueError, match=message):
        fo.chain(published(), fo.scale(-0.1)).init(ZERO)
    alone = published()
    with pytest.raises(ValueError, match=r"agreement_policy: no link says 'lr', which the meta-gradient needs; pass lr="):
        alone.update(ZERO, alone.init(ZERO))


def test_a_tree_of_rates_weighs_the_leaves():
    params = {"a": torch.zeros(2, dtype=F64), "b": torch.zeros(3, dtype=F64)}
    generator = torch.Generator().manual_seed(1)
    gradients = [
        {"a": torch.randn(2, generator=generator, dtype=F64), "b": torch.randn(3, generator=generator, dtype=F64)} for _ in range(4)
    ]

    def phi(lr):
        return run(published(lr=lr, meta_clip=math.inf), params, gradients)[-1][1].phi

    start = published(lr=0.1).init(params).phi
    torch.testing.assert_close(phi({"a": 0.1, "b": falling}), phi({"a": 0.1, "b": lambda count: falling(count)}), rtol=0, atol=0)
    torch.testing.assert_close(phi({"a": 0.1, "b": 0.1}), phi(0.1), rtol=1e-12, atol=0)
    torch.testing.assert_close(phi({"a": 0.0, "b": 0.0}), start, rtol=0, atol=0)
    assert (phi({"a": 0.1, "b": 0.0}) - phi(0.1)).abs().max() > 1e-6
    with pytest.raises(
        ValueError,
        match="agreement_policy: lr must have the structure of params or a prefix of it, but at 'b' params has a leaf and lr has none",
    ):
        published(lr={"a": 0.1, "c": 0.1}).init(params)
    assert not published(lr={"a": 0.1, "b": 0.1}).flattenable and published(lr=0.1).flattenable


def test_what_it_says():
    tx = published(lr=0.1, name="left")
    assert list(fo.read_signals(tx.init(ZERO))) == [
        f"left/{word}" for word in ("agreement", "momentum_trust", "variance_power", "sign_compression")
    ]
    two = fo.chain(tx, published(lr=0.1, name="right"), fo.lr_scale(0.1))
    assert len(fo.read_signals(two.init(ZERO))) == 9
    state = run(fo.pilot(0.1, degree=2), ZERO, GRADIENTS)[-1][1]
    seen = fo.policy_diagnostics(state)
    names = "count r rho p_m p_v p_s meta_norm phi_m[2] phi_m[1] phi_m[0] phi_v[2] phi_v[1] phi_v[0] phi_s[2] phi_s[1] phi_s[0]"
    assert list(seen) == names.split()
    assert seen["phi_v[0]"] == find(state).phi[1, 2] and all(value.dim() == 0 for value in seen.values())
    with pytest.raises(KeyError, match="AgreementPolicyState"):
        fo.policy_diagnostics(fo.sgd(0.1).init(ZERO))


# --- numbers and dtypes ----------------------------------------------------------------------------------------------------------


def test_the_policy_is_float32_or_as_wide_as_the_widest_leaf():
    for dtypes, expected in [((torch.bfloat16,), torch.float32), ((torch.float32,), torch.float32), ((torch.float32, F64), F64)]:
        state = published(lr=0.1).init([torch.zeros(2, dtype=dtype) for dtype in dtypes])
        assert {x.dtype for x in (state.phi, state.rho, state.momentum_trust, state.last_square)} == {expected}


def test_three_trees_and_no_more_in_the_dtypes_asked_for():
    params = {"w": torch.zeros(100, dtype=torch.bfloat16)}
    tx = fo.pilot(0.1, mu_dtype=torch.float32, nu_dtype=F64, last_grad_dtype=torch.float16)
    state = run(tx, params, [{"w": torch.ones(100, dtype=torch.bfloat16)}] * 2)[-1][1]
    assert [x.dtype for x in fo.tree.leaves(state) if x.numel() == 100] == [torch.float32, F64, torch.float16]


def test_what_the_state_keeps_of_the_gradient_is_a_copy():
    tx, g = published(lr=0.1), torch.ones(2)
    state = tx.update(g, tx.init(g))[1]
    g.zero_()
    assert (state.last_grad == 1).all()


@pytest.mark.parametrize("leaf", [torch.zeros(1, dtype=torch.complex64), torch.zeros(1, dtype=torch.int64)])
def test_leaves_that_are_not_real_are_refused(leaf):
    with pytest.raises(TypeError, match=r"agreement_policy: needs floating point leaves, got \w+ at 'w'"):
        published(lr=0.1).init({"w": leaf})


@pytest.mark.parametrize("first", [torch.tensor([1.0, 0.0, -2.0]), torch.zeros(3)])
@pytest.mark.parametrize("eps_root", [0.0, 1e-12])
def test_hypergradients_are_finite_from_the_first_step(first, eps_root):
    def loss(numbers, params):
        b1, b2, eps, gamma, lr_phi, lr = numbers
        tx = fo.pilot(lr, b1, b2, eps, gamma=gamma, lr_phi=lr_phi, weight_decay=0.0, eps_root=eps_root)
        state = tx.init(params)
        for g in (first, first, torch.tensor([0.5, 0.0, 1.0])):
            updates, state = tx.update(g * (1 + params), state, params)
            params = fo.apply_updates(params, updates)
        return params.square().sum()

    numbers = torch.tensor([0.9, 0.999, 1e-8, 0.9, 0.01, 0.1])
    value, (by_numbers, by_params) = loss(numbers, torch.ones(3)), torch.func.grad(loss, argnums=(0, 1))(numbers, torch.ones(3))
    assert value.isfinite() and by_numbers.isfinite().all() and by_params.isfinite().all()
    assert (by_numbers[5] != 0) and (first.any() == (by_numbers[4] != 0))


# --- where it leaves the reference on purpose ------------------------------------------------------------------------------------


def test_large_gradients_still_agree():
    """The reference takes the root of <g,g><g',g'>, which overflows float32: it says 0. We take two roots: 1."""
    g = torch.full((4,), 1e10)
    square = (g * g).sum()
    reference = torch.where((square * square).sqrt() > 1e-12, square / (square * square).sqrt(), 0)
    ours = run(fo.pilot(1e-3), torch.zeros(4), [g, g])[-1][1]
    assert reference == 0
    torch.testing.assert_close(find(ours).r, torch.tensor(1.0))


def test_half_precision_is_computed_in_float32():
    """In float16 the reference's floor of 1e-12 is 0 and ln 0 makes phi NaN at the first zero. Ours is float32's policy."""
    gradients = [torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.5, 0.0, 1.0]), torch.tensor([1.0, 0.0, 1.0])]
    assert torch.tensor(1e-12, dtype=torch.float16) == 0 and (torch.zeros((), dtype=torch.float16).clamp(min=1e-12).log() * 0).isnan()
    exact = run(fo.pilot(0.1), torch.zeros(3), gradients)
    for dtype, nu_dtype in ((torch.float16, None), (torch.bfloat16, None), (torch.float16, torch.float32)):
        half = run(fo.pilot(0.1, nu_dtype=nu_dtype), torch.zeros(3, dtype=dtype), [g.to(dtype) for g in gradients])
        assert half[-1][0].dtype == dtype
        torch.testing.assert_close(half[-1][0].float(), exact[-1][0], rtol=0.02, atol=1e-3)
        torch.testing.assert_close(find(half[-1][1]).phi, find(exact[-1][1]).phi, rtol=1e-3, atol=1e-4)


def test_a_gradient_that_is_not_a_number_leaves_the_policy_standing():
    """The reference's phi is NaN ever after, and with it all params. Ours stays; the entry itself is lost, as with Adam."""
    bad = torch.tensor([1.0, math.nan, 1.0])
    (_, before), (_, at), (after, end) = run(
        fo.pilot(0.1), torch.ones(3), [torch.tensor([1.0, 2.0, 3.0]), bad, torch.tensor([1.0, 2.0, 3.0])]
    )
    unguarded = meta_gradient_of(bad, find(before), 0.1)
    assert unguarded.isnan().any() and find(at).meta_norm.isnan()
    torch.testing.assert_close(find(end).phi, find(before).phi, rtol=0, atol=0)
    assert after.isnan().tolist() == [False, True, False]


def test_an_infinite_gradient_does_what_it_does_in_the_reference():
    params, state = run(fo.pilot(0.1), torch.ones(2), [torch.ones(2), torch.tensor([math.inf, 1.0])])[-1]
    assert find(state).rho.isnan() and params.isnan().all() and find(state).phi.isfinite().all()


# --- compiled, and without a look at the device ----------------------------------------------------------------------------------


def test_compiled_is_one_graph_for_twenty_steps_and_equals_eager():
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(0)
    params = {"w": torch.randn(3, 2, generator=generator, dtype=F64), "b": torch.randn((), generator=generator, dtype=F64)}
    tx = fo.pilot(falling, weight_decay=0.1)

    @torch.compile(fullgraph=True, backend="eager")
    def step(g, state, params):
        updates, state = tx.update(g, state, params)
        return fo.apply_updates(params, updates), state

    compiled, state = params, tx.init(params)
    eager, other = params, tx.init(params)
    for _ in range(20):
        g = {"w": torch.randn(3, 2, generator=generator, dtype=F64), "b": torch.randn((), generator=generator, dtype=F64)}
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled, state = step(g, state, compiled)
        updates, other = tx.update(g, other, eager)
        eager = fo.apply_updates(eager, updates)
    assert_close(compiled, eager, rtol=1e-12)
    assert_close(state, other, rtol=1e-12)


class NoHostRead(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor was read on the host"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "tx", [fo.pilot(falling), fo.pilot(torch.tensor(0.1), meta_clip=torch.tensor(1.0)), fo.pilot(0.1, pin=ADAM)], ids=str
)
def test_a_step_reads_nothing_on_the_host(tx):
    params = {"w": torch.ones(3), "b": torch.ones(())}
    state = tx.init(params)
    with NoHostRead():
        for _ in range(2):
            _, state = tx.update(params, state, params)


# --- errors ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"b1": 1.0}, ValueError, r"agreement_policy: b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, ValueError, r"agreement_policy: b2 must be in \[0, 1\), got -0.1"),
        ({"b1": math.nan}, ValueError, r"b1 must be in \[0, 1\), got nan"),
        ({"eps": -1e-8}, ValueError, r"agreement_policy: eps must be >= 0, got -1e-08"),
        ({"eps": "small"}, TypeError, r"agreement_policy: eps must be a number or a 0-dim tensor, got 'small'"),
        ({"gamma": 1.0}, ValueError, r"gamma must be in \[0, 1\)"),
        ({"lr_phi": -0.1}, ValueError, r"lr_phi must be >= 0, got -0.1"),
        ({"degree": 0}, ValueError, r"degree must be >= 1, got 0"),
        ({"degree": 2.0}, TypeError, r"degree must be an int, got 2.0"),
        ({"degree": True}, TypeError, r"degree must be an int, got True"),
        ({"lr": -1.0}, ValueError, r"lr must be >= 0, got -1.0"),
        ({"lr": math.inf}, ValueError, r"lr must be >= 0 and finite, got inf"),
        ({"lr": {"a": -1.0}}, ValueError, r"lr must be >= 0, got -1.0"),
        ({"lr_of": "next step"}, ValueError, r"lr_of must be one of 'this step', 'last step', got 'next step'"),
        ({"meta_eps": 0.0}, ValueError, r"meta_eps must be > 0, got 0.0"),
        ({"meta_clip": 0.0}, ValueError, r"meta_clip must be > 0, got 0.0"),
        ({"eps_root": -1.0}, ValueError, r"eps_root must be >= 0, got -1.0"),
        ({"bias": (1.0, 2.0)}, ValueError, r"bias must have three numbers, for p_m, p_v and p_s, got \(1.0, 2.0\)"),
        ({"bias": (1.0, 2.0, math.inf)}, ValueError, r"bias must be finite, got inf"),
        (
            {"pin": {"pq": 1.0}},
            ValueError,
            r"pin must have keys out of pm \(momentum trust\), pv \(variance power\) and ps \(sign compression\), got 'pq'",
        ),
        ({"pin": {"pv": 0.6}}, ValueError, r"pin\['pv'\] must be in \[0, 0.5\], got 0.6"),
        ({"pin": {"ps": 1.5}}, ValueError, r"pin\['ps'\] must be in \[0, 1\], got 1.5"),
        ({"pin": {"pm": "one"}}, TypeError, r"pin\['pm'\] must be a number or a 0-dim tensor, got 'one'"),
        ({"pin": 0.5}, TypeError, r"pin must be a mapping from pm, pv, ps to values, got 0.5"),
    ],
)
def test_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        fo.agreement_policy(**arguments)
    with pytest.raises(error, match=message):
        fo.pilot(**arguments)


def test_the_decay_is_checked_too():
    with pytest.raises(ValueError, match="weight_decay must be >= 0, got -0.1"):
        fo.pilot(weight_decay=-0.1)


def test_a_normalized_meta_gradient_takes_steps_of_one_length():
    """However small M is, phi moves by lr_phi along it; as published by no more than lr_phi |M|."""
    generator = torch.Generator().manual_seed(0)
    gradients = [1e-4 * torch.randn(5, generator=generator, dtype=F64) for _ in range(6)]
    lengths = {}
    for kind in ("clipped", "normalized"):
        tx = fo.chain(published(lr_phi=0.01, meta_step=kind), fo.lr_scale(1e-3))
        history = [find(state) for _, state in run(tx, torch.zeros(5, dtype=F64), gradients)]
        lengths[kind] = [float((after.phi - before.phi).norm()) for before, after in zip(history, history[1:], strict=False)]
        norms = [float(state.meta_norm) for state in history[1:]]
        if kind == "clipped":
            assert lengths[kind] == pytest.approx([0.01 * norm for norm in norms], rel=1e-6)
    assert lengths["normalized"] == pytest.approx([0.01] * 5, rel=1e-9)
    assert max(lengths["clipped"]) < 1e-6


def test_a_normalized_meta_gradient_stands_still_without_a_direction():
    tx = fo.chain(published(meta_step="normalized"), fo.lr_scale(1e-3))
    history = run(tx, torch.zeros(3, dtype=F64), [torch.zeros(3, dtype=F64)] * 3)
    assert torch.equal(find(history[-1][1]).phi, find(tx.init(torch.zeros(3, dtype=F64))).phi)
    with pytest.raises(ValueError, match="agreement_policy: meta_step must be one of 'clipped', 'normalized', got 'adam'"):
        fo.agreement_policy(meta_step="adam")


def test_to_the_left_of_a_direction_it_begins_as_the_identity_and_departs_from_it():
    """No knob is above 0.0025 at first; the policy moves by lr_phi a step, and adam to its right sees what it sees alone."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(50, generator=generator, dtype=F64) for _ in range(40)]
    params = torch.zeros(50, dtype=F64)
    shaped, plain = fo.chain(fo.agreement_policy(), fo.adam(1e-3)), fo.adam(1e-3)
    history, alone = run(shaped, params, gradients), run(plain, params, gradients)
    torch.testing.assert_close(history[0][0], alone[0][0], rtol=1e-6, atol=0)
    knobs = [list(fo.read_signals(state).values())[1:4] for _, state in history]
    assert max(knobs[0]) < 0.0025 and knobs[-1] != knobs[0]
    lengths = [
        float((after.phi - before.phi).norm())
        for before, after in zip(*[[find(s) for _, s in h] for h in (history[1:], history[2:])], strict=False)
    ]
    assert lengths == pytest.approx([0.01] * 38, rel=1e-9)
    torch.testing.assert_close(history[-1][0], alone[-1][0], rtol=0.05, atol=1e-3)


def test_a_start_has_its_bias_and_its_meta_step_unless_told_otherwise():
    def phi(tx):
        return find(run(tx, ZERO, GRADIENTS)[-1][1]).phi

    spelled = fo.agreement_policy(lr=0.1, start="identity", bias=(1.4, 3.0, -2.0), meta_step="clipped")
    torch.testing.assert_close(phi(spelled), phi(published(lr=0.1)), rtol=0, atol=0)
    torch.testing.assert_close(phi(published(lr=0.1)), phi(fo.pilot(0.1, weight_decay=0.0)), rtol=0, atol=0)
    with pytest.raises(ValueError, match="agreement_policy: start must be one of 'identity', 'published', got 'adam'"):
        fo.agreement_policy(start="adam")
