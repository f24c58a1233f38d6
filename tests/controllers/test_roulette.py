"""The roulette: one member moves, both dispatches agree, words and errors."""

import pytest
import torch

import funcopt as fo
from funcopt.core.random import host_int


def small_pool():
    return {
        "adam": fo.Member(fo.scale_by_adam(), lr=0.1),
        "momentum": fo.Member(fo.trace(0.9), lr=0.01),
        "lion": fo.Member(fo.scale_by_lion(), lr=0.01),
        "sgd": fo.Member(fo.sgd(0.05)),
        "adamw": fo.Member(fo.adamw(0.1)),
    }


def plain():
    """A link that does not declare which way it points."""
    return fo.GradientTransformation(
        lambda params: fo.EmptyState(), lambda updates, state, params=None, **extra: (updates, state), name="plain"
    )


START = {"a": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), "b": torch.ones(2, 2, dtype=torch.float64)}


def descend(tx, steps=12, params=START, update=None):
    """Steps down half the squared norm; the params, the state and the picks."""
    state, picks = tx.init(params), []
    for _ in range(steps):
        updates, state = (update or tx.update)(params, state, params)
        params = fo.apply_updates(params, updates)
        picks.append(host_int(state[0].pick))
    return params, state, picks


def sentence(pool=None, **settings):
    return fo.chain(fo.roulette(pool or small_pool(), **{"every": 2, "probability": 0.8, "seed": 3, **settings}), fo.lr_scale())


def test_a_pool_of_one_is_that_member():
    ours, _, _ = descend(sentence({"adam": fo.Member(fo.scale_by_adam(), lr=0.1)}))
    theirs = START
    adam, state = fo.adam(0.1), fo.adam(0.1).init(START)
    for _ in range(12):
        updates, state = adam.update(theirs, state, theirs)
        theirs = fo.apply_updates(theirs, updates)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_only_the_pick_moves():
    tx = sentence(every=1, probability=1.0)
    params, state = START, tx.init(START)
    for _ in range(10):
        updates, new = tx.update(params, state, params)
        for i, name in enumerate(small_pool()):
            still = all(
                torch.equal(x, y) for x, y in zip(fo.tree.leaves(new[0].members[name]), fo.tree.leaves(state[0].members[name]), strict=True)
            )
            assert still or i == host_int(new[0].pick)
        params, state = fo.apply_updates(params, updates), new


def test_a_ready_made_member_makes_its_own_step():
    pool = {"sgd": fo.Member(fo.sgd(0.05)), "still": fo.Member(fo.sgd(0.0))}
    tx = sentence(pool, every=1, probability=1.0)
    params, state = START, tx.init(START)
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        rate = 0.05 if host_int(state[0].pick) == 0 else 0.0
        torch.testing.assert_close(updates, fo.tree.scale(-rate, params))
        torch.testing.assert_close(fo.read_signals(state)["lr"].item(), rate)


