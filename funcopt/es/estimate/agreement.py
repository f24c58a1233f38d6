"""What ranks must have in common for one estimate: everything that decides the result, as 64 bits each, and a sentence where it differs.

Settings are compared by their values, tensors by their bits, functions by their code,
defaults and what they close over, modules by their parameters, buffers and settings. Of
objects the class counts, and what they hold of numbers, tensors and functions (but what is
named after a rank); of those of torch, Python and environments (a mesh, a file, a logger) the class alone.
Of a dict that a function closes over the same counts, of a list its tensors and functions: ranks may
well keep books of their own.
"""

import contextlib
import dataclasses
import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcopt.core.ranks import Team, fingerprint
from funcopt.es.arguments import numbers_of
from funcopt.es.evaluate.evaluator import Evaluator, Task
from funcopt.es.noise.population import Perturbations

__all__ = ["Standing", "Words", "differences", "total_of", "words_of"]

# Settings that may differ: where memory is kept and who works, which changes no bit; and what is compared as part of the fields.
FREE = ("process_group", "memory", "memory_budget", "workers", "devices", "sigma", "noise", "mask")
SMALL = 4096  # bytes of a tensor on the CPU that are hashed by Python
FACTOR = 0x5851F42D4C957F2D
Words = dict[str, tuple[Tensor, str]]  # by name: 64 bits, 0-dim, and how the value reads
NUMBERS = (bool, int, float, complex, np.generic, torch.dtype)
OTHERS = (*sys.stdlib_module_names - {"types"}, "torch", "numpy", "gymnasium", "gym")  # whose objects count by their class
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.Size, slice, range, type(...))


