"""`Idempotency-Key`: a repeated request is executed once, and gets the first answer again.

See draft-ietf-httpapi-idempotency-key-header-07. The key's scope is tenant, principal and route; the hash of the body distinguishes
a repeat from another request. The command id that is stored for the key makes a repeat harmless: a repeat is the same command,
which the event store recognises even if the first answer was lost. The keys add that answer, the check of the body, and `409` while
the first request is still running. So an answer that cannot be stored is still sent.
"""

import hashlib
from collections.abc import Awaitable, Callable
from uuid import UUID

from fastapi import Request
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.afterwards import afterwards
from api.http.conventions.errors import StillRunning
from api.http.conventions.request import container_of, header, principal_of
from application.engine.ports.idempotency import KeyInUse, StoredAnswer
from domain.errors import IdempotencyMismatch, InvalidCommand, TidelogError, Unavailable
from domain.kernel import derive_id

KEPT_HEADERS = ("location", "etag", "tidelog-position")


async def once(request: Request, execute: Callable[[UUID | None], Awaitable[Response]]) -> Response:
    """Executes a request, or gives its first answer again.

    `execute`: gets the command id that belongs to the request's key; None: the request has no key.

    Raises:
        InvalidCommand: the key is empty or too long.
        IdempotencyMismatch: the key was used with another body before.
        StillRunning: the first request with the key has no answer yet.
    """
    key = _key(request)
    if key is None:
        return await execute(None)
    principal, container = principal_of(request), container_of(request)
    keys = container.idempotency
    scope = f"{principal.key_id}:{request.method}:{request.url.path}:{key}"
    key_id = derive_id(principal.tenant_id, f"idempotency:{scope}")
    body_sha256 = hashlib.sha256(await request.body()).hexdigest()
    begun = await keys.begin(key_id, tenant_id=principal.tenant_id, body_sha256=body_sha256, command_id=uuid7())
    if isinstance(begun, KeyInUse):
        return _first_answer(begun, body_sha256)
    try:
        response = await execute(begun.command_id)
    except Exception as error:
        # Refused: the key is free again. After any other error the command may have been recorded all the same.
        refused = isinstance(error, TidelogError) and not isinstance(error, Unavailable)
        giving_back = keys.forget(key_id) if refused else keys.release(key_id)
        await afterwards(container, giving_back, what="giving back an idempotency key")
        raise
    kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    answer = StoredAnswer(response.status_code, kept, bytes(response.body))
    await afterwards(container, keys.finish(key_id, answer), what="keeping an answer")
    return response


def _key(request: Request) -> str | None:
    """The key of a request. None if it has none. Raises InvalidCommand: a client that sends a key relies on it."""
    if b"idempotency-key" not in request.scope["state"]["headers"]:
        return None
    key = header(request, b"idempotency-key").strip().strip('"')
    if not key:
        raise InvalidCommand("Idempotency-Key is empty")
    if len(key) > 255:
        raise InvalidCommand("Idempotency-Key is longer than 255 characters")
    return key


def _first_answer(found: KeyInUse, body_sha256: str) -> Response:
    if found.body_sha256 != body_sha256:
        raise IdempotencyMismatch("this Idempotency-Key was used with another body")
    if found.answer is None:
        raise StillRunning("the first request with this Idempotency-Key is still running")
    headers = {**found.answer.headers, "Idempotency-Replayed": "true"}
    return Response(found.answer.body, found.answer.status, headers, "application/json")