@pytest.mark.long
def test_both_dispatches_and_the_graph_agree():
    params, state, picks = descend(sentence(dispatch="branch"))
    assert len(set(picks)) > 2
    for dispatch, traced in (("select", False), ("auto", True)):
        tx = sentence(dispatch=dispatch)
        update = torch.compile(tx.update, backend="eager", fullgraph=True) if traced else tx.update
        others = descend(tx, update=update)
        torch.testing.assert_close(others[0], params, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(fo.tree.leaves(others[1]), fo.tree.leaves(state), rtol=1e-12, atol=1e-14)
        assert others[2] == picks


def test_every_lane_of_a_vmapped_factory_draws_for_itself():
    seeds = torch.arange(6)
    states = torch.func.vmap(lambda seed: sentence(seed=seed).init(START))(seeds)
    params = fo.tree.map(lambda x: x.expand(6, *x.shape).clone(), START)

    def step(seed, params, state):
        updates, state = sentence(seed=seed).update(params, state, params)
        return fo.apply_updates(params, updates), state

    for _ in range(12):
        params, states = torch.func.vmap(step)(seeds, params, states)
    for lane in range(6):
        alone, state, _ = descend(sentence(seed=lane))
        torch.testing.assert_close(fo.tree.map(lambda x, lane=lane: x[lane], params), alone, rtol=1e-12, atol=1e-14)
        assert torch.equal(states[0].pick[lane], state[0].pick) and torch.equal(states[0].counts[lane], state[0].counts)


@pytest.mark.long
def test_the_plan_is_the_pick_and_its_graph_holds_that_member_alone():
    tx = sentence(dispatch="branch")
    params, state, plans = START, tx.init(START), []
    updates = {}
    for _ in range(12):
        plan = tx.plan(state)
        plans.append(plan[0])
        run = updates.setdefault(plan, torch.compile(lambda *a, plan=plan: tx.update(*a, plan=plan), backend="eager", fullgraph=True))
        change, state = run(params, state, params)
        params = fo.apply_updates(params, change)
    expected, _, picks = descend(sentence())
    assert plans == picks
    torch.testing.assert_close(params, expected, rtol=1e-12, atol=1e-14)


def test_a_managed_pool_keeps_its_records_outside_the_graph():
    """A step that ends an epoch is planned to run eagerly; the graphs of the others hold none of its arithmetic."""

    def told(step):
        return {"epoch": step // 3, "metric": 0.5 - 0.2 * (step % 2)}

    settings = {"switch": "epoch", "failures": fo.Failures(0.0, 1), "backup": ["lion", "adamw"], "active": ["adam", "momentum"], "seed": 3}
    tx = fo.chain(fo.roulette(small_pool(), **settings), fo.lr_scale())
    params, state, alone, plans, graphs, nodes = START, tx.init(START), tx.init(START), [], {}, []

    def counting(graph, example_inputs):
        nodes.append(len(graph.graph.nodes))
        return graph.forward

    for step in range(9):
        plan = tx.plan(state, **told(step))
        plans.append(plan[0])
        run = tx.update
        if plan[0] != "eager":
            tensors = {name: torch.tensor(value) for name, value in told(step).items()}
            traced = torch.compile(lambda *a, plan=plan, extra=tensors: tx.update(*a, plan=plan, **extra), backend=counting, fullgraph=True)
            updates, state = graphs.setdefault(plan, traced)(params, state, params)
        else:
            updates, state = run(params, state, params, plan=plan, **told(step))
        expected, alone = tx.update(params, alone, params, **told(step))
        torch.testing.assert_close(updates, expected, rtol=1e-12, atol=1e-14)
        params = fo.apply_updates(params, updates)
    torch.testing.assert_close(fo.tree.leaves(state), fo.tree.leaves(alone), rtol=1e-12, atol=1e-14, equal_nan=True)
    assert [plan == "eager" for plan in plans] == [True, False, False] * 3
    assert max(nodes) < 200


def test_epochs_switch_and_their_absence_is_an_error():
    tx = sentence(switch="epoch", probability=1.0)
    state, picks = tx.init(START), []
    for epoch in (0, 0, 1, 1, 2, 2):
        _, state = tx.update(START, state, START, epoch=epoch)
        picks.append(host_int(state[0].pick))
    assert picks[0::2] == picks[1::2] and picks[0] != picks[2] != picks[4]
    with pytest.raises(ValueError, match=r"roulette: needs the epoch of this step with switch='epoch'; call update\(..., epoch=epoch\)"):
        tx.update(START, state, START)


@pytest.mark.parametrize(
    "pool, message",
    [
        ({"adam": fo.Member(fo.adam(0.1), lr=0.1)}, "member 'adam' says 'lr', so its step has its size already"),
        ({"adam": fo.Member(plain())}, "member 'adam' has no lr and says none"),
        ({}, "pool must have at least one member"),
        ({"adam": fo.Member(fo.adam(None))}, "member 'adam' needs 'base_lr', and members hear nothing"),
    ],
)
def test_refuses_members_without_a_size_or_with_two(pool, message):
    with pytest.raises(ValueError, match="roulette: " + message):
        fo.roulette(pool).init(START)


def test_a_pool_may_hold_a_pool():
    inner = fo.chain(
        fo.roulette({"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sgd": fo.Member(fo.identity(), lr=0.05)}, every=2, seed=1),
        fo.lr_scale(),
    )
    tx = sentence({"inner": fo.Member(inner), "sgd": fo.Member(fo.sgd(0.05))}, dispatch="branch")
    params, state, picks = descend(tx)
    assert "inner/pick" in fo.read_signals(state) and len(set(picks)) == 2
    assert fo.tree.norm(params) < fo.tree.norm(START)
    plan = tx.plan(tx.init(START))[0]
    assert isinstance(plan, int) or plan[1] is not None


def test_a_named_roulette_speaks_and_is_steered_under_its_name():
    tx = fo.roulette(small_pool(), name="wheel", seed=1)
    state = tx.lock(tx.init(START), "lion")
    assert fo.read_signals(state)["wheel/pick"] == 2
    updates, state = tx.run(START, state, START)
    assert fo.read_signals(state)["wheel/base_lr"] == 0.01 and fo.read_signals(tx.unlock(state))["wheel/pick"] == 2


def test_flags_mark_epochs_for_loops_that_do_not_count_them():
    tx = fo.roulette(small_pool(), switch="epoch", seed=1, failures={"in_a_row": 1, "threshold": 0.0}, backup=["sgd"])
    state, seen = tx.init(START), []
    for step in range(6):
        _, state = tx.update(START, state, START, epoch_start=step % 2 == 0, epoch_end=step % 2 == 1, metric=1.0 - 0.1 * step)
        seen.append((host_int(state.epoch), host_int(state.pool.epochs_used.sum())))
    assert [epoch for epoch, _ in seen] == [0, 0, 1, 1, 2, 2]
    assert host_int(state.pool.swaps.sum()) >= 1


def test_one_call_credits_the_member_that_had_the_epoch():
    tx = fo.roulette(small_pool(), switch="epoch", seed=2, failures=fo.Failures(), active=["adam", "lion"])
    state = tx.init(START)
    picks = []
    for epoch in (0, 0, 1, 1, 2):
        _, state = tx.update(START, state, START, epoch=epoch, metric=0.5)
        picks.append(host_int(state.pick))
    used = [0] * 5
    used[picks[0]] += 1
    used[picks[2]] += 1
    assert state.pool.epochs_used.tolist() == used
    assert state.pool.age.tolist() == [2, 0, 2, 0, 0]


def test_non_finite_losses_are_reports_of_instability():
    tx = fo.roulette(small_pool(), switch="epoch", seed=2, failures=fo.Failures(), active=["adam"])
    state = tx.init(START)
    for epoch, loss in ((0, 1.0), (0, float("nan")), (1, 1.0)):
        _, state = tx.update(START, state, START, epoch=epoch, metric=0.5, loss=loss)
    assert state.lr[0].item() == 0.05 and host_int(state.bad_losses) == 0


def test_every_member_may_watch_every_gradient():
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "momentum": fo.Member(fo.trace(0.9), lr=0.01)}
    for dispatch in ("branch", "select"):
        state = fo.roulette(pool, every=1, seed=1, track="all", dispatch=dispatch).init(START)
        tx = fo.roulette(pool, every=1, seed=1, track="all", dispatch=dispatch)
        for _ in range(3):
            _, state = tx.update(START, state, START)
        assert host_int(state.members["adam"].count) == 3
        torch.testing.assert_close(state.members["momentum"].trace, fo.tree.scale(1 + 0.9 + 0.81, START))


@pytest.mark.parametrize("dispatch", ["branch", "select"])
def test_a_member_that_wakes_can_be_reset_or_brought_up_to_date(dispatch):
    def play(on_activate, anchors=None):
        pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1, anchors=anchors), "other": fo.Member(fo.identity(), lr=0.01)}
        tx = fo.roulette(pool, seed=1, every=1000, on_activate=on_activate, dispatch=dispatch)
        state = tx.init(START)
        for name in ("adam", "adam", "other", "adam"):
            _, state = tx.run(START, tx.lock(state, name), START)
        return host_int(state.members["adam"].count)

    assert play("keep") == 3 and play("reset") == 1
    assert play("resync", lambda state, params: state._replace(count=state.count + 10)) == 23


