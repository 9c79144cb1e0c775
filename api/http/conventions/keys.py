"""API keys → principals. Unknown keys are looked up in the database, many in one query and one query at a time.

So callers with wrong keys, however many, cost four queries a second and take no database connection from callers with valid keys.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from api.container import Container
from api.http.conventions.request import Principal
from application.engine.background import end
from domain.errors import TidelogError, Unauthenticated, Unavailable

KNOWN_S = 10.0
"""Seconds for which a key counts as valid after its look-up. A revoked key works no longer than this."""
FRESH_S = 1.0
"""Seconds after which a key in use is looked up again, without letting its users wait."""
PACE_S = 0.25
"""Seconds between two queries."""
MOST_KNOWN = 10_000
MOST_ASKED = 10_000
"""Keys in one query. Callers with further keys are refused as Unavailable meanwhile."""
PATIENCE_S = 30.0
"""Seconds that a caller waits for the look-up of its key. A database that is away is told much sooner. This is for a process that a
burst of requests keeps busy: a key in use may have to be looked up in the middle of the burst."""

Answer = Principal | Exception


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    since: float


class Keys:
    """Knows keys by their hash. The key itself is neither stored nor logged."""

    def __init__(self, container: Container) -> None:
        self._reads = container.reads.keys
        self._dependencies = container.dependencies
        self._known: dict[str, _Known] = {}
        """By the hash of a key, in the order of the look-ups, oldest first."""
        self._asked: dict[str, asyncio.Future[Answer]] = {}
        self._looking: asyncio.Task[None] | None = None
        """Runs while keys are asked for, and PACE_S longer."""

    async def principal(self, headers: Mapping[bytes, bytes]) -> tuple[Principal, str]:
        """The principal of a request, and the hash of the key. Raises Unauthenticated, Unavailable."""
        key = headers.get(b"x-api-key", b"").strip()
        if not key:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            key = token.strip() if scheme.lower() == b"bearer" else b""
        if not key:
            raise Unauthenticated("give an API key: `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        digest = hashlib.sha256(key).hexdigest()
        return await self._owner(digest, KNOWN_S), digest

    async def is_valid(self, digest: str) -> bool:
        """Whether a key is still valid: for long requests. True if the database cannot be asked."""
        try:
            await self._owner(digest, FRESH_S)
        except Unauthenticated:
            return False
        except TidelogError:
            return True
        return True

    async def close(self) -> None:
        if self._looking is not None:
            await end(self._looking)

    async def _owner(self, digest: str, at_most_s: float) -> Principal:
        known = self._known.get(digest)
        if known is not None:
            age = time.monotonic() - known.since
            if age < at_most_s:
                if age > FRESH_S:
                    self._ask(digest)
                return known.principal
        asked = self._ask(digest)
        if asked is None:
            raise Unavailable("too many unknown API keys at once")
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asyncio.shield(asked)
        except TimeoutError:
            raise Unavailable("the API key could not be looked up in time") from None
        match found:
            case Principal():
                return found
            case TidelogError():
                raise type(found)(found.message)  # a new error for each caller
            case _:
                raise found

    def _ask(self, digest: str) -> "asyncio.Future[Answer] | None":
        """The answer of the next query about a key. None if the query has too many keys already."""
        asked = self._asked.get(digest)
        if asked is None and len(self._asked) < MOST_ASKED:
            asked = self._asked[digest] = asyncio.get_running_loop().create_future()
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_up(), name="look-up-keys")
        return asked

    async def _look_up(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            answers: dict[str, Answer] = {}
            wrong: Exception = Unavailable("the server is about to stop")
            try:
                answers, wrong = await self._find(list(asked))
            except Exception as error:  # noqa: BLE001  # the callers raise it, and a defect is logged there
                wrong = error
            finally:
                for digest, waiter in asked.items():
                    if not waiter.done():
                        waiter.set_result(answers.get(digest, wrong))
            await asyncio.sleep(PACE_S)

    async def _find(self, digests: list[str]) -> tuple[dict[str, Answer], Exception]:
        """The principals of known keys, and the error for callers with other keys. Raises Unavailable."""
        now = time.monotonic()
        unknown = await self._starting() or Unauthenticated("the API key is not valid")
        owners = await self._reads.owners(digests)
        for digest in digests:
            self._known.pop(digest, None)
        answers: dict[str, Answer] = {}
        for digest, owner in owners.items():
            answers[digest] = principal = Principal(owner.tenant_id, owner.key_id, f"key:{owner.key_id}", owner.role)
            self._known[digest] = _Known(principal, now)
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return answers, unknown

    async def _starting(self) -> Unavailable | None:
        """The error for unknown keys while the first key is not issued yet. None: an unknown key is invalid.

        A worker that starts at the same time treats a 401 as final. Checked before the keys are looked up: a key that is issued in
        between must not be refused as invalid.
        """
        check = self._dependencies.get("setup")
        try:
            if check is not None:
                await check()
        except Unavailable as error:
            return error
        return None
