"""Fingerprints of calls: kind, name and arguments. A recorded result answers only the call that it is the result of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

MOST_VALUES = 2_000
"""Values within the arguments of a step that are looked at."""
LONGEST_TEXT = 4_000
"""Characters of a text that are looked at as a whole. Of a longer one: its length and its ends."""


class _TooMany(Exception):
    pass


def of_call(tool: str, arguments: Mapping[str, JsonValue]) -> str:
    return _digest("call", tool, arguments)


def of_wait(kind: str, name: str | None, what: JsonValue = None) -> str:
    """Times are left out: how long an agent waits may depend on when it began."""
    return _digest(kind, name, what)


def of_step(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Of an argument that is no plain JSON data its type counts, and not its content, which has no order that holds everywhere."""
    if not args and not kwargs:
        return _digest("step", name, None)
    left = [MOST_VALUES]
    try:
        return _digest("step", name, [[_plain(value, left) for value in args], {n: _plain(v, left) for n, v in kwargs.items()}])
    except (_TooMany, RecursionError):
        return _digest("step", name, "large")


def _plain(value: Any, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise _TooMany
    kind = type(value)
    if value is None or kind in (bool, int, float):
        return value
    if kind is str:
        half = LONGEST_TEXT // 2
        return value if len(value) <= LONGEST_TEXT else [len(value), value[:half], value[-half:]]
    if kind in (list, tuple):
        return [_plain(item, left) for item in value]
    if kind is dict:
        return {name if type(name) is str else repr(type(name)): _plain(item, left) for name, item in value.items()}
    return f"{kind.__module__}.{kind.__qualname__}"


def _digest(kind: str, name: str | None, arguments: Any) -> str:
    text = json.dumps([kind, name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:20]
