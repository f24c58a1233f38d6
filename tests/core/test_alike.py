"""Updates that do not look like params are refused, whatever stands first in the chain."""

import pytest
import torch

import funcopt as fo


@pytest.mark.parametrize("tx", [fo.sgd(0.1), fo.chain(fo.identity(), fo.trace(0.9)), fo.adam(0.1)], ids=["sgd", "identity first", "adam"])
def test_a_shape_that_would_broadcast_is_refused(tx):
    params = {"w": torch.ones(3, 4)}
    with pytest.raises(ValueError, match=r"at 'w' updates has shape \(1, 4\) and params \(3, 4\)"):
        tx.update({"w": torch.ones(1, 4)}, tx.init(params), params)


def test_a_leaf_that_is_no_tensor_is_named_by_its_path():
    with pytest.raises(TypeError, match="here: params must be a tree of tensors, got float at 'w.scale'"):
        fo.tree.assert_alike("here", {"b": torch.ones(1), "w": {"scale": torch.ones(1)}}, {"b": torch.ones(1), "w": {"scale": 1.0}})
