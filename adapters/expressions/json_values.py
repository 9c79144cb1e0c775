"""The results of expressions as JSON. What JSON cannot say is an error, or a text of a form that is written down."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.kernel import Json

MOST_TEXT = 256 * 1024
"""Bytes of a text in a result."""


class NoJson(Exception):
    """The value of an expression is none of JSON."""


def json_of(value: Any) -> Json:
    """Raises NoJson."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise NoJson(f"the result is {value}, which JSON does not have")
            return value
        case list():
            return [json_of(item) for item in value]
        case dict():
            return {_key_of(key): json_of(item) for key, item in value.items()}
        case datetime():
            text = value.astimezone(UTC).isoformat()
            return text.removesuffix("+00:00") + "Z"
        case timedelta():
            return _duration(value)
        case bytes() | bytearray():
            raise NoJson("the result has bytes, which JSON does not have: make a text of them, as `string(b)`")
        case _:
            raise NoJson("the result has a value that is none of JSON")


def _key_of(key: Any) -> str:
    if not isinstance(key, str):
        raise NoJson("a key of a map in the result is no text: make one of it, as `string(k)`")
    return key


def _duration(value: timedelta) -> str:
    """As the JSON form of protobuf has it: seconds, with a fraction where there is one."""
    micros = value // timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}{seconds}{fraction}s"
