"""JSON values: their depth, finite numbers, and reading values that are nested deeper than the parser takes.

Depth is counted in a value of its own (a run's input, a result, an entry of the shared context), not in the document around it: `1`
has depth 0, `[1]` depth 1. Every entrance takes 64 levels. The server puts a few levels around such a value; an event of a writer
that uses no entrance may hold 80. Stored values are not checked again: reading takes 1,000 levels, more than any release recorded.
"""

import math
import re
from collections.abc import Iterator
from typing import TypeVar

import pydantic_core
from pydantic import BaseModel, ValidationError

from domain import deep_json
from domain.kernel import Json

MAX_DEPTH = 64
"""Levels of arrays and objects in a value that comes from outside."""
MAX_STORED_DEPTH = 80
"""Levels of a value in a new event."""

Place = tuple[int | str, ...]
"""Keys and indexes that lead to a part of a document."""

M = TypeVar("M", bound=BaseModel)

_MARKS = bytes.maketrans(b"{}", b"[]")
_NO_MARK = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STRING = re.compile(rb'"[^"]*"')
_DIGITS = bytes.maketrans(b"0123456789E", b"0000000000e")
_NO_NUMBER = bytes(byte for byte in range(256) if byte not in b'0123456789eE-NI,:"')
_LONG = b"0" * 200


def is_deeper(text: bytes, depth: int) -> bool:
    """Whether a well-formed JSON text is nested deeper. Costs next to nothing for a text with few brackets, and little for others.

    Each round removes the innermost pairs of brackets, which are one level.
    """
    if len(text) <= 2 * depth:
        return False
    marks = text.translate(_MARKS, _NO_MARK)
    if len(marks) <= 2 * depth:
        return False
    if b"\\" in text:
        marks = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_MARKS, _NO_MARK)
    brackets = marks.replace(b'""', b"")
    if b'"' in brackets:  # there are brackets in strings
        brackets = _STRING.sub(b"", marks)
    for _ in range(depth):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def is_surely_finite(text: bytes) -> bool:
    """False if a JSON text may hold a number that is infinite or NaN. True if it certainly holds none.

    A number that no double can hold has three digits in its exponent, or more than 200 in a row.
    """
    left = text.translate(_DIGITS, _NO_NUMBER)
    return b"N" not in left and b"I" not in left and b"0e000" not in left and _LONG not in left


def too_deep(model: object, depth: int) -> Place | None:
    """The place of the first JSON value inside a model that is nested deeper; None if none is."""
    return next((place for place, value in _values(model, ()) if _is_deeper(value, depth)), None)


def _values(part: object, place: Place) -> Iterator[tuple[Place, object]]:
    """The JSON values in a model. The model's own lists are tuples, so a list or a dict is a JSON value or a part of one."""
    if isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from _values(getattr(part, name), (*place, name))
    elif isinstance(part, tuple):
        for index, item in enumerate(part):
            yield from _values(item, (*place, index))
    elif isinstance(part, list | dict):
        yield place, part


def _is_deeper(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [child for part in level for child in _children(part)]
        if not level:
            return False
    return True


def _children(part: object) -> "list[object]":
    """Arrays and objects count, so each value in them stands for one level."""
    if isinstance(part, dict):
        return list(part.values()) or [None]
    if isinstance(part, list | tuple):
        return list(part) or [None]
    return []


def not_finite(document: Json) -> Place | None:
    """The place of the first number that is infinite or NaN; None if there is none. Not recursive."""
    waiting: list[tuple[Place, Json]] = [((), document)]
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, dict):
            waiting += [((*place, key), item) for key, item in reversed(part.items())]
        elif isinstance(part, list):
            waiting += [((*place, index), item) for index, item in reversed(list(enumerate(part)))]
        elif isinstance(part, float) and not math.isfinite(part):
            return place
    return None


# --- reading what is stored -------------------------------------------------------------------------------------------


def read(text: bytes | str) -> Json:
    """A stored JSON text as plain data, up to 1,000 levels. Raises ValueError for a text that is not JSON."""
    try:
        return pydantic_core.from_json(text)
    except ValueError as error:
        if "recursion limit" not in str(error):
            raise
    return deep_json.loads(text)


def read_model(model: type[M], text: bytes) -> M:
    """A stored JSON object as a model. Its values may be as deep as `read` takes; the model's own parser takes 200 levels.

    Raises:
        pydantic.ValidationError: it does not fit the model.
        ValueError: it is not JSON.
    """
    try:
        return model.__pydantic_validator__.validate_json(text)  # type: ignore[no-any-return]
    except ValidationError as error:
        if not is_beyond_parser(error):
            raise
    return model.model_validate(deep_json.loads(text))


def is_beyond_parser(error: ValidationError) -> bool:
    """Whether pydantic's own parser gave up because of the depth."""
    [first, *_] = error.errors(include_url=False, include_context=False, include_input=False)
    return first["type"] == "json_invalid" and "recursion limit" in first["msg"]
