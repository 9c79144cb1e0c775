"""Values on their way to and from JSON: conversion by pydantic, the limits of the log, and refusal of what JSON would lose."""

import dataclasses
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, PlainSerializer, Secret, SecretBytes, SecretStr, ValidationError, WrapSerializer
from pydantic_core import to_jsonable_python

from tidelog.errors import NotJsonError, ValueTooDeepError, ValueTooLargeError
from tidelog.texts import text_of

MAX_JSON_BYTES = 200 * 1024
"""Limit of one result, message body, set of arguments or shared value, as UTF-8 JSON text."""

MAX_JSON_DEPTH = 64
"""Levels of arrays and objects in one such value: `[1]` has one."""

M = TypeVar("M", bound=BaseModel)

_SCALARS = frozenset({str, int, float, bool, type(None)})
_MASK = b'"**********"'
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
"""Made once: `json.dumps` makes one at each call with options."""


def to_json(value: object, what: str, max_bytes: int | None = MAX_JSON_BYTES) -> JsonValue:
    """`value` as plain JSON data: pydantic models, dataclasses, dates, UUIDs, paths and sets are converted.

    `what` names the value in errors, as in "the result of step 'parse'". `max_bytes`: None leaves the size to the server.

    Raises:
        NotJsonError: the value has no JSON form (an open file, NaN or infinity, text that is not valid Unicode, a cycle), or would
            lose a part (two keys of a dict that are the same text, a secret), or has a NUL character.
        ValueTooDeepError: the value is nested more than `MAX_JSON_DEPTH` levels deep.
        ValueTooLargeError: the value is over `max_bytes`.
    """
    try:
        plain: Any = to_jsonable_python(value)
        # UTF-8 is part of the check: text read with errors="surrogateescape" has no place in JSON.
        text = encode(plain)
        lost = "the log holds no NUL character" if _has_nul(text) else _loss(value, text)
    except Exception as error:  # serializers of the user's own models may raise anything
        if isinstance(error, RecursionError) or "depth exceeded" in (reason := text_of(error, 500)):
            raise ValueTooDeepError(what, MAX_JSON_DEPTH) from error
        raise NotJsonError(f"{what} cannot be written as JSON: {reason}") from error
    if lost is not None:
        raise NotJsonError(f"{what} cannot be written as JSON without a loss: {lost}")
    if max_bytes is not None and len(text) > max_bytes:
        raise ValueTooLargeError(what, len(text), max_bytes)
    if text.count(b"[") + text.count(b"{") > MAX_JSON_DEPTH:  # fewer brackets cannot be deeper
        check_depth(plain, what)
    return plain  # type: ignore[no-any-return]  # to_jsonable_python is typed Any; json.dumps just proved the shape


def encode(plain: object) -> bytes:
    """JSON data as text. Raises ValueError, TypeError or RecursionError for other data."""
    return _ENCODER.encode(plain).encode()


def _has_nul(text: bytes) -> bool:
    return b"\\u0000" in text and b"\\u0000" in text.replace(b"\\\\", b"")  # not the text of a backslash and u0000


def _loss(value: object, text: bytes) -> str | None:
    """The part of a value that is not in its JSON text: pydantic writes a secret as asterisks, and NaN in some fields as null."""
    masked = _MASK in text
    scalars = _SCALARS - {float} if b"null" in text else _SCALARS
    waiting = [value]

    def look_at(parts: Iterable[object]) -> None:
        waiting.extend(part for part in parts if type(part) not in scalars)

    while waiting:
        part = waiting.pop()
        if isinstance(part, float):
            if not math.isfinite(part):
                return f"{part} would become null"
        elif isinstance(part, dict):
            if not all(type(key) is str for key in part) and len(to_jsonable_python(dict.fromkeys(part))) < len(part):
                return f"two keys of a dict are the same text, among them {_keys(part)}"
            look_at(part.values())
        elif isinstance(part, list | tuple | set | frozenset | deque):
            look_at(part)
        elif isinstance(part, BaseModel):
            look_at(_fields(part))
        elif dataclasses.is_dataclass(part) and not isinstance(part, type):
            look_at(getattr(part, field.name, None) for field in dataclasses.fields(part))
        elif masked and isinstance(part, SecretStr | SecretBytes | Secret):
            return f"the log holds no secrets, and this {type(part).__name__} would become asterisks"
    return None


def _fields(model: BaseModel) -> Iterator[object]:
    """The values of a model's fields. Left out are fields that the model leaves out, or writes by a serializer of its own."""
    kind = type(model)
    if kind.__pydantic_decorators__.model_serializers:
        return
    own = {name for serializer in kind.__pydantic_decorators__.field_serializers.values() for name in serializer.info.fields}
    for name, item in model.__dict__.items():
        field = kind.model_fields.get(name)
        annotated = field is not None and any(isinstance(mark, PlainSerializer | WrapSerializer) for mark in field.metadata)
        if field is None or not (field.exclude or annotated or name in own or "*" in own):
            yield item
    yield from (model.__pydantic_extra__ or {}).values()


def _keys(part: dict[Any, Any]) -> str:
    first: dict[str, Any] = {}
    for key in part:
        text = next(iter(to_jsonable_python({key: None})))
        if text in first:
            return f"{first[text]!r:.60} and {key!r:.60}"
        first[text] = key
    return "keys that are no text"


def check_depth(plain: object, what: str) -> None:
    """Raises ValueTooDeepError for JSON data that is nested more than `MAX_JSON_DEPTH` levels deep."""
    level = [plain]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [child for part in level for child in _children(part)]
        if not level:
            return
    raise ValueTooDeepError(what, MAX_JSON_DEPTH)


def _children(part: object) -> list[object]:
    """The values in an array or object; an empty array or object is a level, too."""
    inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return list(inside) or ([None] if isinstance(part, dict | list) else [])


def read_model(model: type[M], text: str) -> M:
    """JSON text as a model. pydantic's own parser accepts 200 levels; values that an older server recorded may be deeper.

    Raises ValueError (also pydantic's ValidationError) for text that does not fit the model.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError:
        try:
            return model.model_validate(json.loads(text))
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
