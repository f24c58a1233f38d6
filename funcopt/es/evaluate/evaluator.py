"""The members of a population, evaluated in chunks: by vmap over (pairs, signs), one after the other, or stacked.

    chunk of c pairs: noise [c, ...] and signs (+1, -1) -> fitness [c, 2], the noise read once for both signs

Every chunk has the same shape: the last is filled up with copies of its last pair,
whose results are dropped. Neither the noise nor the order of members depends on the
size of the chunks.
"""

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from funcopt.core import random, tree, versions
from funcopt.es.arguments import numbers_of, placed_among
from funcopt.es.evaluate.answers import Answer, answer_of
from funcopt.es.evaluate.built import Room, Rooms, built
from funcopt.es.evaluate.chunks import Answers, Task, auto_chunk, filled, moved, shapes_of
from funcopt.es.evaluate.compiling import chunk_options
from funcopt.es.evaluate.generators import OwnGenerators, drawn_beside, seed_generators, settled_generators
from funcopt.es.evaluate.processes import Workers
from funcopt.es.evaluate.refusals import Refused, drawn_for_all, keyed, refusal, watched
from funcopt.es.evaluate.switches import math_attention
from funcopt.es.evaluate.unbuilt import Builder, NeedsBuilding
from funcopt.es.noise.lazy_weight import settle
from funcopt.es.noise.population import Perturbations
from funcopt.es.options import Settings
from funcopt.execute.engines.dynamo import by_dynamo

__all__ = ["Evaluation", "Evaluator", "Task", "auto_chunk", "shapes_of"]

STREAM = 2**31  # keys of the objective, beside those of the leaves


class Evaluation(NamedTuple):
    """What the members said, in member order."""

    fitness: Tensor  # [P] or [P, K], raw
    aux: Any  # stacked along a first axis [P], () without has_aux


