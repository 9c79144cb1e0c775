"""API keys → principals. Unknown keys are looked up in the database, many in one query and one query at a time.

So callers with wrong keys, however many, cost four queries a second and take no database connection from callers with valid keys.
While nobody shows a wrong key, a valid one is asked about at once: ten thousand tenants that come now and then do not wait.

A key that was looked up is watched: the live feed tells the events by which a key of its tenant ends, and the tenant's keys are
then read from the log. So a key ends within moments, in every process, and a key in use costs no further query. While the feed
cannot be relied on, keys in use are looked up each second instead.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import structlog

from api.container import Container
from api.http.conventions.look_ups import Found, LookUps
from api.http.conventions.request import Principal
from application.engine.background import OnDemand
from application.engine.ports.key_uses import KeyUse
from application.engine.retry import persistently
from application.reads import KeyOwner
from domain import tenants
from domain.errors import Unauthenticated, Unavailable
from tidelog.keys import is_mistyped

log = structlog.get_logger(__name__)

KNOWN_S = 10.0
"""Seconds for which a key counts as valid after its look-up, where neither the live feed nor another look-up confirms it."""
FRESH_S = 1.0
"""Seconds after which an unconfirmed key in use is looked up again, without letting its users wait."""
MOST_KNOWN = 10_000
MOST_ENDED = 10_000
TIDY_S = 10.0
"""Seconds between two looks at what is known: unused keys are forgotten, uses are written down."""
UNUSED_S = 60.0
"""Seconds after which an unused key is forgotten, so that nothing is read for its sake."""
NOTED_S = 60.0
"""Seconds between two notes of the last use of a key by one process."""
ENDINGS = frozenset({tenants.ApiKeyRevoked.TOPIC, tenants.ApiKeyRotated.TOPIC})


@dataclass(slots=True)
class _Known:
    principal: Principal
    since: float
    """When the key was last known to be valid. All times are those of the monotonic clock."""
    ends_at: float | None
    """The expiry."""
    watched_from: int | None
    """The position of the log after which the live feed tells the key's end. None: the log is not being read yet."""
    confirmed: bool
    """What came up to `watched_from` has been taken into account, so the feed alone tells the key's end."""
    used_at: float
    noted_at: float


@dataclass(slots=True)
class _Watched:
    """A tenant some of whose keys are known."""

    unwatch: Callable[[], None]
    digests: set[str]


def key_in(headers: Mapping[bytes, bytes]) -> bytes:
    """The API key that a request shows. Empty: it shows none."""
    key = headers.get(b"x-api-key", b"").strip()
    if not key:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        key = token.strip() if scheme.lower() == b"bearer" else b""
    return key


