"""Texts with placeholders: `{{name}}`, and `{{user.name}}` for a value inside.

Nothing is evaluated, and what is put in is not looked at again. The work is bounded by the text and the values.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pydantic import JsonValue

from tidelog.errors import PermanentError

MAX_TEXT, MAX_PLACEHOLDERS, MAX_FILLED = 64 * 1024, 500, 200 * 1024
_PLACEHOLDER = re.compile(r"\{\{\s{0,8}([A-Za-z0-9_-]{1,100}(?:\.[A-Za-z0-9_-]{1,100}){0,8})\s{0,8}\}\}")
MISSING = object()


class PlaceholderError(PermanentError):
    """A text with placeholders that cannot be filled, or a value that does not fit its place. The message shows no value."""


def names_in(value: JsonValue) -> Iterator[str]:
    """The placeholders of a text, or of all texts of a value."""
    for text in texts_in(value):
        yield from _PLACEHOLDER.findall(text)


def texts_in(value: JsonValue) -> list[str]:
    """All texts of a value. Names of fields are none of them."""
    if isinstance(value, str):
        return [value]
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for each in inside for text in texts_in(each)]


def check(text: str, what: str) -> None:
    """Raises ValueError for braces that are no placeholder, and for a text over the bounds."""
    if len(text) > MAX_TEXT or len(_PLACEHOLDER.findall(text)) > MAX_PLACEHOLDERS:
        raise ValueError(f"{what} is over {MAX_TEXT:,} characters or {MAX_PLACEHOLDERS} placeholders")
    if "{{" in _PLACEHOLDER.sub("", text):
        raise ValueError(f"{what} has {{{{ without a name behind: a placeholder is {{{{name}}}} or {{{{name.inner}}}}")


def fill(text: str, values: Mapping[str, Any]) -> str:
    """The text with each placeholder replaced by its value; values that are no text as JSON. Raises PlaceholderError."""
    return _filled(text, values, as_text)


def fill_url(text: str, values: Mapping[str, Any]) -> str:
    """The same in a path or a query of a URL: a value is one part of it, whatever it holds."""
    return _filled(text, values, _as_part)


def fill_body(body: JsonValue, values: Mapping[str, Any]) -> JsonValue:
    """The body with its placeholders filled. A text that is one placeholder becomes the value itself; a field of an object goes
    away with the argument that was not given."""
    found = _fill_value(body, values)
    return None if found is MISSING else found


def lookup(name: str, values: Mapping[str, Any]) -> Any:
    """`MISSING` if it is not there."""
    found: Any = values
    for part in name.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and len(part) < 10 and int(part) < len(found):
            found = found[int(part)]
        else:
            return MISSING
    return found


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_one(text: str) -> str | None:
    """The name, if the text is one placeholder and nothing else."""
    whole = _PLACEHOLDER.fullmatch(text)
    return None if whole is None else str(whole[1])


def _filled(text: str, values: Mapping[str, Any], write: Any) -> str:
    size = len(text)

    def put(found: re.Match[str]) -> str:
        nonlocal size
        value = lookup(found[1], values)
        if value is MISSING:
            raise PlaceholderError(f"there is no value for the placeholder {found[1]!r}")
        written = str(write(value))
        size += len(written)
        if size > MAX_FILLED:
            raise PlaceholderError(f"the text with its values is over {MAX_FILLED:,} characters")
        return written

    return _PLACEHOLDER.sub(put, text)


def _as_part(value: Any) -> str:
    text = as_text(value)
    if text in (".", "..") or not text:
        raise PlaceholderError("a value of a URL is empty, or is a step to the folder above")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise PlaceholderError("a value of a URL is no valid text") from None


def _fill_value(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        name = is_one(value)
        return fill(value, values) if name is None else lookup(name, values)
    if isinstance(value, dict):
        filled = {key: _fill_value(each, values) for key, each in value.items()}
        return {key: each for key, each in filled.items() if each is not MISSING}
    if isinstance(value, list):
        return [each for each in (_fill_value(each, values) for each in value) if each is not MISSING]
    return value
