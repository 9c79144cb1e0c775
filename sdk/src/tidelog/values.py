"""Values on their way to and from JSON: conversion by pydantic, and the size limit of the log."""

import json
from typing import Any

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_jsonable_python

from tidelog.errors import NotJsonError, ValueTooLargeError

MAX_JSON_BYTES = 200 * 1024
"""Limit of one result, message body, set of arguments or shared value, as UTF-8 JSON text."""


def to_json(value: object, what: str) -> JsonValue:
    """`value` as plain JSON data: pydantic models, dataclasses, dates, UUIDs, paths and sets are converted.

    `what` names the value in errors, as in "the result of step 'parse'".

    Raises:
        NotJsonError: it has no JSON form (an open file, NaN, text that is not valid Unicode, a cycle).
        ValueTooLargeError: it is over `MAX_JSON_BYTES`.
    """
    try:
        plain: Any = to_jsonable_python(value)
        # UTF-8 is part of the check: text read with errors="surrogateescape" has no place in JSON.
        size = len(json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise NotJsonError(f"{what} cannot be written as JSON: {error}") from error
    if size > MAX_JSON_BYTES:
        raise ValueTooLargeError(what, size, MAX_JSON_BYTES)
    return plain  # type: ignore[no-any-return]  # to_jsonable_python is typed Any; json.dumps just proved the shape
