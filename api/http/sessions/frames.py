"""What a worker sends: a frame of JSON is read into messages. A message that is not valid refuses itself, a frame the session."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic_core
from pydantic import Field, TypeAdapter, ValidationError

from api.http.conventions.bodies import is_finite
from api.http.conventions.wording import meant, told
from api.http.sessions.limits import MAX_FRAME, MAX_MESSAGES
from application.workers.hosting.messages import MAX_ID, RESERVED, MalformedMessage, NotYet, Saying, UnknownMessage
from domain import values
from domain.errors import InvalidCommand, TidelogError, json_pointer

_Message = Annotated[Saying, Field(discriminator="t")]
_FRAME: TypeAdapter[list[Saying]] = TypeAdapter(list[_Message])
_MESSAGE: TypeAdapter[Saying] = TypeAdapter(_Message)
_NOT_FINITE = "a number is not finite: JSON has no NaN or infinity, and a double ends at 1.8e308"
_TOO_DEEP = f"a value may be nested {values.MAX_DEPTH} levels deep, no deeper"


class InvalidMessage(InvalidCommand):
    """A message whose fields are not valid."""

    code = "invalid-request"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is refused by its id."""

    id: int
    error: TidelogError


def read(text: str) -> "Sequence[Saying | Unreadable]":
    """The messages of a frame. Raises MalformedMessage."""
    data = text.encode()
    try:
        messages = _FRAME.validate_json(data, strict=True)
    except ValidationError:
        return _each(data)
    _must_fit(len(data), len(messages))
    if not is_finite(data) or values.is_deeper(data, values.MAX_DEPTH):
        return _each(data)
    return messages


def _must_fit(size: int, count: int) -> None:
    if count > MAX_MESSAGES:
        raise MalformedMessage(f"a frame has at most {MAX_MESSAGES} messages, not {count:,}")
    if size > MAX_FRAME and count > 1:
        raise MalformedMessage(f"a frame of several messages has at most {MAX_FRAME:,} bytes, not {size:,}")


def _each(data: bytes) -> "list[Saying | Unreadable]":
    """The messages of a frame in which something is wrong. Raises MalformedMessage."""
    try:
        parts = pydantic_core.from_json(data)
    except ValueError as error:
        raise MalformedMessage(f"the frame is not JSON: {error}") from None
    if values.not_finite(parts) is not None:
        raise MalformedMessage(f"the frame is not JSON: {_NOT_FINITE}")
    if not isinstance(parts, list) or not all(isinstance(part, dict) and isinstance(part.get("t"), str) for part in parts):
        raise MalformedMessage("a frame is an array of objects, each with the type of the message in `t`")
    _must_fit(len(data), len(parts))
    found = (_one(part) for part in parts)
    return [message for message in found if message is not None]


def _one(part: dict[str, Any]) -> Saying | Unreadable | None:
    """One message. None: it is of no known type and wants no answer. Raises MalformedMessage for a message without an id."""
    try:
        # Not orjson, which knows no integers of more than 64 bits.
        message = _MESSAGE.validate_json(pydantic_core.to_json(part), strict=True)
        if values.too_deep(message, values.MAX_DEPTH) is None:
            return message
        error: TidelogError = InvalidMessage(_TOO_DEEP)
    except ValidationError as problem:
        if problem.errors(include_url=False)[0]["type"] == "union_tag_invalid":
            return _of_unknown_type(part)
        error = invalid(problem, skip=1)
    return _refused(part, error)


def _of_unknown_type(part: dict[str, Any]) -> Unreadable | None:
    name = part["t"][:100]
    reserved = name in RESERVED
    error = NotYet(f"'{name}' is reserved") if reserved else UnknownMessage(f"the server knows no message '{name}'")
    return Unreadable(part["id"], error) if _has_id(part) else None


def _refused(part: dict[str, Any], error: TidelogError) -> Unreadable:
    if not _has_id(part):
        raise MalformedMessage(f"a message '{part['t'][:100]}' is not valid: {error.message}")
    return Unreadable(part["id"], error)


def _has_id(part: dict[str, Any]) -> bool:
    id = part.get("id")
    return isinstance(id, int) and not isinstance(id, bool) and 1 <= id <= MAX_ID


def invalid(problem: ValidationError, *, skip: int = 0) -> InvalidMessage:
    """The refusal of a message or a definition. `skip`: leading parts of the places that are not of the document."""
    faults = [(json_pointer(item["loc"][skip:]), told(item)) for item in meant(problem.errors(include_url=False))][:50]
    pointer, detail = faults[0]
    return InvalidMessage(f"{pointer}: {detail}" if pointer else detail, faults=faults)
