"""The members of a population, evaluated in chunks: by vmap over (pairs, signs), one after the other, or stacked.

    chunk of c pairs: noise [c, ...] and signs (+1, -1) -> fitness [c, 2], the noise read once for both signs

Every chunk has the same shape: the last is filled up with copies of its last pair,
whose results are dropped. Neither the noise nor the order of members depends on the
size of the chunks.
"""

import contextlib
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from funcopt.core import random, tree, versions
from funcopt.core.philox import host_value
from funcopt.es.answers import Answer, answer_of
from funcopt.es.compiling import chunk_options
from funcopt.es.perturbations import Perturbations
from funcopt.es.perturbed import settle
from funcopt.es.refusals import Refused, guarded_loop, refusal
from funcopt.es.settings import Settings
from funcopt.es.tiles import own_code
from funcopt.es.workers import Workers

__all__ = ["Evaluation", "Evaluator", "Task", "auto_chunk", "shapes_of"]

STREAM = 2**31  # keys of the objective, beside those of the leaves
CACHE = 3 << 19  # bytes of weights in a chunk on the CPU: about a second-level cache


class Task(NamedTuple):
    """A call of the objective without its parameters."""

    args: tuple
    kwargs: dict


class Evaluation(NamedTuple):
    """What the members said, in member order."""

    fitness: Tensor  # [P] or [P, K], raw
    aux: Any  # stacked along a first axis [P], () without has_aux