@dataclasses.dataclass
class Standing:
    """What is kept from call to call of an objective that ranks share."""

    who: str  # speaks: "es.grad", "es.run of es.snes"
    beside: dict[str, Any] = dataclasses.field(default_factory=dict)  # what decides besides the settings of the estimate
    calls: int = 0
    said: Words = dataclasses.field(default_factory=dict)  # of what never changes
    # tensors of which the bits are known: id -> (reference, version, 64 bits)
    known: dict[int, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


class Digest:
    """Gathers values, and makes 64 bits of them."""

    def __init__(self, device: torch.device, known: dict[int, tuple[Any, ...]]):
        self.device, self.known = device, known
        self.plain, self.tensors, self.seen = hashlib.blake2b(digest_size=7), [], set()

    def word(self) -> Tensor:
        total = torch.full((), int.from_bytes(self.plain.digest(), "little"), dtype=torch.int64, device=self.device)
        for part in self.tensors:
            total = total * FACTOR + part.to(self.device)
        return total

    def say(self, *words: Any) -> None:
        self.plain.update(repr(words).encode())

    def add(self, x: Any, books: bool = True) -> None:
        """A value. `books`: lists and dicts count as they are, and not only by the tensors and functions that they hold."""
        if isinstance(x, Tensor):
            self.tensor(x)
        elif isinstance(x, PLAIN):
            self.say(type(x).__name__, x)
        elif isinstance(x, np.ndarray) and x.dtype != object:
            self.say(x.dtype.str, x.shape)
            self.plain.update(np.ascontiguousarray(x).tobytes())
        elif isinstance(x, np.generic):
            self.say(x.dtype.str, x.tobytes())
        elif id(x) not in self.seen:
            self.seen.add(id(x))
            self.say(type(x).__module__, type(x).__qualname__)
            self.made(x, books)

    def made(self, x: Any, books: bool) -> None:
        """What is made of other values."""
        if isinstance(x, tuple):
            self.all_of(x, books)
        elif isinstance(x, list):
            self.all_of(x if books else [part for part in x if _counts(part)], books)
        elif isinstance(x, dict):
            entries = sorted(x.items(), key=lambda entry: repr(entry[0]))
            self.all_of([part for entry in entries if books or _decides(*entry) for part in entry], books)
        elif isinstance(x, (set, frozenset)):
            self.say(*sorted(map(repr, x)) if books else ())
        elif isinstance(x, functools.partial):
            self.all_of((x.func, x.args, x.keywords))
        elif isinstance(x, types.MethodType):
            self.all_of((x.__func__, x.__self__))
        elif isinstance(x, types.FunctionType):
            self.code(x.__code__)
            self.all_of((x.__defaults__, x.__kwdefaults__))
            for cell in x.__closure__ or ():
                with contextlib.suppress(ValueError):  # one that is not filled yet
                    self.add(cell.cell_contents, books=(x.__module__ or "").startswith("funcopt."))  # ours keep none
        elif isinstance(x, (type, types.BuiltinFunctionType)):
            self.say(x.__module__, x.__qualname__)
        elif isinstance(x, torch.nn.Module):
            self.say(*(type(part).__qualname__ + str(part.training) + part.extra_repr() for part in x.modules()))
            self.all_of([*x.named_parameters(), *x.named_buffers(), *(entry for part in x.modules() for entry in _held(part))])
        elif hasattr(x, "decides"):
            self.add(x.decides())
        elif dataclasses.is_dataclass(x):
            self.all_of([getattr(x, field.name) for field in dataclasses.fields(x)])
        elif type(x).__module__.split(".")[0] not in OTHERS:
            self.all_of(_held(x), books=False)

    def all_of(self, parts: Iterable[Any], books: bool = True) -> None:
        for part in parts:
            self.add(part, books)

    def code(self, code: types.CodeType) -> None:
        self.say(code.co_code, code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant)
            else:
                self.add(constant)

    def tensor(self, x: Tensor) -> None:
        self.say(str(x.dtype), tuple(x.shape))
        if x.layout != torch.strided or x.is_quantized or hasattr(x, "full_tensor") or x.device.type == "meta":
            return
        if x.device.type == "cpu" and x.numel() * x.element_size() <= SMALL:
            values = torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()
            self.plain.update(values.resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            self.tensors.append(self.kept(x))

    def kept(self, x: Tensor) -> Tensor:
        """The bits of a tensor; of one that comes again unchanged, such as the data, they are known."""
        if x.is_inference():  # nobody counts its changes
            return fingerprint(x)
        reference, version, word = self.known.get(id(x), (None, None, None))
        if reference is None or reference() is not x or version != x._version:
            word = fingerprint(x)
            number, known = id(x), self.known
            known[number] = (weakref.ref(x, lambda _: known.pop(number, None)), x._version, word)
        assert word is not None
        return word


def words_of(evaluator: Evaluator, perturbations: Perturbations, task: Task) -> Words:
    """What decides the result of an estimate, by name."""
    settings, device, standing = perturbations.settings, perturbations.leaves[0].device, evaluator.standing

    def word(value: Any) -> Tensor:
        digest = Digest(device, standing.known)
        digest.add(value)
        return digest.word()

    if not standing.said:
        parts = (settings.estimand, settings.execution)
        options = {field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part) if field.name not in FREE}
        fixed = {"function": standing.who, "objective": evaluator.objective, "argnums": evaluator.argnums, **options, **standing.beside}
        standing.said = {name: (word(value), _reads(value)) for name, value in fixed.items()}
    shapes = [(str(leaf.dtype).removeprefix("torch."), tuple(leaf.shape)) for leaf in perturbations.leaves]
    laws = list({id(field.law): field.law for field in perturbations.fields}.values())
    places = {id(law): number for number, law in enumerate(laws)}
    fields = [(field.place, places[id(field.law)], field.sigma, field.mask) for field in perturbations.fields]
    perturbed = {number % len(task.args) for number in numbers_of(evaluator.argnums)}
    return {
        **standing.said,
        "shapes of params": (
            word((repr(perturbations.form[0]), shapes)),
            ", ".join(f"{dtype} {list(shape)}" for dtype, shape in shapes[:4]),
        ),
        "noise, sigma or mask": (
            word((laws, fields)),
            f"{laws[0]}"[:60] + (f", sigma {settings.estimand.sigma}" if isinstance(settings.estimand.sigma, (int, float)) else ""),
        ),
        "params": (word(perturbations.leaves), ""),
        "key": (word(perturbations.key), ""),
        "arguments of the objective": (word([[x for n, x in enumerate(task.args) if n not in perturbed], task.kwargs]), ""),
    }


def total_of(words: Words) -> Tensor:
    """64 bits of all of them."""
    return functools.reduce(lambda total, word: total * FACTOR + word, [word for word, _ in words.values()])


def differences(team: Team, words: Words) -> str:
    """A sentence on what differs between ranks, all of which call this."""
    everything = team.gather_object({name: (int(word), text) for name, (word, text) in words.items()})
    names = [
        name
        for name in dict.fromkeys(name for said in everything for name in said)
        if len({said.get(name, (0, ""))[0] for said in everything}) > 1
    ]
    if names and set(names) <= {"params", "key"}:
        return "the ranks hold different parameters or keys; broadcast them from one rank, and give all the same key at every step"
    if "function" in names or "shapes of params" in names:  # the rest follows
        names = [name for name in ("function", "shapes of params") if name in names][:1]
    told = []
    for name in names[:3]:
        texts = [said.get(name, (0, "nothing"))[1] for said in everything]
        other = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
        told.append(name if other is None else f"{name} ({texts[0]} on rank 0, {texts[other]} on rank {other})")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    remedy = "give every rank the same settings, functions and data"
    return f"all ranks must make the same call, but they differ in {', '.join(told)}{more}; {remedy}"


def _held(x: Any) -> list[tuple[str, Any]]:
    """The attributes of an object that decide what it does, by name."""
    names = {*getattr(x, "__dict__", ()), *(name for cls in type(x).__mro__ for name in _slots(cls) if hasattr(x, name))}
    return [(name, value) for name in sorted(names) if _decides(name, value := getattr(x, name))]


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _decides(name: Any, x: Any) -> bool:
    return (isinstance(x, NUMBERS) or _counts(x) or isinstance(x, types.SimpleNamespace)) and not (
        isinstance(name, str) and "rank" in name.lower()
    )


def _counts(x: Any) -> bool:
    return isinstance(x, (Tensor, np.ndarray)) or callable(x) or (isinstance(x, tuple) and any(map(_counts, x)))


def _reads(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__qualname__", None) or repr(value)[:60]
