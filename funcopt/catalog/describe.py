"""`python -m funcopt describe NAME`: what a name is, where it stands, its recurrence, settings and words."""

import argparse
import inspect
import re
import textwrap
from typing import Any

from funcopt.catalog.listing import properties
from funcopt.catalog.reading import Public, entries, file_of, instance, lookup, sections

__all__ = ["add_arguments", "description", "main"]

WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a public name: adamw, schedules.cosine_decay_schedule, es.grad, ...")


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ")


def _setting(public: Public, name: str, text: str, depth: int = 3) -> str:
    """What a docstring says of an argument; "as in `other`" is looked up there."""
    match = re.search(r"as (?:in|for) `(\w+)`", text)
    if match and depth:
        try:
            other = lookup(match[1])
        except KeyError:
            return text
        found = entries(sections(other.value).get("Args", "")).get(name)
        if found and found != text:
            return _setting(other, name, found, depth - 1)
    return text


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "(needed)" if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) else ""
    default: Any = parameter.default
    return default.__name__ if callable(default) and hasattr(default, "__name__") else repr(default)


def _settings(public: Public) -> str:
    try:
        parameters = inspect.signature(public.value).parameters
    except ValueError:
        return ""
    told = entries(sections(public.value).get("Args", ""))
    rows = [
        (name, _default(parameter), _setting(public, name, told.get(name, ""))) for name, parameter in parameters.items() if name != "self"
    ]
    if not rows:
        return ""
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    middle = min(middle, 24)
    lines = []
    for name, default, text in rows:
        start = f"{name.ljust(left)}  {default.ljust(middle)}  "
        lines.append(
            textwrap.fill(text, WIDTH - 4, initial_indent=start, subsequent_indent=" " * (left + middle + 4)).rstrip()
            if text
            else start.rstrip()
        )
    return "\n".join(lines)


def _words(public: Public) -> str:
    made = instance(public)
    told = sections(public.value).get("Signals", "")
    if made is None:
        return told
    hears = ", ".join(f"{word.replace('|', ' or ')} ({how})" for word, how in made.transformation.hears.items()) or "nothing"
    needs = f"\nneeds: {', '.join(word.replace('|', ' or ') for word in made.transformation.needs)}" if made.transformation.needs else ""
    must = f"\nmust be heard: {', '.join(made.transformation.must_be_heard)}" if made.transformation.must_be_heard else ""
    return f"hears: {hears}\nsays: {', '.join(made.says) or 'nothing'}{must}{needs}" + (f"\n{told}" if told else "")


def description(name: str) -> str:
    """The whole text for one public name.

    Raises:
        KeyError: there is no such name; offers those that look alike.
    """
    public = lookup(name)
    parts = sections(public.value)
    file, line = file_of(public.value)
    blocks = [f"fo.{public.name}   ({public.family}; {file}:{line})", parts[""]]
    module = inspect.getmodule(public.value)
    head = inspect.getdoc(module) if module is not None and not (module.__file__ or "").endswith("__init__.py") else None
    if head:
        blocks.append("The method, as the head of the file tells it:\n\n" + _indented(head))
    settings = _settings(public)
    if settings:
        blocks.append("Settings:\n" + _indented(settings))
    made = instance(public) if public.makes_transformations else None
    if made is not None and made.transformation.hooks:
        blocks.append("Functions for the loop (fo.control):\n" + _indented(", ".join(made.transformation.hooks)))
    if public.makes_transformations:
        blocks.append("Words:\n" + _indented(_words(public)))
        vmaps, traces, flat = properties(public)
        blocks.append(
            f"Runs:\n    under vmap: {vmaps}; traced whole: {traces}; on one flat vector: {flat or 'as its example does not say'}"
        )
    blocks += [
        f"{title}:\n{_indented(parts[title])}" for title in ("Cannot", "Returns", "After a NaN", "Raises", "Example") if title in parts
    ]
    return "\n\n".join(block for block in blocks if block)


def main(arguments: argparse.Namespace) -> int:
    print(description(arguments.name))
    return 0
