"""Every row of the zoo: no update reads a value on the host, outside of core/random.host_int."""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from tests.helpers import gradients_at, small_params
from tests.zoo import ROWS

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item")
ALLOWED = ("host_int", "host_value")


class NoHostReads(TorchDispatchMode):
    """Fails where a device would have to be waited for."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.__name__.split(".")[0] in READS and not self._allowed():
            raise AssertionError(f"{function.__name__} reads a value on the host")
        return function(*arguments, **(keywords or {}))

    @staticmethod
    def _allowed() -> bool:
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name in ALLOWED and "core" in frame.f_code.co_filename:
                return True
            frame = frame.f_back
        return False


def test_the_watch_notices_a_read():
    with pytest.raises(AssertionError, match="reads a value on the host"), NoHostReads():
        float(torch.ones(()) + 1)


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_no_update_reads_a_value_on_the_host(row):
    tx, params = row.make(), small_params()
    state = tx.init(params)
    for step in range(3):
        gradients, extra = gradients_at(step, params), row.extra(step)
        if "host" in row.cannot:
            with pytest.raises(AssertionError, match=row.cannot["host"]), NoHostReads():
                tx.update(gradients, state, params, **extra)
            return
        with NoHostReads():
            updates, state = tx.update(gradients, state, params, **extra)
        params = fo.apply_updates(params, updates)
