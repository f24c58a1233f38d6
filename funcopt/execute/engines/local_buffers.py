"""One mistake of torch's compiler for CPUs, which ends with `KeyError: 'buf21'`, taken back.

Loops that follow one another are put into one, and a value that only they read then stays in a buffer of its own in that loop.
Whether it may is asked of every node that comes after it, and among those are nodes that read nothing of it and only have to wait,
such as the copy into a donated leaf that has been read. The question for their index fails
(https://github.com/pytorch/pytorch/issues/196570, torch 2.13 and 2.14). Here it is answered: no index, so the value stays
where it is, as it would if the index were another one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["compiling_again"]


def compiling_again(error: Exception, call: Callable[[], Any]) -> Any:
    """What `call` returns, after it failed to compile with `error`, without the mistake; another error is raised as it is.

    A graph that failed to compile has not run.
    """
    if not _mistaken(error):
        raise error
    with _answered():
        return call()


def _mistaken(error: BaseException | None) -> bool:
    """Whether the error, or one inside it, was raised where the index is asked for."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_name == "get_read_expr":
                return True
            trace = trace.tb_next
        error = getattr(error, "inner_exception", None) or error.__cause__
    return False


@contextmanager
def _answered() -> Iterator[None]:
    from torch._inductor.loop_body import LoopBody

    asked = LoopBody.get_read_expr

    def answer(self: Any, buffer_name: str) -> Any:
        try:
            return asked(self, buffer_name)
        except KeyError:
            return None

    LoopBody.get_read_expr = answer
    try:
        yield
    finally:
        LoopBody.get_read_expr = asked
