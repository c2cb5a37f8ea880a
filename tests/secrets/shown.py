"""All that a program, its logs and its error reports may print of an object, as one text to look for a key in."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import trio

from layr8_actors.telemetry import Event

OURSELVES = ("/tests/", "/layr8_actors/testing/", "/_pytest/", "/anyio/", "/contextlib.py")
"""Frames of the test, of the node at the other end and of what runs the test: they know the key, and are not ours."""


def forms(key: str) -> list[str]:
    """The key as it may be written: plain, percent-encoded in either case, in Base64, and as ``repr`` escapes it."""
    quoted = {quote(key, safe=""), quote(key), quote_plus(key)}
    coded = {encode(key.encode()).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return sorted({key, repr(key)[1:-1], *quoted, *(form.lower() for form in quoted), *coded})


def leaks(key: str, *objects: object) -> list[str]:
    """The lines of what these objects show that have the key in them."""
    lines = [line for line in shown(*objects).splitlines() if any(form in line for form in forms(key))]
    return [line[:300] for line in lines]


def shown(*objects: object) -> str:
    """All that these objects show, and what hangs on them: errors, tracebacks, log records, events, fields."""
    seen: set[int] = set()
    keep: list[object] = list(objects)  # so that no id is used twice
    return "\n".join(line for thing in keep for line in _shown(thing, seen, keep))


def live_frames(task: trio.lowlevel.Task) -> Iterator[FrameType]:
    """Every frame of a task and of all tasks below it, but for those of a node."""
    for frame, _line in task.iter_await_frames():
        yield frame
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from live_frames(child)


def _shown(thing: object, seen: set[int], keep: list[object]) -> Iterator[str]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, BaseException):
        yield from _error(thing, seen, keep)
    elif isinstance(thing, logging.LogRecord):
        yield f"log {thing.name}: {thing.getMessage()} {vars(thing)!r}"
        yield from _more([*(thing.args or ()), *(thing.exc_info or ()), vars(thing).get("event")], seen, keep)
    elif isinstance(thing, Event):
        yield f"event {thing.describe()} {thing!r} {thing!s} {thing.fields()!r}"
        yield from _more([value for value in thing.fields().values() if isinstance(value, Exception)], seen, keep)
    elif isinstance(thing, FrameType):
        yield from _frame(thing)
    elif isinstance(thing, TracebackType):
        yield from _traceback(thing)
    else:
        yield from _one_level(f"object {type(thing).__name__}", thing)


def _more(things: Iterable[object], seen: set[int], keep: list[object]) -> Iterator[str]:
    for thing in things:
        keep.append(thing)
        yield from _shown(thing, seen, keep)


def _error(error: BaseException, seen: set[int], keep: list[object]) -> Iterator[str]:
    yield f"error {error!s} {error!r} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', ())!r}"
    yield from _traceback(error.__traceback__)
    related: list[Any] = [error.__cause__, error.__context__, *vars(error).values()]
    if isinstance(error, BaseExceptionGroup):
        related += error.exceptions
    yield from _more([other for other in related if isinstance(other, BaseException)], seen, keep)


def _traceback(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield from _frame(traceback.tb_frame)
        traceback = traceback.tb_next


def _frame(frame: FrameType) -> Iterator[str]:
    code = frame.f_code
    if any(part in code.co_filename for part in OURSELVES):
        return
    for name, value in list(frame.f_locals.items()):
        yield from _one_level(f"local {code.co_filename}:{code.co_name}.{name}", value)


def _one_level(where: str, value: object) -> Iterator[str]:
    yield f"{where} = {_text(value)}"
    for name, attribute in _attributes(value).items():
        yield f"{where}.{name} = {_text(attribute)}"


def _text(value: object) -> str:
    try:
        return f"{value!r} {value!s}"
    except Exception as error:  # a half-made object; what printed of it is all that could be printed
        return f"<{type(error).__name__} in its repr>"


def _attributes(value: object) -> dict[str, object]:
    names = {name for kind in type(value).__mro__ for name in _slots(kind)}
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {**getattr(value, "__dict__", {}), **found}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