def test_rates_can_be_differentiated_through_either_kind_of_member():
    def after(lr, dispatch):
        pool = {"a": fo.Member(fo.trace(0.5), lr=lr), "b": fo.Member(fo.sgd(2 * lr))}
        tx = fo.chain(fo.roulette(pool, every=1, seed=1, dispatch=dispatch), fo.lr_scale())
        params, state = START, tx.init(START)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = fo.apply_updates(params, updates)
        return fo.tree.squared_norm(params)

    lr, h = torch.tensor(0.05, dtype=torch.float64), 1e-6
    for dispatch in ("auto", "select"):
        slope = torch.func.grad(after)(lr, dispatch)
        torch.testing.assert_close(slope, (after(lr + h, dispatch) - after(lr - h, dispatch)) / (2 * h), rtol=1e-6, atol=0)


def test_select_reads_no_number():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(func), "a number was read"
            return func(*args, **(kwargs or {}))

    tx = sentence(dispatch="select", every=1)
    state = tx.init(START)
    with Watch():
        for _ in range(3):
            _, state = tx.update(START, state, START)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"every": 0}, "every must be >= 1, got 0"),
        ({"probability": 1.5}, r"probability must be in \[0, 1\], got 1.5"),
        ({"switch": "batch"}, "switch must be one of 'step', 'epoch', got 'batch'"),
        ({"active": ["adam", "unknown"]}, "active must name members of the pool, got 'unknown'"),
        ({"dispatch": "fast"}, "dispatch must be one of"),
        ({"active": ["adam"], "backup": ["adam"]}, "a member must be in one list, got 'adam' in active and in backup"),
        ({"recovery": {"grace_period": 3}}, "recovery knows grace, relax, .*, got grace_period"),
        ({"warmup": fo.fixed_warmup(2, "unknown")}, "warmup must name a member of the pool, got 'unknown'"),
        ({"warmup": fo.fixed_warmup(2, drop=True)}, "a warm-up that drops its member must name it"),
        ({"rules": fo.switch_rules(special={"sgd": {"lr": 0.1}})}, "rules set or limit the rate of 'sgd', whose step has its size already"),
        ({"rules": fo.switch_rules(special={"nobody": {"lr": 0.1}})}, "rules name 'nobody', and there is no such member or group"),
        (
            {"compatible": fo.Compatibility({"adam": fo.Group(["sgd"])})},
            "a name must stand for a member or for a group, got 'adam' for both",
        ),
        ({"compatible": {"groups": {"x": fo.Group(["nobody"])}}}, "group 'x' names 'nobody', which is no member"),
        ({"track": "some"}, "track must be one of 'current', 'all'"),
    ],
)
def test_says_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match="roulette: " + message):
        fo.roulette(small_pool(), **settings)


