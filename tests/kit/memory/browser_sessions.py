"""Sessions of browsers, in memory."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.clock import Clock
from application.engine.ports.browser_sessions import BrowserSession, SignedBy


class MemoryBrowserSessions:
    """Implements `BrowserSessions` and `SessionEndings` of one installation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, BrowserSession] = {}
        self._links: dict[str, tuple[SignedBy, datetime]] = {}
        self._hearing: list[tuple[Callable[[UUID], None], Callable[[], None]]] = []
        self.told = True

    async def begin(self, token_sha256: str, session_id: UUID, by: SignedBy, *, life_s: float, most: int) -> BrowserSession:
        of_key = [digest for digest, session in self._sessions.items() if session.by[:2] == by[:2]]
        for digest in of_key[: len(of_key) - most + 1] if len(of_key) >= most else []:
            self._tell(self._sessions.pop(digest).session_id)
        now = self._clock.now()
        made = BrowserSession(session_id, by, now, now + timedelta(seconds=life_s), life_s)
        self._sessions[token_sha256] = made
        return made

    async def find(self, token_sha256s: Sequence[str]) -> Mapping[str, BrowserSession]:
        now = self._clock.now()
        return {
            digest: found._replace(left_s=(found.ends_at - now).total_seconds())
            for digest in token_sha256s
            if (found := self._sessions.get(digest)) is not None and found.ends_at > now
        }

    async def end(self, tenant_id: UUID, session_id: UUID) -> None:
        for digest, session in list(self._sessions.items()):
            if (session.by.tenant_id, session.session_id) == (tenant_id, session_id):
                del self._sessions[digest]
                self._tell(session_id)

    async def make_link(self, token_sha256: str, by: SignedBy, *, life_s: float, most: int) -> datetime:
        of_key = [digest for digest, (owner, _) in self._links.items() if owner[:2] == by[:2]]
        for digest in of_key[: len(of_key) - most + 1] if len(of_key) >= most else []:
            del self._links[digest]
        self._links[token_sha256] = (by, self._clock.now() + timedelta(seconds=life_s))
        return self._links[token_sha256][1]

    async def take_link(self, token_sha256: str) -> SignedBy | None:
        by, ends_at = self._links.pop(token_sha256, (None, self._clock.now()))
        return by if ends_at > self._clock.now() else None

    async def expire(self) -> int:
        now = self._clock.now()
        over = [digest for digest, session in self._sessions.items() if session.ends_at <= now]
        old = [digest for digest, (_, ends_at) in self._links.items() if ends_at <= now]
        for digest in over:
            del self._sessions[digest]
        for digest in old:
            del self._links[digest]
        return len(over) + len(old)

    async def listen(self, ended: Callable[[UUID], None], doubt: Callable[[], None]) -> Callable[[], None]:
        one = (ended, doubt)
        self._hearing.append(one)
        return lambda: self._hearing.remove(one)

    def lose(self) -> None:
        """Whoever listens may have missed something."""
        for _, doubt in self._hearing:
            doubt()

    def _tell(self, session_id: UUID) -> None:
        if self.told:
            for ended, _ in self._hearing:
                ended(session_id)