class Evaluator:
    """Calls the objective for members; remembers how that works (vmap or a loop) and what was compiled."""

    def __init__(self, objective: Callable, argnums: int | tuple[int, ...], settings: Settings):
        self.objective, self.argnums, self.settings = objective, argnums, settings
        self.takes_key = _takes_key(objective)
        self.how = settings.vectorize
        self.compiled: dict[Any, Callable] = {}
        self.workers: Workers | None = None
        self.agreed: dict[Any, int] = {}  # shapes of params -> members in an automatic chunk, where ranks settled on it

    # --- one member ------------------------------------------------------------------------------------------------------------

    def call(self, placed: Any, task: Task, key: Tensor | None, own: Tensor | None = None) -> Answer:
        """The objective at these parameters, its answer checked. `own` is a zero of this member alone: it makes the buffers its own."""
        settings, args, kwargs = self.settings, list(task.args), task.kwargs
        if settings.buffers != "frozen" and own is not None:
            args[settings.buffers_argnum] = tree.map_plain(lambda x: x + own.to(x.dtype), args[settings.buffers_argnum])
        numbers = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
        for number, value in zip(numbers, (placed,) if isinstance(self.argnums, int) else placed, strict=True):
            args[number] = value
        if self.takes_key and key is not None:
            kwargs = {**kwargs, "key": key}
        return answer_of(self.objective(*args, **kwargs), settings)

    def keys(self, base: Tensor, pairs: range, signs: range) -> Tensor | None:
        """The objective's key: [2] for all, [pairs, 1, 2] for both of a pair, or [pairs, signs, 2]."""
        if not self.takes_key or self.settings.randomness != "keyed":
            return None
        stream, shared = random.fold_in(base, STREAM), self.settings.common_random_numbers
        if shared is True:
            return random.fold_in(stream, 0)
        if shared == "pairs":
            return random.split(random.advance(stream, pairs.start), len(pairs)).unsqueeze(1)
        half = self.settings.pairs
        return torch.stack([random.split(random.advance(stream, sign * half + pairs.start), len(pairs)) for sign in signs], dim=1)

    def center(self, perturbations: Perturbations, task: Task) -> Answer:
        """The unperturbed member."""
        keys = self.keys(perturbations.key, range(1), range(1))
        with torch.no_grad(), self.settled_randomness(perturbations.key, 0):
            leaves = [leaf if self.settings.dtype is None or not leaf.is_floating_point() else leaf.to(self.settings.dtype) for leaf in perturbations.leaves]
            return self.call(tree.unflatten(perturbations.params, leaves), task, None if keys is None else keys.reshape(-1, 2)[0])

    # --- all of them -----------------------------------------------------------------------------------------------------------

    def evaluate(self, perturbations: Perturbations, task: Task, stored: list | None, pairs: range | None = None) -> Evaluation:
        """Fitness of the members of `pairs` (None: of all): the seam where ranks divide the work."""
        settings = self.settings
        pairs = range(settings.pairs) if pairs is None else pairs
        if self.how == "processes":
            return self.by_processes(perturbations, task, pairs)
        with torch.no_grad(), contextlib.nullcontext() if self.how == "loop" else _math_attention():
            self.settle(perturbations, task)
            size, signs = self.chunk(perturbations, task)
            run = {"vmap": self.by_vmap, "loop": self.by_loop, "external": self.stacked}[self.how]
            answers = _Answers(len(pairs), settings.signs)
            for sign in signs:
                for start in range(pairs.start, pairs.stop, size):
                    number = start // size
                    part = range(start, min(start + size, pairs.stop))
                    device = None if settings.devices is None else torch.device(settings.devices[number % len(settings.devices)])
                    noise = perturbations.draw(part, device) if stored is None else tree.map_plain(lambda x, p=part: x[p.start : p.stop], stored)
                    with self.settled_randomness(perturbations.key, number):
                        answer = run(perturbations, task, noise, part, sign, size, device)
                    if device is not None:
                        answer = tree.map_plain(lambda x: x.to(perturbations.leaves[0].device), answer)
                    answers.add(answer, range(start - pairs.start, part.stop - pairs.start), sign)
                    del answer  # before the next chunk allocates
        members = tree.map_plain(lambda x: x.transpose(0, 1).reshape(-1, *x.shape[2:]), answers.whole())
        return Evaluation(members.fitness, members.aux)

    def by_processes(self, perturbations: Perturbations, task: Task, pairs: range) -> Evaluation:
        if versions.transforming():
            raise ValueError(
                f"{self.settings.where}: vectorize='processes' sends parameters to other processes and cannot do so inside vmap; use vectorize='loop'"
            )
        if self.workers is None:
            self.workers = Workers(self.objective, self.argnums, self.settings)
        fitness, aux = self.workers.evaluate(perturbations, task.args, task.kwargs, pairs)
        return Evaluation(*tree.map_plain(lambda x: x.reshape(-1, *x.shape[2:]), (fitness, aux)))

    def chunk(self, perturbations: Perturbations, task: Task) -> tuple[int, list[range]]:
        """Pairs of a chunk, and the signs that are evaluated together."""
        settings, both = self.settings, range(self.settings.signs)
        size = settings.chunk_size
        if size is None or (size == "auto" and self.how in ("external", "loop")):
            members = settings.popsize if size is None or self.how == "external" else 16 * settings.signs
        elif size == "auto":
            members = self.agreed.get(shapes_of(perturbations)) or auto_chunk(perturbations, task, settings.popsize)
        else:
            members = int(size)
        if members < settings.signs and self.how != "loop":
            return 1, [range(s, s + 1) for s in both]
        return min(max(1, members // settings.signs), settings.pairs), [both]

    def by_vmap(self, perturbations, task, noise, part: range, signs: range, size: int, device) -> Answer:
        keys = self.keys(perturbations.key, part, signs)
        if len(part) < size:
            noise = tree.map_plain(lambda x: _filled(x, size), noise)
            keys = keys if keys is None or keys.dim() == 1 else _filled(keys, size)
        leaves, scales, task = _moved(perturbations, task, device)
        directions = torch.tensor([1.0, -1.0], device=leaves[0].device)[signs.start : signs.stop]
        chunk = self.compiled_chunk(perturbations, signs) if self.settings.compile else self.chunk_function(perturbations)
        try:
            answer = chunk(leaves, scales, noise, directions, keys, task)
        except Exception as error:
            raise refusal(self.settings, error) from error
        return answer if len(part) == size else tree.map_plain(lambda x: x[: len(part)], answer)

    def chunk_function(self, perturbations: Perturbations) -> Callable:
        place, randomness = perturbations.place, {"keyed": "error"}.get(self.settings.randomness, self.settings.randomness)

        def chunk(leaves, scales, noise, directions, keys, task):
            def one(eps, sign, key, own):
                return self.call(place(leaves, scales, eps, sign), task, key, own)

            inner = None if keys is None or keys.dim() == 1 or keys.shape[1] == 1 else 0
            outer = None if keys is None or keys.dim() == 1 else 0
            keys = keys.squeeze(1) if keys is not None and keys.dim() == 3 and inner is None else keys
            own = directions.new_zeros(tree.leaves(noise)[0].shape[0], directions.shape[0])
            pair = vmap(one, in_dims=(None, 0, inner, 0), randomness=randomness)
            return vmap(pair, in_dims=(0, None, outer, 0), randomness=randomness)(noise, directions, keys, own)

        return chunk

    def compiled_chunk(self, perturbations: Perturbations, signs: range) -> Callable:
        """One compilation for a structure of params, a set of perturbed leaves and a shape of chunk (torch.compile sees to the last)."""
        name = (perturbations.form, signs)
        if name not in self.compiled:
            self.compiled[name] = torch.compile(own_code(self.chunk_function(perturbations)), **chunk_options(self.settings.compile))
        return self.compiled[name]

    def by_loop(self, perturbations, task, noise, part: range, signs: range, size: int, device) -> Answer:
        keys = self.keys(perturbations.key, part, signs)
        leaves, scales, task = _moved(perturbations, task, device)
        rows = []
        for j in range(len(part)):
            eps = tree.map_plain(lambda x, j=j: x[j], noise)
            for column, sign in enumerate(signs):
                key = None if keys is None else keys if keys.dim() == 1 else keys[j, min(column, keys.shape[1] - 1)]
                direction = torch.full((), (1.0, -1.0)[sign], device=leaves[0].device)
                with guarded_loop(self.settings, first=part.start + j == 0 and sign == 0):
                    rows.append(self.call(perturbations.place(leaves, scales, eps, direction), task, key, torch.zeros_like(direction)))
        stacked = tree.map_plain(lambda *xs: torch.stack(xs), *rows)
        return tree.map_plain(lambda x: x.reshape(len(part), len(signs), *x.shape[1:]), stacked)

    def stacked(self, perturbations, task, noise, part: range, signs: range, size: int, device) -> Answer:
        """The objective gets all members of a chunk at once, those with the first sign first."""
        keys = self.keys(perturbations.key, part, signs)
        leaves, scales, task = _moved(perturbations, task, device)
        directions = torch.tensor([1.0, -1.0], device=leaves[0].device)[signs.start : signs.stop]
        by_sign = vmap(vmap(lambda eps, sign: tree.map_plain(settle, perturbations.place(leaves, scales, eps, sign)), in_dims=(0, None)), in_dims=(None, 0))
        members = len(part) * len(signs)
        population = tree.map_plain(lambda x: x.reshape(members, *x.shape[2:]), by_sign(noise, directions))
        if keys is not None and keys.dim() == 3:
            keys = keys.expand(-1, len(signs), 2).transpose(0, 1).reshape(members, 2)
        answer = self.call_stacked(population, task, keys, members)
        return tree.map_plain(lambda x: x.reshape(len(signs), len(part), *x.shape[1:]).transpose(0, 1), answer)

    def call_stacked(self, population: Any, task: Task, keys: Tensor | None, members: int) -> Answer:
        args, kwargs = list(task.args), task.kwargs
        numbers = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
        for number, value in zip(numbers, (population,) if isinstance(self.argnums, int) else population, strict=True):
            args[number] = value
        if self.takes_key and keys is not None:
            kwargs = {**kwargs, "key": keys}
        return answer_of(self.objective(*args, **kwargs), self.settings, members=members)

    # --- how ---------------------------------------------------------------------------------------------------------------------

    def settle(self, perturbations: Perturbations, task: Task) -> None:
        """Decides how members are evaluated, if it is not decided yet."""
        if self.how == "auto":
            with torch.no_grad(), _math_attention():
                self.how = self.probe(perturbations, task)

    def probe(self, perturbations: Perturbations, task: Task) -> str:
        """ "vmap" if it gives two members the same fitness as the loop does; else "loop", with one warning. Once for each `es.grad`."""
        settings = self.settings
        if versions.transforming() or versions.compiling():
            return "vmap"  # whoever maps over us maps over the objective
        pairs, signs = range(1 if settings.antithetic else min(2, settings.pairs)), range(settings.signs)
        noise = perturbations.draw(pairs)
        compiled, name = settings.compile, None
        try:
            with self.settled_randomness(perturbations.key, 0):
                if compiled:
                    answer = self.chunk_function(perturbations)(*self._inputs(perturbations, task, noise, pairs, signs))
                else:
                    answer = self.by_vmap(perturbations, task, noise, pairs, signs, len(pairs), None)
        except Exception as error:
            error = error if isinstance(error, Refused) else refusal(settings, error)
            if not isinstance(error, Refused):
                raise error from error.__cause__
            name = error.operation
        else:
            if settings.randomness in ("same", "different"):
                return "vmap"  # the loop draws other numbers
            looped = self.by_loop(perturbations, task, noise, pairs, signs, len(pairs), None)
            # Reads the fitness of two members, at the first call only.
            dtypes = [settings.dtype] if settings.dtype is not None else [leaf.dtype for leaf in perturbations.leaves if leaf.is_floating_point()]
            rtol = max(1e-4, *(8 * torch.finfo(dtype).eps for dtype in dtypes))  # half precision differs in its last bits
            if torch.allclose(answer.fitness, looped.fitness.to(answer.fitness), rtol=rtol, atol=1e-6, equal_nan=True):
                return "vmap"
            name = "an operation that gives other numbers inside vmap"
        warnings.warn(
            f"{settings.where}: vmap does not take {name}; members are evaluated one after the other. "
            "Say vectorize='loop' to silence this, vectorize='processes' for worker processes",
            stacklevel=6,
        )
        return "loop"

    def _inputs(self, perturbations, task, noise, pairs, signs):
        leaves, scales, task = _moved(perturbations, task, None)
        directions = torch.tensor([1.0, -1.0], device=leaves[0].device)[signs.start : signs.stop]
        return leaves, scales, noise, directions, self.keys(perturbations.key, pairs, signs), task

    @contextlib.contextmanager
    def settled_randomness(self, key: Tensor, number: int) -> Iterator[None]:
        """torch's generators seeded from the key, and put back afterwards: nothing global is read or advanced."""
        host = host_value(key) if self.settings.randomness in ("same", "different") else None
        if host is None:
            yield
            return
        seed = random.fold_in(random.fold_in(key, STREAM), 1 if self.settings.randomness == "same" else 2 + number)
        with torch.random.fork_rng():
            torch.manual_seed(host_value(seed)[0])
            yield


def _takes_key(objective: Callable) -> bool:
    try:
        return "key" in inspect.signature(objective).parameters
    except (TypeError, ValueError):
        return False


def shapes_of(perturbations: Perturbations) -> tuple:
    return tuple((leaf.shape, leaf.dtype) for leaf in perturbations.leaves)


def auto_chunk(perturbations: Perturbations, task: Task, popsize: int) -> int:
    """Members whose weights fill the cache; on an accelerator an eighth of its free memory, with as much again for their activations.

    Where weights are not built, what counts is a quarter of the numbers of the noise, or a quarter of the outputs of all layers.
    """
    weights = outputs = 0
    for field in perturbations.fields:
        lazy = bool(perturbations.settings.compile and getattr(field.law, "lazy", False))
        weights += field.leaf.element_size() * (field.law.numbers(field.leaf) // 4 if lazy else field.leaf.numel())
        outputs += field.leaf.element_size() * field.leaf.shape[0] if lazy and field.leaf.dim() > 1 else 0
    batch = [x for x in tree.leaves((task.args[1:], task.kwargs)) if isinstance(x, Tensor) and x.numel()]
    rows = max((x.numel() // (x.shape[-1] if x.dim() > 1 and x.is_floating_point() else 1) for x in batch), default=1)
    size = max(1, weights, rows * outputs // 4)
    device = perturbations.leaves[0].device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(2, min(popsize, free // 8 // size))
    members = max(4, min(128, CACHE // size))
    return 1 << (members.bit_length() - 1)


def _filled(x: Tensor, size: int) -> Tensor:
    return torch.cat([x, x[-1:].expand(size - x.shape[0], *x.shape[1:])])


def _moved(perturbations: Perturbations, task: Task, device: torch.device | None) -> tuple[list[Tensor], list[Tensor], Task]:
    scales = [field.scale for field in perturbations.fields]
    if device is None:
        return perturbations.leaves, scales, task

    def move(x: Any) -> Any:
        return x.to(device) if isinstance(x, Tensor) else x

    args, kwargs = tree.map_plain(move, task.args), tree.map_plain(move, task.kwargs)
    return [move(x) for x in perturbations.leaves], [move(x) for x in scales], Task(args, kwargs)


class _Answers:
    """Those of all pairs and signs [pairs, signs, ...], each chunk's written where it belongs and let go.

    Kept until the end, the small tensors of the chunks would lie scattered among the large ones that every chunk
    allocates and frees: the heap would grow by such a large one with every chunk.
    """

    def __init__(self, pairs: int, signs: int):
        self.pairs, self.signs, self.places, self.parts = pairs, signs, None, []

    def add(self, answer: Any, part: range, signs: range) -> None:
        if versions.transforming() or versions.compiling():
            self.parts.append((signs.start, answer))  # nothing is written inside vmap
            return
        if self.places is None:
            self.places = tree.map_plain(lambda x: x.new_empty(self.pairs, self.signs, *x.shape[2:]), answer)
        tree.map_plain(lambda place, x: place[part.start : part.stop, signs.start : signs.stop].copy_(x), self.places, answer)

    def whole(self) -> Any:
        if self.places is not None:
            return self.places
        columns = [_catenated([answer for at, answer in self.parts if at == sign], dim=0) for sign in dict.fromkeys(at for at, _ in self.parts)]
        return _catenated(columns, dim=1)


def _catenated(parts: list, dim: int) -> Any:
    return parts[0] if len(parts) == 1 else tree.map_plain(lambda *xs: torch.cat(xs, dim=dim), *parts)


class _Plain:
    """Who is inside `_math_attention`: what it switches belongs to all threads, so the first in switches and the last out switches back."""

    lock = threading.Lock()
    inside = 0
    switched = contextlib.ExitStack()


@contextlib.contextmanager
def _math_attention() -> Iterator[None]:
    """The attention that has a batching rule, and no fused encoder layers, which have none, for what is evaluated inside vmap."""
    if not hasattr(torch.nn, "attention") or not hasattr(torch.backends, "mha") or versions.compiling():
        yield
        return
    with _Plain.lock:
        _Plain.inside += 1
        if _Plain.inside == 1:
            _Plain.switched.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
            _Plain.switched.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
    try:
        yield
    finally:
        with _Plain.lock:
            _Plain.inside -= 1
            if _Plain.inside == 0:
                _Plain.switched.close()
