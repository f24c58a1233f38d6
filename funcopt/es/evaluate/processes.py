"""Members in worker processes: for objectives that vmap rejects and that keep one core busy.

Parameters, arguments and key go to each worker once a call; every member makes its
noise there from the key, and only its number goes out and its fitness comes back.
Workers are started (spawned) at the first call and end with the estimate that owns
them, at the latest with the program. A member that raises, or whose worker dies, is NaN.
"""

import contextlib
import multiprocessing
import os
import pickle
import traceback
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.es.arguments import perturbed_of
from funcopt.es.evaluate.chunks import Task
from funcopt.es.noise.population import Perturbations
from funcopt.es.options import Settings

__all__ = ["Workers"]


class Workers:
    """A crew of processes for one objective, each with an evaluator `made(objective, argnums, settings)`; see the head of the file."""

    def __init__(self, made: Callable[..., Any], objective: Callable, argnums: int | tuple[int, ...], settings: Settings):
        self.settings = settings
        # What shapes and shares the fitness stays here; it need not be picklable.
        what = replace(settings.estimand, shaping="none", baseline="none", mask=None)
        bare = Settings(
            settings.where, what, replace(settings.execution, process_group=None, devices=None, vectorize="loop", compile=False)
        )
        self.program = _pickled(settings.where, "objective", (made, objective, argnums, bare))
        self.crew: list[tuple[Any, Connection]] = []
        self.finalizer = weakref.finalize(self, _close, self.crew)

    def evaluate(self, perturbations: Perturbations, args: tuple, kwargs: dict, pairs: range) -> tuple[Tensor, Any]:
        """Fitness [2, pairs, ...] (or [1, pairs, ...]) and aux alike."""
        settings = self.settings
        device = perturbations.leaves[0].device
        call = _pickled(
            settings.where,
            "arguments of the objective",
            (_on_host(perturbations.key), _on_host(perturbations.mask), _on_host(args), _on_host(kwargs)),
        )
        while len(self.crew) < (settings.execution.workers or os.cpu_count() or 1):
            self.hire()
        waiting = [sign * settings.estimand.pairs + j for sign in range(settings.estimand.signs) for j in pairs]
        answers, failures = self.hand_out(waiting, b"c" + call)
        for said in failures.values():
            if isinstance(said, Refusal):
                raise ValueError(said)
        if not answers:
            raise RuntimeError(f"{settings.where}: every member failed in its worker; the first said\n{failures[min(failures)]}")
        if failures:
            first = min(failures)
            warnings.warn(
                f"{settings.where}: {len(failures)} members failed in their workers and count as NaN; "
                f"member {first} said\n{failures[first]}",
                stacklevel=6,
            )
        sample = next(iter(answers.values()))
        lost = tree.map_plain(lambda x: torch.full_like(x, torch.nan) if x.is_floating_point() else torch.zeros_like(x), sample)
        rows = [answers.get(i, lost) for i in waiting]
        stacked = tree.map_plain(lambda *xs: torch.stack(xs).reshape(settings.estimand.signs, len(pairs), *xs[0].shape).to(device), *rows)
        return stacked

    def hire(self) -> Connection:
        """Starts one more worker."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        ours.send_bytes(b"p" + self.program)
        self.crew.append((process, ours))
        return ours

    def dismiss(self, connection: Connection) -> None:
        """Forgets a worker that is dead."""
        for process, other in list(self.crew):
            if other is connection:
                self.crew.remove((process, other))
                connection.close()
                process.join(timeout=1)

    def hand_out(self, members: list[int], call: bytes) -> tuple[dict[int, Any], dict[int, str]]:
        """Members to whoever is free; their answers, and what the failed ones said. Who dies is replaced."""
        answers: dict[int, Any] = {}
        failures: dict[int, str] = {}
        busy: dict[Connection, int] = {}
        waiting = members[::-1]
        idle = [connection for _, connection in self.crew]
        told: set[Connection] = set()  # of this call
        while waiting or busy:
            while waiting and idle:
                connection, i = idle.pop(), waiting.pop()
                try:
                    if connection not in told:
                        connection.send_bytes(call)
                        told.add(connection)
                    connection.send_bytes(b"m" + pickle.dumps(i))
                    busy[connection] = i
                except OSError:  # died between two calls: nobody has seen this member yet
                    self.dismiss(connection)
                    idle.append(self.hire())
                    waiting.append(i)
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                i = busy.pop(connection)
                try:
                    ok, answer = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    ok, answer = False, "its worker died"
                    self.dismiss(connection)
                    if waiting:
                        idle.append(self.hire())
                else:
                    idle.append(connection)
                (answers if ok else failures)[i] = answer
        return answers, failures


class Refusal(str):
    """What a worker refused, and the call with it: no failure of one member."""


def _work(connection: Connection) -> None:
    """A worker: takes the program, then calls, then members."""
    torch.set_num_threads(1)
    evaluator = perturbations = task = None
    problem = ""
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            message = connection.recv_bytes()
            kind, content = message[:1], message[1:]
            try:
                if kind == b"p":
                    made, *told = pickle.loads(content)
                    evaluator = made(*told)
                    continue
                assert evaluator is not None
                if kind == b"c":
                    key, mask, args, kwargs = pickle.loads(content)
                    task = Task(args, kwargs)
                    perturbations = Perturbations(evaluator.settings, perturbed_of(args, evaluator.argnums), key, mask)
                    evaluator.watching, problem = True, ""
                    continue
                assert perturbations is not None and task is not None, problem
                result = (True, _member(evaluator, perturbations, task, pickle.loads(content)))
            except Exception as error:
                said = str(error)
                refused = isinstance(error, ValueError) and evaluator is not None and said.startswith(evaluator.settings.where)
                result = (False, Refusal(said) if refused else traceback.format_exc(limit=-4))
                if kind != b"m":
                    problem = result[1]
                    continue
            connection.send_bytes(pickle.dumps(result))


def _member(evaluator, perturbations: Perturbations, task, i: int) -> tuple:
    half = evaluator.settings.estimand.pairs
    j, sign = i % half, i // half
    with torch.no_grad(), evaluator.settled_randomness(perturbations.key, i):
        one = range(j, j + 1), range(sign, sign + 1)
        answer = evaluator.builder.attempt(evaluator.by_loop, perturbations, task, perturbations.draw(one[0]), *one, 1, None)
    return tree.map_plain(lambda x: x.reshape(x.shape[2:]), (answer.fitness, answer.aux))


def _pickled(where: str, what: str, content: Any) -> bytes:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"{where}: vectorize='processes' sends the {what} to other processes, and cannot pickle it ({error}); use functions of a module"
        ) from error


def _on_host(x: Any) -> Any:
    return tree.map_plain(lambda leaf: leaf.detach().to("cpu") if isinstance(leaf, Tensor) else leaf, x)


def _close(crew: list) -> None:
    for _, connection in crew:
        connection.close()
    for process, _ in crew:
        process.join(timeout=1)
        if process.is_alive():
            process.terminate()
    crew.clear()
