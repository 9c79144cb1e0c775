"""Bodies of requests: JSON, read straight from its bytes, with a problem for each invalid place."""

from typing import TypeVar

import orjson
import pydantic_core
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from api.http.conventions.errors import InvalidBody
from domain import values


class Body(BaseModel):
    """The base of every request body and of each object in a body. Unknown fields are refused, so that a typo is an error."""

    model_config = ConfigDict(extra="forbid")


M = TypeVar("M", bound=Body)


async def body_of(request: Request, model: type[M]) -> M:
    """The request's body as a model. Its numbers are finite and its values nested at most `values.MAX_DEPTH` levels deep.

    Raises InvalidBody (→ 422 with pointers).
    """
    body = await request.body() or b"{}"
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        if values.is_beyond_parser(error):
            raise _invalid_value(body, (), _TOO_DEEP) from error
        raise InvalidBody(error.errors(include_url=False, include_context=False), body) from error
    if not _is_finite(body):
        place = values.not_finite(pydantic_core.from_json(body))
        if place is not None:
            raise _invalid_value(body, place, "the number is not finite: JSON has no NaN or infinity, and a double ends at 1.8e308")
    if values.is_deeper(body, values.MAX_DEPTH):
        place = values.too_deep(parsed, values.MAX_DEPTH)
        if place is not None:
            raise _invalid_value(body, place, _TOO_DEEP)
    return parsed


_SMALL_BODY = 1_000
_TOO_DEEP = f"a value may be nested {values.MAX_DEPTH} levels deep, no deeper"


def _invalid_value(body: bytes, place: values.Place, message: str) -> InvalidBody:
    return InvalidBody([{"type": "value_error", "loc": place, "msg": message}], body)


def _is_finite(body: bytes) -> bool:
    """False if a number may be infinite or NaN.

    pydantic's parser accepts such numbers and reads 1e400 as infinite; orjson refuses both. orjson reads a small body faster than a
    search for such numbers takes. orjson refuses a few other texts, too.
    """
    if len(body) > _SMALL_BODY and values.is_surely_finite(body):
        return True
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True
