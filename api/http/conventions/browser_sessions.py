"""Sessions of browsers by the hash of their token, as `Keys` knows keys. The token itself is neither stored nor logged.

A session that was looked up is remembered, and costs no further query: its end is told by the process that ends it
(`SessionEndings`), in the transaction that ends it. While that cannot be relied on, nothing is remembered for longer than a moment.
Whether the session's key is still valid is the business of `Keys`, and asked there for each request.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from api.http.conventions.look_ups import Found, LookUps
from application.engine.background import OnDemand
from application.engine.ports.browser_sessions import BrowserSession, BrowserSessions, SessionEndings
from application.engine.retry import persistently
from domain.errors import Unauthenticated, Unavailable

FRESH_S = 1.0
"""Seconds for which a session is remembered whose end might not be told."""
MOST_KNOWN = 10_000
MOST_ENDED = 10_000
OVER = "the browser is not signed in any more: its session has ended"


@dataclass(slots=True)
class _Known:
    session: BrowserSession
    since: float
    """When it was looked up. All times are those of the monotonic clock."""
    ends_at: float
    confirmed: bool
    """Its end will be told."""


class KnownSessions:
    """Knows sessions by the hash of their token. One for each process."""

    def __init__(self, store: BrowserSessions, endings: SessionEndings) -> None:
        self._store = store
        self._endings = endings
        self._unlisten: Callable[[], None] | None = None
        """None: nobody has asked by a cookie yet."""
        self._known: dict[str, _Known] = {}
        """By the hash of the token, in the order of the look-ups, oldest first."""
        self._digests: dict[UUID, str] = {}
        """Of the known sessions."""
        self._ended: dict[UUID, None] = {}
        """Sessions of which an end was told. A look-up that began before may still have found them."""
        self._holders: dict[str, set[Callable[[], None]]] = {}
        """Hash of a token → what is to be called at the session's end."""
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        """Of sessions with holders."""
        self._look_ups = LookUps("sessions", self._find, self._known.__contains__)
        self._doubted = False
        self._checking = OnDemand(self._check, "check-sessions")

    async def session(self, token: bytes) -> tuple[BrowserSession, str]:
        """The session with this token, and the hash of the token. Raises Unauthenticated, Unavailable."""
        digest = hashlib.sha256(token).hexdigest()
        known = self._known.get(digest)
        if known is not None:
            now = time.monotonic()
            if now >= known.ends_at:
                self._end(digest)
            elif known.confirmed or now - known.since < FRESH_S:
                return known.session, digest
        return await self._look_ups.answer(digest), digest

    def ended(self, session_id: UUID) -> None:
        """A session has ended: here, or as another process tells."""
        self._ended[session_id] = None
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        if (digest := self._digests.get(session_id)) is not None:
            self._end(digest)

    def hold(self, digest: str, at_end: Callable[[], None]) -> Callable[[], None]:
        """Calls a function once the session has ended, and at once if it has ended meanwhile. See `Keys.hold`."""
        holders = self._holders.setdefault(digest, set())
        holders.add(at_end)

        def release() -> None:
            holders.discard(at_end)
            if not holders and self._holders.get(digest) is holders:
                del self._holders[digest]
                self._disarm(digest)

        known = self._known.get(digest)
        if known is not None:
            self._arm(digest, known)
        if known is None or not known.confirmed:
            self._look_ups.ask(digest)
        return release

    async def close(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
        for timer in self._expiries.values():
            timer.cancel()
        self._expiries.clear()
        await self._checking.close()
        await self._look_ups.close()

    # --- look-ups -----------------------------------------------------------------------------------------------------------------

    async def _find(self, digests: Sequence[str]) -> Found[BrowserSession]:
        """Raises Unavailable."""
        if self._unlisten is None:
            self._unlisten = await self._endings.listen(self.ended, self._doubt)
        told, now = self._endings.told, time.monotonic()
        found = await self._store.find(digests)
        answers: dict[str, BrowserSession | Exception] = {}
        for digest in digests:
            session = found.get(digest)
            if session is None or session.session_id in self._ended:
                self._end(digest)
            else:
                answers[digest] = session
                self._learn(digest, session, now, told=told)
        return answers, Unauthenticated(OVER)

    def _learn(self, digest: str, session: BrowserSession, now: float, *, told: bool) -> None:
        self._known.pop(digest, None)
        self._known[digest] = known = _Known(session, now, now + session.left_s, confirmed=told)
        self._digests[session.session_id] = digest
        self._arm(digest, known)
        if (excess := len(self._known) - MOST_KNOWN) > 0:
            self._drop([digest for digest in self._known if digest not in self._holders][:excess])

    # --- the end of sessions ------------------------------------------------------------------------------------------------------

    def _doubt(self) -> None:
        """Ends may have been missed: nothing is remembered, and what is held is looked up, for as long as it takes."""
        self._drop([digest for digest in self._known if digest not in self._holders])
        for known in self._known.values():
            known.confirmed = False
        if self._holders:
            self._doubted = True
            with suppress(Unavailable):  # the process stops
                self._checking.start()

    async def _check(self) -> None:
        while self._doubted:
            self._doubted = False
            await persistently(lambda: self._find(list(self._holders)))

    def _arm(self, digest: str, known: _Known) -> None:
        """Ends what the session holds when its time is over."""
        self._disarm(digest)
        if digest in self._holders:
            wait_s = max(0.0, known.ends_at - time.monotonic())
            self._expiries[digest] = asyncio.get_running_loop().call_later(wait_s, self._end, digest)

    def _disarm(self, digest: str) -> None:
        if (timer := self._expiries.pop(digest, None)) is not None:
            timer.cancel()

    def _end(self, digest: str) -> None:
        """Forgets a session, and tells all that hold it."""
        self._drop([digest])
        self._disarm(digest)
        for at_end in list(self._holders.get(digest, ())):
            at_end()

    def _drop(self, digests: Iterable[str]) -> None:
        for digest in digests:
            if (known := self._known.pop(digest, None)) is not None:
                self._digests.pop(known.session.session_id, None)
