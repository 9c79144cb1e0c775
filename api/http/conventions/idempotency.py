"""`Idempotency-Key`: a repeated request has one effect, and gets the first answer again.

See draft-ietf-httpapi-idempotency-key-header-07. The key's scope is tenant, principal and route. The command of a request with a
key has an id that follows from these four, so a repeat is the same command, and the log knows each command that it recorded. The
append itself is the record of the key: with a hash of the body and of for whom the request was, by which another request is
refused, and with the place of its events, from which the first answer is made again. A request that recorded nothing leaves its key
free: a refusal, and the cancellation of a run that is cancelled already, whose answer follows from the run.
"""

import hashlib
import json
from typing import NamedTuple
from uuid import UUID

import orjson
from fastapi import Request

from api.http.conventions.bodies import Body
from api.http.conventions.request import command_request, header, principal_of
from application.engine.commands.request import CommandRequest
from application.runs.start import StartedDifferently
from domain.errors import IdempotencyMismatch, InvalidCommand, RepeatedDifferently
from domain.kernel import derive_id

MAX_KEY = 255
"""Characters."""


class Key(NamedTuple):
    """An idempotency key with the body that came with it."""

    command_id: UUID
    """The id of the request's command. Every request with the key to the same route has it."""
    content: UUID
    """A hash of what the body says, and for whom it is said."""


def key_of(request: Request, body: Body) -> Key | None:
    """The key of a request. None: the request has no key.

    The id follows from the same values in every release: an older process and a newer one know the key of the other.

    Raises:
        InvalidCommand: the key is empty or too long. A client that sends a key relies on it.
    """
    if b"idempotency-key" not in request.scope["state"]["headers"]:
        return None
    return key_named(request, given_key(request), body, request.scope["path"])


def given_key(request: Request) -> str:
    """The text of the header, which the request has. Raises InvalidCommand."""
    key = header(request, b"idempotency-key").strip().strip('"')
    if not key:
        raise InvalidCommand("Idempotency-Key is empty")
    if len(key) > MAX_KEY:
        raise InvalidCommand(f"Idempotency-Key is longer than {MAX_KEY} characters")
    return key


def key_named(request: Request, key: str, body: Body, path: str) -> Key:
    """A key of the request's caller for what a body asks of a path."""
    principal, scope = principal_of(request), request.scope
    name = f"idempotency:{principal.key_id}:{scope['method']}:{path}:{key}"
    return Key(derive_id(principal.tenant_id, name), content_of(body, scope["state"].get("on_behalf_of")))


def content_of(body: Body, on_behalf_of: str | None = None) -> UUID:
    """A hash of what a body says, whatever the order of its fields. A field with its default says the same as a missing one.

    So a field that a later release adds does not change the hash of a body without it, and releases that do not know
    `on_behalf_of` make the same hash of a request for nobody.
    """
    said = body.model_dump(exclude_defaults=True)
    try:
        text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer of more than 64 bits: rare, but legal
        text = json.dumps(said, sort_keys=True, default=str).encode()
    if on_behalf_of is not None:
        text += b"\n" + on_behalf_of.encode()  # no other text has a line end: JSON has none outside of strings, nor in them
    return UUID(bytes=hashlib.blake2b(text, digest_size=16).digest())


def keyed_request(
    request: Request, key: Key | None, *, correlation_id: UUID | None = None, otherwise: UUID | None = None
) -> CommandRequest:
    """The metadata of a request's command. `otherwise`: the id of the command of a request without a key. None: a new id."""
    if key is None:
        return command_request(request, correlation_id=correlation_id, command_id=otherwise)
    return command_request(request, correlation_id=correlation_id, command_id=key.command_id, content=key.content)


class one_content:  # reads as what it does: `with one_content(key):`
    """For the command of a request: if its key was used with another request before, raises IdempotencyMismatch."""

    __slots__ = ("_key",)

    def __init__(self, key: Key | None) -> None:
        self._key = key

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._key is not None and isinstance(error, RepeatedDifferently | StartedDifferently):
            raise IdempotencyMismatch("this Idempotency-Key was used with another body, or on behalf of another") from error
