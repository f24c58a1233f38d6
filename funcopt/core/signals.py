"""Signals: the state speaks, links to the right listen.

A link that has something to say gives its state a method `signals()`, which names
0-dim fields of the state. `chain` hands the words of each new state to the links on
its right, and everything said in the step before, by anybody, as `signals.last`.

Who hears what is checked once, when the outermost chain is initialised: each chain
enters its links in a ledger, in the order in which they run, and the outermost one
reads the ledger through. The rules are those of the design, section 2:

1. words of this step come from the left, words of the last step from anywhere;
2. a word that must be heard and is said by nobody is an error at `init`; so is one
   that must be listened to and meets no listener. `base_lr` alone may come from the loop;
3. a word is said once per scope; `name=` and the labels of a `partition` open scopes,
   in which words are heard without their prefix;
4. wrappers forward what their inner states say;
5. the members of a pool hear nothing of the outer chain;
6. words are tensors that nobody reads on the host;
7. the loop is the link to the left of the first: `signals={"base_lr": lr}`.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from funcopt.core.door.shown import shown
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.wrap import Kind, joined_hooks, part, wrapped

__all__ = [
    "MULTIPLIERS",
    "Signals",
    "Speaks",
    "hear",
    "hear_last",
    "isolated",
    "ledger",
    "multiplier",
    "need",
    "read_signals",
    "scope",
    "scoped",
]

FROM_THE_LOOP = ("base_lr",)
MULTIPLIERS = ("lr_multiplier", "rate_multiplier")  # words by which whoever sizes the step stretches it; all that are said are multiplied
ASKING = ("base_lr", *MULTIPLIERS)  # words that ask for a step of another size: whoever says one wants it heard


@runtime_checkable
class Speaks(Protocol):
    """A state that has something to say."""

    def signals(self) -> dict[str, Tensor]: ...


class Signals:
    """The words that a link can hear: those said to its left in this step, and, as `last`, all of the step before."""

    def __init__(self, words: Mapping[str, Tensor] | None = None, last: Mapping[str, Tensor] | None = None):
        self.words = _words("words", words)
        self.last = _words("last", last)

    def get(self, word: str, default: Any = None) -> Any:
        """A word, or `default` where nobody says it."""
        return self.words.get(word, default)

    def joined(self, words: Mapping[str, Tensor]) -> "Signals":
        """The same, and these words too."""
        if not words and type(words) is dict:  # most links say nothing
            return self
        return Signals({**self.words, **said}, self.last) if (said := _words("words", words)) else self

    def inside(self, label: str) -> "Signals":
        """What is heard inside a named scope: everything, and the scope's own words without their prefix."""
        return Signals(_unprefixed(self.words, label), _unprefixed(self.last, label))


def _words(name: str, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if type(given) is dict:
        return dict(given)
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"Signals: {name} must be a mapping from words to 0-dim tensors, got {shown(given)}")
    return dict(given or {})