# --- the default profile ------------------------------------------------------------------------------------------------------


def test_the_profile_refuses_hyperparameters_that_nobody_takes():
    with pytest.raises(ValueError, match="optiroulette_profile: 'adam' takes lr, betas, weight_decay, eps, got momentum"):
        fo.optiroulette_profile({"adam": {"momentum": 0.9}})
    with pytest.raises(ValueError, match="optiroulette_profile: there is no member 'adamm'"):
        fo.optiroulette_profile({"adamm": {}})


def test_every_member_of_the_profile_steps_and_adahessian_asks_for_its_hessian():
    profile = fo.optiroulette_profile()
    assert len(profile.pool) == 34
    tx = fo.roulette(profile.pool, **profile.settings)
    state = tx.init(START)
    for name in profile.pool:
        held = tx.lock(state, name)
        if name == "AdaHessian":
            with pytest.raises(ValueError, match="needs the diagonal of the Hessian"):
                tx.run(START, held, START)
        updates, held = tx.run(START, held, START, hessian=fo.tree.ones_like(START))
        assert all(torch.isfinite(leaf).all() for leaf in fo.tree.leaves(updates))
        if name not in ("gravity", "Nero"):  # which begins at random, and which first brings the params onto a sphere
            assert fo.tree.vdot(updates, START) >= 0, f"{name} goes uphill"


def test_quirks_are_asked_for_together_or_by_their_names():
    def walked(profile):
        tx = fo.roulette({"ranger": profile.pool["ranger"]})
        return fo.tree.vdot(tx.update(START, tx.init(START), START)[0], START)

    assert walked(fo.optiroulette_profile()) > 0 > walked(fo.optiroulette_profile(quirks=True))
    assert walked(fo.optiroulette_profile({"ranger": {"uphill": True}})) == walked(fo.optiroulette_profile(quirks=True))


def test_only_who_may_run_says_what_a_step_needs():
    profile = fo.optiroulette_profile()
    assert "hessian" not in fo.roulette(profile.pool, **profile.settings).needs
    swapping = {**profile.settings, "failures": fo.Failures()}
    assert fo.roulette(profile.pool, **swapping).needs["hessian"] == "always"
    assert fo.roulette(profile.pool, **profile.settings, dispatch="select").needs["hessian"] == "always"


