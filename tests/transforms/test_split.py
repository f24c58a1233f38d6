"""split_real_and_imaginary: a complex leaf goes the way of two real ones."""

import torch

import funcopt as fo
from tests.helpers import assert_trees_close


def test_a_complex_leaf_goes_the_way_of_two_real_ones():
    z = torch.tensor([1.0 + 2.0j, -0.5 - 1.0j], dtype=torch.complex128)
    pair = {"re": z.real.clone(), "im": z.imag.clone()}
    tx = fo.split_real_and_imaginary(fo.adam(0.1))
    state, real_state = tx.init({"z": z}), fo.adam(0.1).init(pair)
    for _ in range(3):
        updates, state = tx.update({"z": z * (1 + 0.5j)}, state)
        g = z * (1 + 0.5j)
        real, real_state = fo.adam(0.1).update({"re": g.real, "im": g.imag}, real_state)
        assert_trees_close(updates["z"], torch.complex(real["re"], real["im"]))


def test_the_state_shares_no_memory_with_the_params():
    z = torch.tensor([1.0 + 2.0j])
    state = fo.split_real_and_imaginary(fo.lookahead(fo.sgd(0.1), 2, 0.5)).init(z)
    z.zero_()
    assert state.inner_state.slow.real == 1.0 and list(fo.read_signals(state)) == ["lr"]