def _unprefixed(words: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    if not isinstance(label, str):
        raise TypeError(f"Signals: label must be a string, got {shown(label)}")
    prefix = label + "/"
    own = {word.removeprefix(prefix): value for word, value in words.items() if word.startswith(prefix)}
    return {**words, **own}


def open_signals(signals: "Signals | Mapping[str, Tensor] | None", state: Any) -> Signals:
    """What the first link of a chain hears. The outermost chain, to which the loop gave a dict or nothing, remembers the last step."""
    if isinstance(signals, Signals):
        return signals
    return Signals(signals, read_signals(state))


def hear(signals: "Signals | Mapping[str, Tensor] | None", word: str, default: Any = None) -> Any:
    """A word of this step, or the default if nobody to the left has said it."""
    return default if signals is None else signals.get(word, default)


def hear_last(signals: "Signals | Mapping[str, Tensor] | None", word: str, default: Any = None) -> Any:
    """A word of the step before, from anybody, or the default."""
    return signals.last.get(word, default) if isinstance(signals, Signals) else default


def multiplier(signals: "Signals | Mapping[str, Tensor] | None") -> Any:
    """The product of all multipliers that are said to the left; 1.0 where none is."""
    product: Any = 1.0
    for factor in [hear(signals, word) for word in MULTIPLIERS]:
        if factor is not None:
            product = product * factor
    return product


def need(signals: "Signals | Mapping[str, Tensor] | None", where: str, word: str, remedy: str) -> Tensor:
    """A word of this step, or an error that says how to come by it."""
    value = hear(signals, word)
    if value is None:
        raise ValueError(f"{where}: needs '{word}' and nobody to its left says it; {remedy}")
    return value


def read_signals(state: Any) -> dict[str, Tensor]:
    """All words that a state says: one line for logging, plots and dashboards.

    Args:
        state: the state of any transformation.

    Returns:
        A dict from words to 0-dim tensors (`[lanes]` for a vmapped state), in the order
        in which the links speak.

    Example:
        >>> tx = fo.sgd(0.1)
        >>> fo.read_signals(tx.init(torch.zeros(2)))
        {'lr': tensor(0.1000, dtype=torch.float64)}
    """
    if hasattr(state, "signals"):
        return dict(state.signals())
    words: dict[str, Tensor] = {}
    if type(state) in (tuple, list):  # a chain
        for part in state:
            words.update(read_signals(part))
    elif type(state) is dict:  # a named chain
        for part in state.values():
            words.update(read_signals(part))
    return words


# --- the ledger -----------------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    who: str
    scope: str  # "" or "decay/"
    hears: dict[str, str]
    must_be_heard: tuple[str, ...]
    says: tuple[str, ...]  # with prefix

    def acts_on(self, word: str) -> bool:
        """Whether this does what a word, given with its prefix, asks for."""
        return any(word == scope + heard for heard in acted_on(self.hears) for scope in _scopes(self.scope))


class Ledger:
    """Who hears and says what, link by link in the order of the chain."""

    def __init__(self):
        self.entries: list[Entry] = []
        self.scope = ""

    def enter(self, link: GradientTransformation, state: Any, since: int) -> None:
        """Enters a link and what its first state says, less what the chains inside it have entered `since` then."""
        inner = self.entries[since:]
        entered = {word for entry in inner for word in entry.says}
        heard = {word for entry in inner for word in entry.hears}
        watched = {entry.scope + word for entry in inner for word in entry.must_be_heard}
        says = tuple(self.scope + word for word in read_signals(state) if self.scope + word not in entered)
        hears = {word: how for word, how in link.hears.items() if word not in heard}
        asked = link.must_be_heard or (() if link.house else tuple(word for word in ASKING if self.scope + word in says))
        must = tuple(word for word in asked if self.scope + word not in watched)
        self.entries.append(Entry(link.name, self.scope, hears, must, says))

    def check(self) -> None:
        self._said_once()
        said: dict[str, str] = {}
        for index, entry in enumerate(self.entries):
            for words, how in entry.hears.items():
                if how in ("needed", "last"):
                    self._check_heard(entry, index, words, how, said)
            for word in entry.must_be_heard:
                if not any(later.acts_on(entry.scope + word) for later in self.entries[index:]):
                    raise ValueError(
                        f"{entry.who}: says '{entry.scope + word}' and nobody to its right hears it; "
                        "put lr_scale() or a ready-made optimizer to its right, or scale_by_signal() after an optimizer that hears nothing"
                    )
            said.update(dict.fromkeys(entry.says, entry.who))

    def _said_once(self) -> None:
        said: dict[str, str] = {}
        for entry in self.entries:
            for word in entry.says:
                if word in said:
                    raise ValueError(
                        f"chain: '{word}' is said twice, by {said[word]} and by {entry.who}, but a word may be said once; "
                        + ("a step is sized once: leave one of them out" if word == "lr" else "give one of them a name=")
                    )
                said[word] = entry.who

    def _check_heard(self, entry: Entry, index: int, words: str, how: str, said: Mapping[str, str]) -> None:
        wanted = words.split("|")
        if how == "needed" and any(word in FROM_THE_LOOP for word in wanted):
            return
        everybody = {word: later.who for later in self.entries for word in later.says}
        reachable = said if how == "needed" else everybody
        names = [scope + word for word in wanted for scope in _scopes(entry.scope)]
        if any(name in reachable for name in names):
            return
        for name in names:
            if name in everybody:
                who = everybody[name]
                raise ValueError(
                    f"{entry.who}: needs '{name}' of this step, which {who} says only further right; put {who} to the left of {entry.who}"
                )
        listing = ", ".join(said) or "nothing"
        asked = "' or '".join(wanted)
        remedy = "Put lr_scale() in the chain or pass lr=" if "lr" in wanted else f"Put a link that says it to the left of {entry.who}"
        raise ValueError(f"{entry.who}: no link says '{asked}'; said so far: {listing}. {remedy}")


def _scopes(scope: str) -> list[str]:
    """The scope itself and all that enclose it: 'a/b/' gives 'a/b/', 'a/' and ''."""
    parts = scope.split("/")[:-1]
    return ["".join(part + "/" for part in parts[:length]) for length in range(len(parts), -1, -1)]


def acted_on(hears: Mapping[str, str]) -> set[str]:
    """The words on which a link that hears so acts, other than those of which it only takes note."""
    return {word for words, how in hears.items() if how != "in passing" for word in words.split("|")}


class _Open(threading.local):
    ledger: Ledger | None = None


_open = _Open()


@contextmanager
def ledger() -> Iterator[tuple[Ledger, bool]]:
    """The ledger of the chain that is being initialised, and whether this is the outermost."""
    if _open.ledger is not None:
        yield _open.ledger, False
        return
    _open.ledger = Ledger()
    try:
        yield _open.ledger, True
    finally:
        _open.ledger = None


@contextmanager
def isolated() -> Iterator[None]:
    """Chains initialised in here belong to no outer chain: the members of a pool."""
    outer, _open.ledger = _open.ledger, None
    try:
        yield
    finally:
        _open.ledger = outer


@contextmanager
def scope(label: str) -> Iterator[None]:
    """Words said in here are entered as 'label/word'."""
    book = _open.ledger
    if book is None:
        yield
        return
    outer = book.scope
    book.scope = f"{outer}{label}/"
    try:
        yield
    finally:
        book.scope = outer


# --- named scopes ---------------------------------------------------------------------------------------------------------------


class ScopedState(NamedTuple):
    """The state of a transformation whose words have a prefix: a dict with one entry, named by the prefix."""

    inner: dict[str, Any]

    def signals(self) -> dict[str, Tensor]:
        return {f"{label}/{word}": value for label, state in self.inner.items() for word, value in read_signals(state).items()}


def scoped(
    name: str,
    tx: GradientTransformation,
    *,
    kind: type[Kind] = GradientTransformation,  # pyright: ignore[reportArgumentType] (a default for a type variable)
) -> Kind:
    """`tx` in a scope of its own: its words are heard outside as "name/word", so that two of a kind can stand side by side.

    Args:
        name: the prefix; not empty, without "/".
        tx: any transformation.
        kind: the class of the result.

    Returns:
        A transformation that does what `tx` does; its state stands under `name`.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        ValueError: `name` is empty or holds a "/".

    Example:
        >>> tx = fo.scoped("slow", fo.sgd(0.1))
        >>> list(fo.read_signals(tx.init(torch.zeros(2))))
        ['slow/lr']
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"scoped: name must be a non-empty string without '/', got {name!r}")

    def init(params: TensorTree) -> ScopedState:
        book = _open.ledger
        with scope(name):
            since = len(book.entries) if book is not None else 0
            inner = tx.init(params)
            if book is not None:  # entered here, where its words are heard without their prefix
                book.enter(tx, inner, since)
        return ScopedState(inner={name: inner})

    def update(updates: TensorTree, state: ScopedState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        heard = signals.inside(name) if isinstance(signals, Signals) else signals
        updates, inner = tx.update(updates, state.inner[name], params, signals=heard, **extra)
        return updates, ScopedState(inner={name: inner})

    at = part(name, inside="inner")
    must_be_heard = tuple(f"{name}/{word}" for word in tx.must_be_heard)
    declared: dict[str, Any] = {"name": f"{name}/{tx.name}", "must_be_heard": must_be_heard, "hooks": joined_hooks([(name, tx, at)])}
    return wrapped(init, update, tx, at, kind=kind, again=lambda inner: scoped(name, inner, kind=kind), **declared)
