"""A save that is killed, at any moment, leaves the old file whole; a file that was cut off is told from a whole one."""

import os
import signal
import time

import pytest
import torch

import funcopt as fo

needs_kill = pytest.mark.skipif(
    not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL, which Windows has not"
)
FORMS = pytest.mark.parametrize("name", ["state.pt", "state.safetensors"])
SIZE = 200_000


@pytest.fixture(autouse=True)
def with_safetensors(request):
    if request.node.callspec.params["name"].endswith(".safetensors"):
        pytest.importorskip("safetensors")


def filled(value):
    return {"w": torch.full((SIZE,), float(value)), "b": torch.full((), float(value))}


def loaded(path):
    """The number that a file is filled with; fails where it is not whole."""
    state = fo.checkpoint.load(path, filled(-1))
    assert torch.equal(state["w"], state["b"].expand(SIZE))
    return int(state["b"])


def in_another_process(work):
    """Starts `work` in a child, which ends when it is killed or done."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def kills_itself(owner, name, after):
    """Makes the process kill itself where it calls `owner.name`, before or after the call."""
    real = getattr(owner, name)

    def fatal(*arguments, **keywords):
        result = real(*arguments, **keywords) if after else None
        os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, fatal)


MOMENTS = [("fsync", False), ("fsync", True), ("replace", False), ("replace", True)]


@needs_kill
@FORMS
@pytest.mark.parametrize("call, after", MOMENTS, ids=lambda value: str(value))
def test_a_save_that_is_killed_leaves_a_whole_file(tmp_path, name, call, after):
    path = tmp_path / name
    fo.checkpoint.save(path, filled(1))

    def work():
        kills_itself(os, call, after)
        fo.checkpoint.save(path, filled(2))

    _, status = os.waitpid(in_another_process(work), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert loaded(path) == (2 if (call, after) == ("replace", True) else 1)
    fo.checkpoint.save(path, filled(3))  # what was left behind is in nobody's way
    assert loaded(path) == 3


@needs_kill
@FORMS
def test_killed_at_any_moment(tmp_path, name):
    """A child saves over and over; it is killed after 2, 5, ... ms of it."""
    path = tmp_path / name
    fo.checkpoint.save(path, filled(0))
    for delay in (0.002, 0.005, 0.011, 0.017, 0.023, 0.031):
        started = path.stat().st_ino

        def work():
            for value in range(1, 10_000):
                fo.checkpoint.save(path, filled(value))

        child = in_another_process(work)
        deadline = time.monotonic() + 200
        while path.stat().st_ino == started and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert loaded(path) >= 1


@FORMS
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_said_to_be(tmp_path, name, share):
    path = tmp_path / name
    fo.checkpoint.save(path, filled(1))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="must be a whole file of checkpoint.save, but cannot be read; take an older one"):
        fo.checkpoint.load(path, filled(0))
