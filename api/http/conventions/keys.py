"""API keys → principals. Whoever comes with a key that is not known asks the database by the one query that runs at a time.

So callers with wrong keys, however many, cost four queries a second and take no connection from those with good ones.
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
"""How long a key is taken for valid after it was looked up: a revoked one works no longer than this."""
FRESH_S = 1.0
"""A key that was looked up longer ago than this, and is in use, is looked up again without letting its users wait."""
PACE_S = 0.25
"""Between two queries."""
MOST_KNOWN = 10_000
MOST_ASKED = 10_000
"""Keys in one query; who comes with another one meanwhile is told to come again."""
PATIENCE_S = 10.0
"""How long a caller waits to hear whether its key is good."""

Answer = Principal | Exception


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    since: float


class Keys:
    """Knows keys by their hash; a key itself is neither kept nor logged."""

    def __init__(self, container: Container) -> None:
        self._reads = container.reads.keys
        self._dependencies = container.dependencies
        self._known: dict[str, _Known] = {}
        """The one that was looked up longest ago first."""
        self._asked: dict[str, asyncio.Future[Answer]] = {}
        self._looking: asyncio.Task[None] | None = None
        """Runs while somebody asks, and a pause longer."""

    async def principal(self, headers: Mapping[bytes, bytes]) -> tuple[Principal, str]:
        """Who asks, and the hash of their key. Raises Unauthenticated, Unavailable."""
        key = headers.get(b"x-api-key")
        if key is None:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            key = token.strip() if scheme.lower() == b"bearer" else b""
        if not key:
            raise Unauthenticated("give an API key: `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        digest = hashlib.sha256(key).hexdigest()
        return await self._owner(digest, KNOWN_S), digest

    async def is_valid(self, digest: str) -> bool:
        """Whether a key that was valid still is, for what goes on for long. True when the database cannot be asked."""
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
                raise type(found)(found.message)  # one of its own for each who asked
            case _:
                raise found

    def _ask(self, digest: str) -> "asyncio.Future[Answer] | None":
        """What the next query says of a key; None when that has too many already."""
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
            except Exception as error:  # noqa: BLE001  # those who asked meet it, and a defect is logged there
                wrong = error
            finally:
                for digest, waiter in asked.items():
                    if not waiter.done():
                        waiter.set_result(answers.get(digest, wrong))
            await asyncio.sleep(PACE_S)

    async def _find(self, digests: list[str]) -> tuple[dict[str, Answer], Exception]:
        """Whom the keys belong to, and what to say of the others. Raises Unavailable."""
        now = time.monotonic()
        unknown = await self._starting() or Unauthenticated("the API key is not valid")
        owners = await self._reads.owners(digests)
        for digest in digests:
            self._known.pop(digest, None)
        answers: dict[str, Answer] = {}
        for digest, owner in owners.items():
            answers[digest] = principal = Principal(owner.tenant_id, owner.key_id, f"key:{owner.key_id}")
            self._known[digest] = _Known(principal, now)
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return answers, unknown

    async def _starting(self) -> Unavailable | None:
        """Why an unknown key may be a good one soon: a worker that starts together with us takes a 401 for final.

        Asked before the keys are looked up: a key that is issued in between must not be called wrong.
        """
        check = self._dependencies.get("setup")
        try:
            if check is not None:
                await check()
        except Unavailable as error:
            return error
        return None
