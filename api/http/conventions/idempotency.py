"""`Idempotency-Key`: the same request is executed once, and answered the same way again.

After draft-ietf-httpapi-idempotency-key-header-07. The key's scope is tenant, principal and route; the body's hash tells a repeat
from another request. What makes a repeat harmless is the command id that the table keeps for the key: a repeat is the same
command, recognised by the event store even where the first answer was lost. The table adds that answer, the check of the body, and
`409` while the first request is still running. So an answer that cannot be kept in the table is given all the same.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog
from fastapi import Request
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.afterwards import afterwards
from api.http.conventions.deps import container_of, header, principal_of
from domain.errors import IdempotencyMismatch, InvalidCommand, TidelogError, Unavailable
from domain.kernel import derive_id
from projections.engine.kernel import Database

log = structlog.get_logger(__name__)

BEGIN = """
INSERT INTO idempotency_key (key_id, tenant_id, body_sha256, token) VALUES (%(id)s, %(tenant)s, %(body)s, %(token)s)
ON CONFLICT (key_id) DO UPDATE SET
    token = CASE WHEN idempotency_key.begun_at < now() - interval '24 hours' THEN EXCLUDED.token ELSE idempotency_key.token END,
    begun_at = now(), released = false, body_sha256 = EXCLUDED.body_sha256, status = NULL, answer = NULL
WHERE idempotency_key.begun_at < now() - interval '24 hours'
   OR (idempotency_key.status IS NULL AND idempotency_key.body_sha256 = EXCLUDED.body_sha256
       AND (idempotency_key.released OR idempotency_key.begun_at < now() - interval '30 seconds'))
RETURNING token
"""
FIND = "SELECT body_sha256, status, answer, headers FROM idempotency_key WHERE key_id = %s"
FINISH = "UPDATE idempotency_key SET status = %s, answer = %s, headers = %s WHERE key_id = %s"
FORGET = "DELETE FROM idempotency_key WHERE key_id = %s AND status IS NULL"
RELEASE = "UPDATE idempotency_key SET released = true WHERE key_id = %s AND status IS NULL"
EXPIRE = """
DELETE FROM idempotency_key
WHERE key_id IN (SELECT key_id FROM idempotency_key WHERE begun_at < now() - interval '24 hours' ORDER BY begun_at LIMIT %s)
"""
EXPIRE_EVERY_S = 3600.0
EXPIRED_AT_ONCE = 1_000
"""Keys that one statement deletes: each has a whole answer with it."""
KEPT_HEADERS = ("location", "etag", "tidelog-position")


class StillRunning(TidelogError):
    """The first request with this key has no answer yet."""

    code = "idempotency-key-in-use"
    retryable = True


async def once(request: Request, execute: Callable[[UUID | None], Awaitable[Response]]) -> Response:
    """Executes with the command id that belongs to the request's key (None: no key), or gives the first answer again.

    Raises:
        IdempotencyMismatch: the key came with another body before.
        StillRunning: see there.
    """
    key = header(request, b"idempotency-key").strip().strip('"')
    if not key:
        return await execute(None)
    if len(key) > 255:
        raise InvalidCommand("Idempotency-Key is longer than 255 characters")
    principal, container = principal_of(request), container_of(request)
    database = container.command_database
    scope = f"{principal.key_id}:{request.method}:{request.url.path}:{key}"
    key_id = derive_id(principal.tenant_id, f"idempotency:{scope}")
    body_sha256 = hashlib.sha256(await request.body()).hexdigest()
    async with database.connection() as connection:
        parameters = {"id": key_id, "tenant": principal.tenant_id, "body": body_sha256, "token": uuid7()}
        begun = await (await connection.execute(BEGIN, parameters)).fetchone()
        if begun is None:
            row = await (await connection.execute(FIND, [key_id])).fetchone()
            return _first_answer(row, body_sha256)
    try:
        response = await execute(begun[0])
    except Exception as error:
        # Refused: nothing to repeat, the key is free again. Anything else may have been recorded all the same.
        refused = isinstance(error, TidelogError) and not isinstance(error, Unavailable)
        await afterwards(container, _give_back(database, key_id, refused=refused), what="giving back an idempotency key")
        raise
    await afterwards(container, _keep(database, key_id, response), what="keeping an answer")
    return response


async def _keep(database: Database, key_id: UUID, response: Response) -> None:
    kept = "\n".join(f"{name}: {response.headers[name]}" for name in KEPT_HEADERS if name in response.headers)
    async with database.connection() as connection:
        await connection.execute(FINISH, (response.status_code, bytes(response.body), kept, key_id))


async def _give_back(database: Database, key_id: UUID, *, refused: bool) -> None:
    async with database.connection() as connection:
        await connection.execute(FORGET if refused else RELEASE, [key_id])


def _first_answer(row: tuple[str, int | None, bytes, str] | None, body_sha256: str) -> Response:
    if row is None or (row[0] == body_sha256 and row[1] is None):
        raise StillRunning("the first request with this Idempotency-Key is still running")
    if row[0] != body_sha256:
        raise IdempotencyMismatch("this Idempotency-Key was used with another body")
    headers = dict(line.split(": ", 1) for line in row[3].splitlines())
    headers["Idempotency-Replayed"] = "true"
    return Response(bytes(row[2]), row[1] or 200, headers, "application/json")


async def expire_keys(database: Database) -> None:
    """Once an hour, for ever: deletes all keys that are older than a day."""
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        try:
            await forget_expired(database)
        except TidelogError as error:
            log.warning("idempotency_keys_not_expired", error=error.message)


async def forget_expired(database: Database) -> int:
    """Deletes all keys that are older than a day, a bounded number with each statement. Returns how many there were."""
    forgotten = 0
    while True:
        async with database.connection() as connection:
            deleted = (await connection.execute(EXPIRE, [EXPIRED_AT_ONCE])).rowcount
        forgotten += deleted
        if deleted < EXPIRED_AT_ONCE:
            return forgotten
