"""Bodies of requests: JSON, read straight from its bytes, with a problem for each invalid place."""

import json
import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import orjson
import pydantic_core
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from api.http.conventions.errors import InvalidBody, UnsupportedBody
from api.http.conventions.request import Principal, header
from application.references import ReferencesRefused, refers
from domain import values


class Body(BaseModel):
    """The base of every request body and of each object in a body. Unknown fields are refused, so that a typo is an error."""

    model_config = ConfigDict(extra="forbid")

    SHORT_FORMS: ClassVar[tuple[bytes, ...]] = ()
    """What people may write some of it shorter with: a body without any of these is as the fields take it."""

    @classmethod
    def in_full(cls, written: dict[str, Any]) -> dict[str, Any]:
        """A body with what was written shorter as the fields take it."""
        return written


M = TypeVar("M", bound=Body)
E = TypeVar("E", bound=Callable[..., Any])
_MOST = "__tidelog_most_bytes__"


def takes_content(most_bytes: int) -> Callable[[E], E]:
    """The body of the endpoint is no JSON but a content of its own, of up to so many bytes, which is read as it arrives."""

    def say(endpoint: E) -> E:
        setattr(endpoint, _MOST, most_bytes)
        return endpoint

    return say


def most_bytes_of(endpoint: Callable[..., Any]) -> int | None:
    """The bytes that the body of an endpoint may have. None: as many as any body of JSON."""
    most: int | None = getattr(endpoint, _MOST, None)
    return most


async def body_of(request: Request, model: type[M]) -> M:
    """The request's body as a model. Its numbers are finite and its values nested at most `values.MAX_DEPTH` levels deep.

    Nothing is converted: a number in quotes is no number, and `true` is not 1. Raises InvalidBody (→ 422 with pointers),
    UnsupportedBody, ReferencesRefused.
    """
    _must_be_json(request)
    body = await request.body() or b"{}"
    given = body
    if any(mark in body for mark in model.SHORT_FORMS) and isinstance(written := _parsed(body), dict):
        in_full = model.in_full(written)
        given = body if in_full is written else orjson.dumps(in_full)
    try:
        parsed = model.model_validate_json(given, strict=True)
    except ValidationError as error:
        if values.is_beyond_parser(error):
            raise _invalid_value(body, (), _TOO_DEEP) from error
        raise InvalidBody(error.errors(include_url=False), body) from error
    small = _parsed(body) if len(body) <= _SMALL_BODY else _NOT_PARSED
    if small is _NOT_PARSED and not is_finite(body):
        place = values.not_finite(pydantic_core.from_json(body))
        if place is not None:
            raise _invalid_value(body, place, "the number is not finite: JSON has no NaN or infinity, and a double ends at 1.8e308")
    if len(body) <= _NAMES_CHECKED and (name := _repeated_name(body, small)) is not None:
        raise _invalid_value(body, (), f"the name {json.dumps(name)} stands twice in one object")
    if values.is_deeper(body, values.MAX_DEPTH):
        place = values.too_deep(parsed, values.MAX_DEPTH)
        if place is not None:
            raise _invalid_value(body, place, _TOO_DEEP)
    principal: Principal | None = request.scope["state"].get("principal")
    if principal is not None and principal.projects is not None and refers(parsed.model_dump(mode="json")):
        raise ReferencesRefused
    return parsed


_JSON = re.compile(r"application/([\w.+-]+\+)?json *(;.*)?", re.IGNORECASE)
_FORM = "application/x-www-form-urlencoded"
"""The type that `curl -d` gives to every body. Such a body is read as JSON, and refused if it is a form."""
_SMALL_BODY = 1_000
_NOT_PARSED = object()
_NAMES_CHECKED = 64 * 1024
"""Bytes. In larger bodies, which hold data made by programs, the search for repeated names would hold up other requests."""
_TOO_DEEP = f"a value may be nested {values.MAX_DEPTH} levels deep, no deeper"


def _invalid_value(body: bytes, place: values.Place, message: str) -> InvalidBody:
    return InvalidBody([{"type": "value_error", "loc": place, "msg": message}], body)


def is_finite(body: bytes) -> bool:
    """False if a number may be infinite or NaN.

    pydantic's parser accepts such numbers and reads 1e400 as infinite; orjson refuses both. orjson reads a small body faster than a
    search for such numbers takes. orjson refuses a few other texts, too.
    """
    if len(body) > _SMALL_BODY and values.is_surely_finite(body):
        return True
    return _parsed(body) is not _NOT_PARSED


def _parsed(body: bytes) -> Any:
    """The value of a body. `_NOT_PARSED` for a body that orjson does not read."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _NOT_PARSED


def _must_be_json(request: Request) -> None:
    """Raises UnsupportedBody if the headers say that the body is something else than plain JSON."""
    kind = header(request, b"content-type")
    if kind and kind != "application/json" and not _JSON.fullmatch(kind) and kind.partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedBody(f"the body must be JSON, `Content-Type: application/json`, not {kind[:100]}")
    coding = header(request, b"content-encoding")
    if coding and coding.strip().lower() != "identity":
        raise UnsupportedBody(f"the body must not be compressed: Content-Encoding is {coding[:100]}")


def _repeated_name(body: bytes, value: Any) -> str | None:
    """A name that stands twice in one object of a valid body. None if there is none. `value`: as of `_parsed`, if it was parsed.

    Parsers keep the last of two values in silence. Writing the parsed body again loses the quotes of a repeated name, so equal
    numbers of quotes, which take a fraction of the time, nearly always settle the question.
    """
    try:
        again = orjson.dumps(orjson.loads(body) if value is _NOT_PARSED else value)
    except (orjson.JSONDecodeError, TypeError):
        pass
    else:
        if again.count(b'"') == body.count(b'"'):
            return None
    found: list[str] = []

    def noted(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            found.append(next(name for i, name in enumerate(names) if name in names[:i]))

    try:
        json.loads(body, object_pairs_hook=noted, parse_int=str)
    except (ValueError, RecursionError):  # deeper, or of other characters, than this parser reads
        return None
    return found[0] if found else None