class Keys:
    """Knows keys by their hash. The key itself is neither stored nor logged."""

    def __init__(self, container: Container) -> None:
        self._reads = container.reads.keys
        self._dependencies = container.dependencies
        self._live = container.live
        self._commands = container.commands
        self._uses = container.key_uses
        self._known: dict[str, _Known] = {}
        """By the hash of a key, in the order of the look-ups, oldest first."""
        self._watched: dict[UUID, _Watched] = {}
        self._ended: dict[str, str] = {}
        """Hash of a key that ended here → why. The read model may still hold it as valid."""
        self._holders: dict[str, set[Callable[[], None]]] = {}
        """Hash of a key → what is to be called at its end."""
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        """Of keys with holders."""
        self._look_ups = LookUps("API keys", self._find, self._known.__contains__)
        self._changed: set[UUID] = set()
        self._checking = OnDemand(self._check, "check-keys")
        self._noting = OnDemand(self._note, "note-uses-of-keys")
        self._tidying: asyncio.TimerHandle | None = None
        self._unhear = container.histories.on_change(self._forget)
        self._unhear.__enter__()
        self._closed = False

    async def principal(self, headers: Mapping[bytes, bytes]) -> tuple[Principal, str]:
        """The principal of a request, and the hash of the key. Raises Unauthenticated, Unavailable."""
        key = key_in(headers)
        if not key:
            raise Unauthenticated("give an API key: `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        return await self.owner_of(key)

    async def owner_of(self, key: bytes) -> tuple[Principal, str]:
        """The principal of a key, and the hash of the key. Raises Unauthenticated, Unavailable."""
        digest = hashlib.sha256(key).hexdigest()
        if digest not in self._known and is_mistyped(key.decode("latin-1")):
            raise Unauthenticated("the API key is mistyped: a character is wrong, missing or too many")
        return await self.owner(digest), digest

    def hold(self, digest: str, at_end: Callable[[], None]) -> Callable[[], None]:
        """Calls a function once the key is not valid any more; also at once, if it has ended meanwhile. For streams, which go on
        after their key was asked for. Returns the function that ends this.
        """
        holders = self._holders.setdefault(digest, set())
        holders.add(at_end)

        def release() -> None:
            holders.discard(at_end)
            if not holders and self._holders.get(digest) is holders:
                del self._holders[digest]
                if (timer := self._expiries.pop(digest, None)) is not None:
                    timer.cancel()

        if digest in self._ended:
            asyncio.get_running_loop().call_soon(at_end)
        elif (known := self._known.get(digest)) is not None:
            self._arm(digest, known)
        else:
            self._look_ups.ask(digest)  # forgotten since: its look-up goes on with the watch
        return release

    async def close(self) -> None:
        self._closed = True
        self._unhear.__exit__(None, None, None)
        if self._tidying is not None:
            self._tidying.cancel()
        for timer in self._expiries.values():
            timer.cancel()
        for watched in self._watched.values():
            watched.unwatch()
        self._watched = {}
        await self._checking.close()
        await self._noting.close()
        await self._look_ups.close()

    # --- the answer to a caller ---------------------------------------------------------------------------------------------------

    async def owner(self, digest: str) -> Principal:
        """The principal of a key with this hash. Raises Unauthenticated, Unavailable."""
        known = self._known.get(digest)
        if known is not None:
            now = time.monotonic()
            known.used_at = now
            if known.ends_at is not None and now >= known.ends_at:
                self._end(digest, "the API key has expired")
            elif known.confirmed and self._live.is_current:
                known.since = now
                return known.principal
            elif (age := now - known.since) < KNOWN_S:
                if age > FRESH_S:
                    self._look_ups.ask(digest)
                return known.principal
        if (why := self._ended.get(digest)) is not None:
            raise Unauthenticated(why)
        return await self._look_ups.answer(digest)

    # --- look-ups -----------------------------------------------------------------------------------------------------------------

    async def _find(self, digests: Sequence[str]) -> Found[Principal]:
        """The principals of known keys, and the error for callers with other keys. Raises Unavailable."""
        now = time.monotonic()
        unknown = await self._starting() or Unauthenticated("the API key is not valid: it is unknown, was revoked, or has expired")
        found = await self._reads.owners(digests)
        answers: dict[str, Principal | Exception] = {}
        for digest in digests:
            owner = found.owners.get(digest)
            if digest in self._ended:  # the read model does not have the event yet
                answers[digest] = Unauthenticated(self._ended[digest])
            elif owner is None:
                if (known := self._known.get(digest)) is not None:
                    self._told(known.principal.tenant_id)  # the log decides: a read model may have stepped back
                elif isinstance(unknown, Unauthenticated):
                    self._tell(digest)
            else:
                answers[digest] = self._learn(digest, owner, now, found.position)
        if (excess := len(self._known) - MOST_KNOWN) > 0:
            for digest in [digest for digest in self._known if digest not in self._holders][:excess]:
                self._drop(digest)
        if self._known and self._tidying is None and not self._closed:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_S, self._tidy)
        return answers, unknown

    def _learn(self, digest: str, owner: KeyOwner, now: float, position: int) -> Principal:
        """A look-up that began at the time `now` has found the key in the read model at a position."""
        principal = Principal(owner.tenant_id, owner.key_id, f"key:{owner.key_id}", owner.role, owner.projects)
        ends_at = None if owner.valid_for_s is None else now + owner.valid_for_s
        before = self._known.pop(digest, None)
        if before is None:
            self._watch(owner.tenant_id, digest)
            since = self._live.position if self._live.reading else None
            known = _Known(principal, now, ends_at, since, confirmed=False, used_at=now, noted_at=float("-inf"))
        else:
            known = replace(before, principal=principal, since=now, ends_at=ends_at)
        known.confirmed = known.watched_from is not None and position >= known.watched_from
        self._known[digest] = known
        self._arm(digest, known)
        return principal

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

    # --- the end of keys ----------------------------------------------------------------------------------------------------------

    def _watch(self, tenant_id: UUID, digest: str) -> None:
        """Watches the keys of a tenant, for the sake of one that is known."""
        watched = self._watched.get(tenant_id)
        if watched is None:
            unwatch = self._live.call(tenant_id, ENDINGS, lambda _: self._told(tenant_id))
            watched = self._watched[tenant_id] = _Watched(unwatch, set())
        watched.digests.add(digest)

    def _told(self, tenant_id: UUID) -> None:
        """A key of the tenant has ended, or may have. The feed calls this also when it begins to read the log."""
        if (watched := self._watched.get(tenant_id)) is None or self._closed:
            return
        for digest in watched.digests:
            self._known[digest].confirmed = False
        self._changed.add(tenant_id)
        with suppress(Unavailable):
            self._checking.start()

    async def _check(self) -> None:
        while self._changed:
            tenant_id = self._changed.pop()
            reached = self._live.position
            loaded = await persistently(lambda: self._commands.load(tenants.DECIDER, tenant_id, tenant_id))  # noqa: B023  # called at once
            if (watched := self._watched.get(tenant_id)) is None or tenant_id in self._changed:
                continue
            for digest in list(watched.digests):
                self._judge(digest, loaded.state, max(reached, loaded.position))

    def _judge(self, digest: str, state: tenants.Tenant, position: int) -> None:
        """`state`: of the tenant, with all that the log had at a position."""
        known, now = self._known[digest], time.monotonic()
        key = state.keys.get(known.principal.key_id)
        if key is None:
            self._end(digest, "the API key was revoked")
            return
        known.since, known.watched_from, known.confirmed = now, position, True
        known.ends_at = None if key.expires_at is None else now + (key.expires_at - datetime.now(UTC)).total_seconds()
        self._arm(digest, known)

    def _arm(self, digest: str, known: _Known) -> None:
        """Ends what the key holds when the key expires."""
        if (timer := self._expiries.pop(digest, None)) is not None:
            timer.cancel()
        if known.ends_at is not None and digest in self._holders:
            wait_s = max(0.0, known.ends_at - time.monotonic())
            self._expiries[digest] = asyncio.get_running_loop().call_later(wait_s, self._end, digest, "the API key has expired")

    def _end(self, digest: str, why: str) -> None:
        self._drop(digest)
        self._ended[digest] = why
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        self._tell(digest)

    def _tell(self, digest: str) -> None:
        """Tells all that hold the key."""
        if (timer := self._expiries.pop(digest, None)) is not None:
            timer.cancel()
        for at_end in list(self._holders.get(digest, ())):
            at_end()

    def _drop(self, digest: str) -> None:
        """Forgets a key. The watch of its tenant ends with the tenant's last key."""
        known = self._known.pop(digest, None)
        if known is None:
            return
        watched = self._watched.get(known.principal.tenant_id)
        if watched is None:
            return
        watched.digests.discard(digest)
        if not watched.digests:
            watched.unwatch()
            del self._watched[known.principal.tenant_id]

    def _forget(self) -> None:
        """The log has a new history: ends that were told may be gone, and keys, too."""
        self._ended.clear()
        for tenant_id in list(self._watched):
            self._told(tenant_id)

    # --- now and then -------------------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        now, held = time.monotonic(), self._holders
        for digest, known in list(self._known.items()):
            if digest in held:
                known.used_at = now
            elif now - known.used_at > UNUSED_S and known.noted_at >= known.used_at:
                self._drop(digest)
        if any(self._unnoted(now)):
            with suppress(Unavailable):
                self._noting.start()
        self._tidying = asyncio.get_running_loop().call_later(TIDY_S, self._tidy) if self._known and not self._closed else None

    def _unnoted(self, now: float) -> Iterable[_Known]:
        return (known for known in self._known.values() if known.used_at > known.noted_at and now - known.noted_at >= NOTED_S)

    async def _note(self) -> None:
        now = time.monotonic()
        used = list(self._unnoted(now))
        uses = [KeyUse(known.principal.key_id, known.principal.tenant_id, now - known.used_at) for known in used]
        for known in used:
            known.noted_at = now
        try:
            await self._uses.write(uses)
        except Unavailable as error:
            log.info("uses_of_keys_not_written", keys=len(uses), error=error.message)