class Evaluator:
    """Calls the objective for members; remembers how that works (vmap or a loop) and what was compiled."""

    def __init__(self, objective: Callable, argnums: int | tuple[int, ...], settings: Settings):
        self.objective, self.argnums, self.settings = objective, argnums, settings
        self.takes_key = _takes_key(objective)
        self.how = settings.execution.vectorize
        self.builder = Builder()
        self.watching = True  # whether the next member that is evaluated by itself is the first of a call
        self.generators = OwnGenerators(settings.where, "objective")
        self.compiled: dict[Any, Callable] = {}
        self.rooms = Rooms()
        self.workers: Workers | None = None
        self.agreed: dict[Any, int] = {}  # shapes of params -> members in an automatic chunk, where ranks settled on it
        self.standing: Any = None  # among ranks, see agreement.py

    # --- one member ------------------------------------------------------------------------------------------------------------

    def call(self, placed: Any, task: Task, key: Tensor | None, own: Tensor | None = None) -> Answer:
        """The objective at these parameters, its answer checked. `own` is a zero of this member alone: it makes the buffers its own."""
        how, args, kwargs = self.settings.execution, list(task.args), task.kwargs
        if how.buffers != "frozen" and own is not None:
            args[how.buffers_argnum] = tree.map_plain(lambda x: x + own.to(x.dtype), args[how.buffers_argnum])
        args = placed_among(args, self.argnums, placed)
        if self.takes_key and key is not None:
            kwargs = {**kwargs, "key": key}
        return answer_of(self.drawn(lambda: self.builder.call(self.objective, args, kwargs, numbers_of(self.argnums))), self.settings)

    def drawn(self, evaluate: Callable[[], Any]) -> Any:
        """`evaluate()`, with an eye on generators of the caller's own, where neither vmap nor a compiler refuses them."""
        refused = self.settings.execution.compile or (self.how == "vmap" and not self.draws)
        return evaluate() if refused else self.generators(evaluate)

    def keys(self, base: Tensor, pairs: range, signs: range, device: torch.device) -> Tensor | None:
        """The objective's key, where the members are: [2] for all, [pairs, 1, 2] for both of a pair, or [pairs, signs, 2]."""
        if not self.takes_key or self.settings.execution.randomness != "keyed":
            return None
        stream, shared = random.fold_in(base, STREAM), self.settings.execution.common_random_numbers
        if shared is True:
            return random.fold_in(stream, 0).to(device)
        if shared == "pairs":
            return random.split(random.advance(stream, pairs.start), len(pairs)).unsqueeze(1).to(device)
        half = self.settings.estimand.pairs
        own = [random.split(random.advance(stream, sign * half + pairs.start), len(pairs)) for sign in signs]
        return torch.stack(own, dim=1).to(device)

    def center(self, perturbations: Perturbations, task: Task) -> Answer:
        """The unperturbed member."""
        keys = self.keys(perturbations.key, range(1), range(1), tree.device(perturbations.leaves))
        with torch.no_grad(), self.settled_randomness(perturbations.key, 0):  # the draws of every member, if these are the same
            dtypes = [self.settings.execution.dtype if leaf.is_floating_point() else None for leaf in perturbations.leaves]
            # Copies, as members have: an objective may write into its parameters.
            leaves = [leaf.to(dtype or leaf.dtype, copy=True) for leaf, dtype in zip(perturbations.leaves, dtypes, strict=True)]
            return self.call(tree.unflatten(perturbations.params, leaves), task, None if keys is None else keys.reshape(-1, 2)[0])

    # --- all of them -----------------------------------------------------------------------------------------------------------

    def evaluate(self, perturbations: Perturbations, task: Task, stored: list | None, pairs: range | None = None) -> Evaluation:
        """Fitness of the members of `pairs` (None: of all): the seam where ranks divide the work."""
        what, devices, self.watching = self.settings.estimand, self.settings.execution.devices, True
        self.generators.begin()
        pairs = range(what.pairs) if pairs is None else pairs
        if self.how == "processes":
            return self.by_processes(perturbations, task, pairs)
        with torch.no_grad(), self.rooms.one() as room, contextlib.nullcontext() if self.how == "loop" else math_attention():
            self.settle(perturbations, task)
            size, signs = self.chunk(perturbations, task)
            run = {"vmap": self.by_vmap, "loop": self.by_loop, "external": self.stacked}[self.how]
            answers = Answers(len(pairs), what.signs)
            for sign in signs:
                for start in range(pairs.start, pairs.stop, size):
                    number = start // size + sign.start * (-(-what.pairs // size))
                    part = range(start, min(start + size, pairs.stop))
                    device = None if devices is None else torch.device(devices[start // size % len(devices)])
                    noise = (
                        perturbations.draw(part, device)
                        if stored is None
                        else tree.map_plain(lambda x, p=part: x[p.start : p.stop], stored)
                    )
                    with self.settled_randomness(perturbations.key, number):
                        answer = self.builder.attempt(run, perturbations, task, noise, part, sign, size, device, room)
                    if device is not None:
                        answer = tree.map_plain(lambda x: x.to(perturbations.leaves[0].device), answer)
                    answers.add(answer, range(start - pairs.start, part.stop - pairs.start), sign)
                    del answer  # before the next chunk allocates
        members = tree.map_plain(lambda x: x.transpose(0, 1).reshape(-1, *x.shape[2:]), answers.whole())
        return Evaluation(members.fitness, members.aux)

    def by_processes(self, perturbations: Perturbations, task: Task, pairs: range) -> Evaluation:
        if versions.transforming():
            raise ValueError(
                f"{self.settings.where}: vectorize='processes' sends parameters to other processes and cannot do so inside vmap; "
                "use vectorize='loop'"
            )
        if self.workers is None:
            self.workers = Workers(type(self), self.objective, self.argnums, self.settings)
        fitness, aux = self.workers.evaluate(perturbations, task.args, task.kwargs, pairs)
        return Evaluation(*tree.map_plain(lambda x: x.reshape(-1, *x.shape[2:]), (fitness, aux)))

    def chunk(self, perturbations: Perturbations, task: Task) -> tuple[int, list[range]]:
        """Pairs of a chunk, and the signs that are evaluated together."""
        what, both = self.settings.estimand, range(self.settings.estimand.signs)
        size = self.settings.execution.chunk_size
        if size is None or (size == "auto" and self.how in ("external", "loop")):
            members = what.popsize if size is None or self.how == "external" else 16 * what.signs
        elif size == "auto":
            members = self.agreed.get(shapes_of(perturbations)) or auto_chunk(perturbations, task, what.popsize)
        else:
            members = int(size)
        if members < what.signs and self.how != "loop":
            return 1, [range(s, s + 1) for s in both]
        return min(max(1, members // what.signs), what.pairs), [both]

    def by_vmap(self, perturbations, task, noise, part: range, signs: range, size: int, device, room: Room | None = None) -> Answer:
        how = self.settings.execution
        leaves, scales, task = moved(perturbations, task, device)
        keys = self.keys(perturbations.key, part, signs, tree.device(leaves))
        directions = _directions(leaves, signs)
        # With randomness="different" the numbers that vmap draws hang on the axes that it maps over.
        whole = (
            None
            if how.compile or how.randomness == "different"
            else built(perturbations, leaves, scales, noise, directions, room or Room())
        )
        if len(part) < size and whole is None:
            noise = tree.map_plain(lambda x: filled(x, size), noise)
            keys = keys if keys is None or keys.dim() == 1 else filled(keys, size)
        chunk = self.compiled_chunk(perturbations, signs) if how.compile else self.chunk_function(perturbations)
        try:
            with drawn_beside() if how.randomness == "different" else contextlib.nullcontext([]) as beside:
                if whole is not None:
                    return self.by_member(perturbations, whole, len(part), len(signs), keys, task)
                answer = chunk(leaves, scales, noise, directions, keys, task)
        except NeedsBuilding:
            raise
        except Exception as error:
            raise refusal(self.settings, error) from error
        if any(beside):
            raise drawn_for_all(self.settings)
        return answer if len(part) == size else tree.map_plain(lambda x: x[: len(part)], answer)

    def by_member(
        self, perturbations: Perturbations, leaves: list[Tensor], pairs: int, signs: int, keys: Tensor | None, task: Task
    ) -> Answer:
        """Members whose weights are built already, by one vmap over what each has of its own."""
        places = [field.place for field in perturbations.fields]
        own_buffers = self.settings.execution.buffers != "frozen"
        keys = _by_sign(keys, pairs, signs)
        mapped = [leaves[place] for place in places]
        mapped += [keys] if keys is not None and keys.dim() > 1 else []
        mapped += [mapped[0].new_zeros(pairs * signs, dtype=torch.float32)] if own_buffers else []

        def one(*given):
            placed = list(leaves)
            for place, leaf in zip(places, given, strict=False):
                placed[place] = leaf
            key = given[len(places)] if keys is not None and keys.dim() > 1 else keys
            return self.call(tree.unflatten(perturbations.params, placed), task, key, given[-1] if own_buffers else None)

        answer = vmap(one, randomness=self.vmapped)(*mapped)
        return tree.map_plain(lambda x: x.reshape(signs, pairs, *x.shape[1:]).transpose(0, 1), answer)

    def chunk_function(self, perturbations: Perturbations) -> Callable:
        place, randomness = perturbations.place, self.vmapped

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
            self.compiled[name] = by_dynamo(self.chunk_function(perturbations), **chunk_options(self.settings.execution.compile))
        return self.compiled[name]

    def by_loop(self, perturbations, task, noise, part: range, signs: range, size: int, device, room: Room | None = None) -> Answer:
        leaves, scales, task = moved(perturbations, task, device)
        keys = self.keys(perturbations.key, part, signs, tree.device(leaves))
        rows = []
        for j in range(len(part)):
            eps = tree.map_plain(lambda x, j=j: x[j], noise)
            for column, sign in enumerate(signs):
                key = None if keys is None else keys if keys.dim() == 1 else keys[j, min(column, keys.shape[1] - 1)]
                number = sign * self.settings.estimand.pairs + part.start + j
                direction = torch.full((), (1.0, -1.0)[sign], device=leaves[0].device)

                def evaluate(direction, eps=eps, key=key, number=number):
                    self.seed(perturbations.key, number)
                    return self.call(perturbations.place(leaves, scales, eps, direction), task, key, torch.zeros_like(direction))

                one, mirrored = functools.partial(evaluate, direction), functools.partial(evaluate, -direction)
                rows.append(watched(self.settings, one, mirrored, leaves[0].device) if self.watching else one())
                self.watching = False
        stacked = tree.map_plain(lambda *xs: torch.stack(xs), *rows)
        return tree.map_plain(lambda x: x.reshape(len(part), len(signs), *x.shape[1:]), stacked)

    def stacked(self, perturbations, task, noise, part: range, signs: range, size: int, device, room: Room | None = None) -> Answer:
        """The objective gets all members of a chunk at once, those with the first sign first."""
        leaves, scales, task = moved(perturbations, task, device)
        keys = self.keys(perturbations.key, part, signs, tree.device(leaves))
        directions = _directions(leaves, signs)
        by_sign = vmap(
            vmap(lambda eps, sign: tree.map_plain(settle, perturbations.place(leaves, scales, eps, sign)), in_dims=(0, None)),
            in_dims=(None, 0),
        )
        members = len(part) * len(signs)
        population = tree.map_plain(lambda x: x.reshape(members, *x.shape[2:]), by_sign(noise, directions))
        answer = self.call_stacked(population, task, _by_sign(keys, len(part), len(signs)), members)
        return tree.map_plain(lambda x: x.reshape(len(signs), len(part), *x.shape[1:]).transpose(0, 1), answer)

    def call_stacked(self, population: Any, task: Task, keys: Tensor | None, members: int) -> Answer:
        args, kwargs = placed_among(task.args, self.argnums, population), task.kwargs
        if self.takes_key and keys is not None:
            kwargs = {**kwargs, "key": keys}
        device = tree.device(population)
        return answer_of(
            keyed(self.settings, lambda: self.drawn(lambda: self.objective(*args, **kwargs)), device), self.settings, members=members
        )

    # --- how ---------------------------------------------------------------------------------------------------------------------

    def settle(self, perturbations: Perturbations, task: Task) -> None:
        """Decides how members are evaluated, if it is not decided yet."""
        if self.how == "auto":
            with torch.no_grad(), math_attention():
                self.how = self.probe(perturbations, task)

    def probe(self, perturbations: Perturbations, task: Task) -> str:
        """ "vmap" if it gives two members the same fitness as the loop does; else "loop", with one warning. Once for each `es.grad`."""
        settings, what, how = self.settings, self.settings.estimand, self.settings.execution
        if versions.transforming() or versions.compiling():
            return "vmap"  # whoever maps over us maps over the objective
        pairs, signs = range(1 if what.antithetic else min(2, what.pairs)), range(what.signs)
        noise = perturbations.draw(pairs)
        compiled, name = how.compile, None
        try:
            with self.settled_randomness(perturbations.key, 0):
                if compiled:
                    answer = self.builder.attempt(
                        self.chunk_function(perturbations), *self._inputs(perturbations, task, noise, pairs, signs)
                    )
                else:
                    answer = self.builder.attempt(self.by_vmap, perturbations, task, noise, pairs, signs, len(pairs), None)
        except Exception as error:
            error = error if isinstance(error, Refused) else refusal(settings, error)
            if not isinstance(error, Refused):
                raise error from error.__cause__
            name = error.operation
        else:
            if how.randomness in ("same", "different"):
                return "vmap"  # the loop draws other numbers
            looped = self.builder.attempt(self.by_loop, perturbations, task, noise, pairs, signs, len(pairs), None)
            # Reads the fitness of two members, at the first call only.
            dtypes = [leaf.dtype for leaf in perturbations.leaves if leaf.is_floating_point()] if how.dtype is None else [how.dtype]
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
        leaves, scales, task = moved(perturbations, task, None)
        directions = _directions(leaves, signs)
        return leaves, scales, noise, directions, self.keys(perturbations.key, pairs, signs, tree.device(leaves)), task

    def settled_randomness(self, key: Tensor, number: int) -> contextlib.AbstractContextManager:
        """torch's generators seeded from the key, and put back afterwards: nothing global is read or advanced."""
        where, randomness = self.settings.where, self.settings.execution.randomness
        return settled_generators(where, randomness, random.fold_in(key, STREAM), number) if self.draws else contextlib.nullcontext()

    def seed(self, key: Tensor, member: int) -> None:
        """Within `settled_randomness`, for a member that is evaluated by itself."""
        if self.draws:
            seed_generators(self.settings.where, self.settings.execution.randomness, random.fold_in(key, STREAM), member)

    @property
    def vmapped(self) -> str:
        """What vmap is to do with torch's generators."""
        given = self.settings.execution.randomness
        return "error" if given == "keyed" else given

    @property
    def draws(self) -> bool:
        """Whether the objective may draw from torch's generators."""
        return self.settings.execution.randomness in ("same", "different")


def _directions(leaves: list[Tensor], signs: range) -> Tensor:
    """+1 for the first of a pair, -1 for the second."""
    return torch.tensor([1.0, -1.0], device="cpu").to(leaves[0].device, non_blocking=True)[signs.start : signs.stop]


def _by_sign(keys: Tensor | None, pairs: int, signs: int) -> Tensor | None:
    """The objective's keys, where members have their own, in the order of stacked members: those with the first sign first."""
    return keys if keys is None or keys.dim() == 1 else keys.expand(-1, signs, 2).transpose(0, 1).reshape(pairs * signs, 2)


def _takes_key(objective: Callable) -> bool:
    try:
        return "key" in inspect.signature(objective).parameters
    except (TypeError, ValueError):
        return False