@pytest.mark.parametrize("name", ["ranger", "ranger21", "AccSGD", "ASGD"])
def test_members_that_keep_places_find_them_anew_where_they_wake(name):
    member = fo.optiroulette_profile().pool[name]
    state = member.transformation.init(START)
    _, state = member.transformation.update(START, state, START)
    moved = fo.tree.scale(3.0, START)
    woken = member.anchors(state, moved)
    assert fo.tree.structure(woken) == fo.tree.structure(state)
    if name == "ASGD":
        assert fo.find(woken, "theta").item() == 1 and woken[0].count.item() == 0
        return
    torch.testing.assert_close(woken[1].b if name == "AccSGD" else fo.find(woken, "slow"), moved)


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("adam", lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-4)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.06)),
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)),
        ("nadam", lambda p: torch.optim.NAdam(p, lr=1e-3, weight_decay=1e-4)),
        ("Adagrad", lambda p: torch.optim.Adagrad(p, lr=1e-5)),
        ("amsgrad", lambda p: torch.optim.Adam(p, lr=1e-5, amsgrad=True)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=1e-5, alpha=0.9, momentum=0.9, weight_decay=1e-4, centered=True)),
    ],
)
def test_members_of_the_profile_follow_torch(name, theirs):
    member = fo.optiroulette_profile().pool[name]
    tx = fo.chain(fo.roulette({name: member}), fo.lr_scale())
    ours, state = START, tx.init(START)
    parameters = {key: leaf.clone().requires_grad_() for key, leaf in START.items()}
    optimizer = theirs(list(parameters.values()))
    for step in range(25):
        gradients = {key: torch.sin(leaf * (step + 1)) + 0.1 for key, leaf in START.items()}
        updates, state = tx.update(gradients, state, ours)
        ours = fo.apply_updates(ours, updates)
        for key, parameter in parameters.items():
            parameter.grad = gradients[key]
        optimizer.step()
    # NAdam of torch keeps the product of its momenta in float32
    torch.testing.assert_close(
        ours, {key: p.detach() for key, p in parameters.items()}, rtol=1e-6 if name == "nadam" else 1e-11, atol=1e-12
    )


@pytest.mark.long
def test_a_pool_of_34_stays_inside_the_recompile_limit(monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend="eager", fullgraph=True, dynamic=False))
    pool = {f"m{index}": fo.Member(fo.trace(0.5), lr=0.01 * (index + 1)) for index in range(34)}
    step = fo.make_step(lambda p: (p * p).sum(), fo.chain(fo.roulette(pool, every=1, seed=0), fo.lr_scale()), compile=True, donate=True)
    params, state = step.init(torch.ones(3))
    picks = set()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, error_on_recompile=True):
        for _ in range(150):
            params, state, _ = step(params, state)
            picks.add(int(fo.read_signals(state)["pick"]))
    assert len(picks) > 30
    assert torch.isfinite(params).all()


BAD = range(4, 14)  # steps whose gradient holds a NaN: long enough for everybody to be drawn


def until_the_next_draw(every):
    """The steps from the first bad gradient to the first draw after the last."""
    return list(range(BAD[0], (BAD[-1] // every + 1) * every))


def steps_that_are_not_finite(tx, steps=60, **how):
    """Of a run in which some gradients hold a NaN; such a step is not applied, as a loop would do."""
    step_of = how.get("step_of", lambda step, state: tx.update)
    params, state, found = START, tx.init(START), []
    for step in range(steps):
        gradients = fo.tree.clone(params)
        if step in BAD:
            gradients["a"][1] = float("nan")
        updates, state = step_of(step, state)(gradients, state, params)
        if fo.tree.all_finite(updates):
            params = fo.apply_updates(params, updates)
        else:
            found.append(step)
    return found


@pytest.mark.parametrize(
    "settings", [{}, {"dispatch": "select"}, {"avoid_repeat": False}, {"on_activate": "resync"}, {"every": 3}], ids=str
)
def test_a_member_that_was_poisoned_starts_anew_when_it_is_drawn(settings):
    # Without, the four of the five that remember are NaN again whenever they are drawn.
    every = settings.get("every", 1)
    found = steps_that_are_not_finite(sentence(**{"every": 1, "probability": 1.0, **settings}))
    assert set(BAD) <= set(found) <= set(until_the_next_draw(every))


def test_a_pool_of_one_is_looked_at_too():
    assert steps_that_are_not_finite(
        sentence({"adam": fo.Member(fo.scale_by_adam(), lr=0.1)}, every=5, probability=1.0)
    ) == until_the_next_draw(5)


def test_members_of_a_pool_in_parity_stay_as_they_are():
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1)}
    assert steps_that_are_not_finite(sentence(pool, every=5, probability=1.0, parity=True), steps=30) == list(range(4, 30))


@pytest.mark.parametrize("every", [pytest.param(2, marks=pytest.mark.long), 25], ids=["in the graph", "outside"])
def test_a_poisoned_member_starts_anew_in_compiled_steps(every):
    tx, graphs, eager = sentence({"adam": fo.Member(fo.scale_by_adam(), lr=0.1)}, every=every, probability=1.0), {}, []

    def step_of(step, state):
        plan = tx.plan(state)
        if plan[0] == "eager":
            eager.append(step)
            return lambda *a: tx.update(*a, plan=plan)
        return graphs.setdefault(plan, torch.compile(lambda *a: tx.update(*a, plan=plan), backend="eager", fullgraph=True))

    assert steps_that_are_not_finite(tx, steps=30, step_of=step_of) == until_the_next_draw(every)
    assert eager == ([] if every == 2 else [25])
