"""Values on their way to and from JSON: conversion by pydantic, and the limits of the log."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from tidelog.errors import NotJsonError, ValueTooDeepError, ValueTooLargeError

MAX_JSON_BYTES = 200 * 1024
"""Limit of one result, message body, set of arguments or shared value, as UTF-8 JSON text."""

MAX_JSON_DEPTH = 64
"""Levels of arrays and objects in one such value: `[1]` has one."""

M = TypeVar("M", bound=BaseModel)


def to_json(value: object, what: str, max_bytes: int | None = MAX_JSON_BYTES) -> JsonValue:
    """`value` as plain JSON data: pydantic models, dataclasses, dates, UUIDs, paths and sets are converted.

    `what` names the value in errors, as in "the result of step 'parse'". `max_bytes`: None leaves the size to the server.

    Raises:
        NotJsonError: the value has no JSON form (an open file, NaN or infinity, text that is not valid Unicode, a cycle).
        ValueTooDeepError: the value is nested more than `MAX_JSON_DEPTH` levels deep.
        ValueTooLargeError: the value is over `max_bytes`.
    """
    try:
        plain: Any = to_jsonable_python(value)
        # UTF-8 is part of the check: text read with errors="surrogateescape" has no place in JSON.
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, RecursionError) or "depth exceeded" in str(error):
            raise ValueTooDeepError(what, MAX_JSON_DEPTH) from error
        raise NotJsonError(f"{what} cannot be written as JSON: {error}") from error
    if max_bytes is not None and len(text) > max_bytes:
        raise ValueTooLargeError(what, len(text), max_bytes)
    if text.count(b"[") + text.count(b"{") > MAX_JSON_DEPTH:  # fewer brackets cannot be deeper
        check_depth(plain, what)
    return plain  # type: ignore[no-any-return]  # to_jsonable_python is typed Any; json.dumps just proved the shape


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
