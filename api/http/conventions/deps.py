"""What every route shares: who asks, the command's metadata, waiting for a read model, and answers."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import orjson
import pydantic_core
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.container import Container
from api.http.conventions.errors import InvalidBody, PreconditionFailed
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest, request_of_entrance
from application.engine.ports.pages import Page, parse_position
from application.engine.reading.as_of import until_caught_up
from application.reads import Positioned
from domain import values
from domain.errors import InvalidCommand, VersionConflict

POSITION = "Tidelog-Position"
_ETAG = re.compile(r'^(?:W/)?"v([0-9]{1,18})"$')


class Body(BaseModel):
    """What every request body is made of, and each object in it: an unknown field is refused, so that a typo is an error."""

    model_config = ConfigDict(extra="forbid")


M = TypeVar("M", bound=Body)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an API key of a tenant."""

    tenant_id: UUID
    key_id: UUID
    actor: str
    """Who did it, in the metadata of events."""


def container_of(request: Request) -> Container:
    container: Container = request.app.state.container
    return container


def principal_of(request: Request) -> Principal:
    principal: Principal = request.scope["state"]["principal"]
    return principal


def header(request: Request, name: bytes) -> str:
    """A header by its name in lower case; empty without it. From the gate's table: the framework looks through the whole list."""
    headers: dict[bytes, bytes] = request.scope["state"]["headers"]
    return headers.get(name, b"").decode("latin-1")


def caller_of(request: Request) -> Caller:
    """Who gives commands. Their values come from a body that `body_of` looked at."""
    principal = principal_of(request)
    return Caller(principal.tenant_id, principal.actor, request.scope["state"].get("traceparent"))


def command_request(request: Request, *, correlation_id: UUID | None = None, command_id: UUID | None = None) -> CommandRequest:
    """The metadata of a command that comes in over HTTP, made of a body that `body_of` looked at.

    With a `command_id`, a repeat of the command comes under the same id.
    """
    principal, traceparent = principal_of(request), request.scope["state"].get("traceparent")
    repeatable, command_id = command_id is not None, command_id or uuid7()
    return request_of_entrance(principal.tenant_id, principal.actor, traceparent, command_id, correlation_id, repeatable)


async def body_of(request: Request, model: type[M]) -> M:
    """The request's body as a model, straight from its bytes; its values are finite and at most `values.MAX_DEPTH` deep.

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
    """False where a number may be infinite or NaN. pydantic's parser takes those, and 1e400 for infinite; orjson refuses them.

    orjson reads a small body in less time than a search for such numbers takes. It refuses a few other texts, too.
    """
    if len(body) > _SMALL_BODY and values.is_surely_finite(body):
        return True
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def expected_version(request: Request) -> int | None:
    """The version that `If-Match` asks for. Raises InvalidCommand for another form than `"v<version>"`."""
    value = request.headers.get("if-match")
    if value is None or value == "*":
        return None
    match = _ETAG.match(value)
    if match is None:
        raise InvalidCommand('If-Match must be of the form "v<version>"')
    return int(match[1])


@asynccontextmanager
async def precondition(version: int | None) -> AsyncIterator[None]:
    """Turns a conflict with the version that the caller gave (None: none), in `If-Match` or in the body, into 412."""
    try:
        yield
    except VersionConflict as conflict:
        if version is None:
            raise
        raise PreconditionFailed(conflict.expected, conflict.current) from conflict


def answer(value: Any, status: int = 200, *, position: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; models are dumped by pydantic."""
    content = value.__pydantic_serializer__.to_json(value) if isinstance(value, BaseModel) else _json(value)
    extra = dict(headers or {})
    if position is not None:
        extra[POSITION] = str(position)
    return Response(content, status, extra, "application/json")


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits: rare, and legal
        return pydantic_core.to_json(value)


def accepted(
    outcome: CommandOutcome, stream_id: UUID, body: dict[str, Any], *, status: int = 202, location: str | None = None
) -> Response:
    """The answer to a command: its position and the version of its stream."""
    version = outcome.versions[stream_id]
    headers = {"ETag": f'"v{version}"', **replayed(outcome)}
    if location is not None:
        headers["Location"] = location
    return answer({**body, "position": outcome.position, "version": version}, status, position=outcome.position, headers=headers)


def replayed(*outcomes: CommandOutcome) -> dict[str, str]:
    """The header that says: all of this was recorded before, and this is the first answer again."""
    return {"Idempotency-Replayed": "true"} if all(outcome.duplicate for outcome in outcomes) else {}


async def caught_up(request: Request, read_model: str) -> None:
    """Waits until a read model has the position of the request's `Tidelog-Position`, if there is one.

    Raises ProjectionBehind, PositionBeyondHead.
    """
    wanted = request.headers.get(POSITION)
    if wanted is None:
        return
    awaited = parse_position(wanted)
    if awaited is None:
        raise InvalidCommand(f"{POSITION} must be a position: a whole number")
    container = container_of(request)
    timeout_s = container.settings.read_timeout_s
    await until_caught_up(container.histories, container.positions, read_model, awaited, timeout_s)


def page_answer(request: Request, model: type[BaseModel], found: Positioned[Page[Any]]) -> Response:
    """A page of a read model in the envelope of its list: `data` and `next_cursor`."""
    body = model(data=found.value.data, next_cursor=found.value.next_cursor)
    return answer(body, position=found.position, headers=next_link(request, found.value.next_cursor))


def next_link(request: Request, next_cursor: str | None) -> dict[str, str]:
    """The `Link` header (RFC 8288) to the next page."""
    if next_cursor is None:
        return {}
    return {"Link": f'<{request.url.include_query_params(cursor=next_cursor)}>; rel="next"'}
