"""Names of the release before: they work, and tell the new one."""

import pickle

import pytest

import funcopt as fo


def untouched(updates, state, params=None, **extra):
    return updates, state


@pytest.mark.parametrize("old, new", [("leafwise", "flattenable"), ("apart", "per_leaf")])
def test_the_former_names_of_declarations_work_for_one_release_and_tell_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match=f"mine: {old}= is now called {new}="):
        tx = fo.GradientTransformation(lambda params: fo.EmptyState(), untouched, name="mine", **{old: True})
    assert getattr(tx, new)
    with pytest.warns(DeprecationWarning, match=f"mine: the attribute {old} is now called {new}"):
        assert getattr(tx, old)


def test_stateless_takes_the_former_name():
    with pytest.warns(DeprecationWarning, match="stateless: leafwise= is now called flattenable="):
        assert fo.stateless(lambda updates, params: updates, leafwise=True).flattenable


def test_the_warning_points_at_whoever_used_the_old_name():
    with pytest.warns(DeprecationWarning) as seen:
        fo.GradientTransformation(lambda params: fo.EmptyState(), untouched, leafwise=True)
    assert seen[0].filename == __file__


@pytest.mark.parametrize(
    "former, name, now",
    [
        ("funcopt.core.flat", "Flat", fo.Flat),
        ("funcopt.core.flat", "Layout", fo.Layout),
        ("funcopt.es.persistent", "PersistentState", fo.es.PersistentState),
        ("funcopt.torch_optim.foreign", "FromTorchState", fo.torch_optim.FromTorchState),
        ("funcopt.torch_optim.ready_made", "adam", fo.torch_optim.adam),
    ],
)
def test_a_pickle_of_the_former_house_finds_its_classes(former, name, now):
    assert pickle.loads(f"c{former}\n{name}\n.".encode()) is now
