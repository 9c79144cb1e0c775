"""What a worker sends: a frame of JSON is read into messages. A message that is not valid refuses itself, a frame the session."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic_core
from pydantic import Field, TypeAdapter, ValidationError

from api.http.conventions.bodies import is_finite
from api.http.sessions.limits import MAX_FRAME, MAX_MESSAGES
from application.wording import meant, told
from application.workers.hosting.messages import (
    MAX_ID,
    RESERVED,
    Definitions,
    MalformedMessage,
    NotYet,
    Saying,
    UnknownMessage,
)
from domain import values
from domain.errors import InvalidCommand, TidelogError, json_pointer
from domain.kernel import Json

_Message = Annotated[Saying, Field(discriminator="t")]
_FRAME: TypeAdapter[list[Saying]] = TypeAdapter(list[_Message])
_MESSAGE: TypeAdapter[Saying] = TypeAdapter(_Message)
_NOT_FINITE = "a number is not finite: JSON has no NaN or infinity, and a double ends at 1.8e308"
_TOO_DEEP = f"a value may be nested {values.MAX_DEPTH} levels deep, no deeper"
_NO_TEXT = "a text holds half a surrogate pair, which is not a character"
_MOST_DIGITS = 4_300
"""Of an integer that Python reads."""
_DEFINITIONS = ("agents", "tools", "problems")


class InvalidMessage(InvalidCommand):
    """A message whose fields are not valid."""

    code = "invalid-request"


@dataclass(frozen=True, slots=True)
class BadDefinition:
    """Stands in `hello` and `define` for a definition that holds what no value of the protocol may hold."""

    given: Json
    error: TidelogError


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
        return _each(text)
    _must_fit(len(data), len(messages))
    if not is_finite(data) or values.is_deeper(data, values.MAX_DEPTH):
        return _each(text)
    return messages


def _must_fit(size: int, count: int) -> None:
    if count > MAX_MESSAGES:
        raise MalformedMessage(f"a frame has at most {MAX_MESSAGES} messages, not {count:,}")
    if size > MAX_FRAME and count > 1:
        raise MalformedMessage(f"a frame of several messages has at most {MAX_FRAME:,} bytes, not {size:,}")


def _each(text: str) -> "list[Saying | Unreadable]":
    """The messages of a frame in which something is wrong. Raises MalformedMessage."""
    try:
        # Not the parser of the messages, which stops at the first such thing: it is the fault of one message or definition.
        parts = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"the frame is not JSON: {error}") from None
    if not isinstance(parts, list) or not all(isinstance(part, dict) and isinstance(part.get("t"), str) for part in parts):
        raise MalformedMessage("a frame is an array of objects, each with the type of the message in `t`")
    _must_fit(len(text.encode()), len(parts))
    found = (_one(part) for part in parts)
    return [message for message in found if message is not None]


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _one(part: dict[str, Any]) -> Saying | Unreadable | None:
    """One message. None: it is of no known type and wants no answer. Raises MalformedMessage for a message without an id."""
    bad = _set_aside(part) if part["t"] in ("hello", "define") else {}
    if values.not_finite(part) is not None:
        raise MalformedMessage(f"the frame is not JSON: {_NOT_FINITE}")
    try:
        # Not orjson, which knows no integers of more than 64 bits.
        message = _MESSAGE.validate_json(pydantic_core.to_json(part), strict=True)
        if isinstance(message, Definitions):
            return message.model_copy(update={name: _put_back(getattr(message, name), found) for name, found in bad.items()})
        if values.too_deep(message, values.MAX_DEPTH) is None:
            return message
        error: TidelogError = InvalidMessage(_TOO_DEEP)
    except ValidationError as problem:
        if problem.errors(include_url=False)[0]["type"] == "union_tag_invalid":
            return _of_unknown_type(part)
        error = InvalidMessage(_TOO_DEEP) if values.is_beyond_parser(problem) else invalid(problem, skip=1)
    except pydantic_core.PydanticSerializationError as problem:
        error = _not_written(problem)
    return _refused(part, error)


def _set_aside(part: dict[str, Any]) -> dict[str, dict[int, BadDefinition]]:
    """Takes the definitions that are no values of the protocol out of a message. By field and place: these definitions."""
    found: dict[str, dict[int, BadDefinition]] = {}
    for name in _DEFINITIONS:
        items = part.get(name)
        if isinstance(items, list):
            bad = {place: BadDefinition(item, error) for place, item in enumerate(items) if (error := _fault_of(item))}
            if bad:
                found[name] = bad
                part[name] = [None if place in bad else item for place, item in enumerate(items)]
    return found


def _put_back(items: Sequence[Json], bad: dict[int, BadDefinition]) -> tuple[Json, ...]:
    return tuple(bad.get(place, item) for place, item in enumerate(items))


def _fault_of(definition: Json) -> TidelogError | None:
    """Why a definition is no value of the protocol. A field of it may have `MAX_DEPTH` levels: the definition is one more."""
    if values.not_finite(definition) is not None:
        return InvalidMessage(_NOT_FINITE)
    try:
        text = pydantic_core.to_json(definition)
    except pydantic_core.PydanticSerializationError as problem:
        return _not_written(problem)
    return InvalidMessage(_TOO_DEEP) if values.is_deeper(text, values.MAX_DEPTH + 1) else None


def _not_written(problem: pydantic_core.PydanticSerializationError) -> InvalidMessage:
    return InvalidMessage(_TOO_DEEP if "depth" in str(problem) else _NO_TEXT)


def _of_unknown_type(part: dict[str, Any]) -> Unreadable | None:
    name = shown(part["t"])
    reserved = name in RESERVED
    error = NotYet(f"'{name}' is reserved") if reserved else UnknownMessage(f"the server knows no message '{name}'")
    return Unreadable(part["id"], error) if _has_id(part) else None


def _refused(part: dict[str, Any], error: TidelogError) -> Unreadable:
    if not _has_id(part):
        raise MalformedMessage(f"a message '{shown(part['t'])}' is not valid: {error.message}")
    return Unreadable(part["id"], error)


def shown(text: str, most: int = 100) -> str:
    """A text of a peer as it can be written in an answer."""
    return text[:most].encode(errors="replace").decode()


def _has_id(part: dict[str, Any]) -> bool:
    id = part.get("id")
    return isinstance(id, int) and not isinstance(id, bool) and 1 <= id <= MAX_ID


def invalid(problem: ValidationError, *, skip: int = 0) -> InvalidMessage:
    """The refusal of a message or a definition. `skip`: leading parts of the places that are not of the document."""
    faults = [(json_pointer(item["loc"][skip:]), told(item)) for item in meant(problem.errors(include_url=False))][:50]
    pointer, detail = faults[0]
    return InvalidMessage(f"{pointer}: {detail}" if pointer else detail, faults=faults)
