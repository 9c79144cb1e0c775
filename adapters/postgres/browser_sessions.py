"""Sessions of browsers in PostgreSQL (`BrowserSessions`). Each end is told in the transaction that ends the session."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from adapters.postgres.database import Database
from adapters.postgres.listener import ChannelListener, Notifications
from application.engine.ports.browser_sessions import BrowserSession, SignedBy

CHANNEL = "tidelog_browser_sessions"
"""NOTIFY channel: the session of the payload's id has ended."""
EXPIRED_AT_ONCE = 1_000

BEGIN = """
WITH crowded AS (
    DELETE FROM browser_session WHERE token_sha256 IN (
        SELECT token_sha256 FROM browser_session WHERE key_id = %(key)s AND tenant_id = %(tenant)s
        ORDER BY made_at DESC OFFSET %(others)s
    ) RETURNING session_id
), told AS (
    SELECT count(*) FROM (SELECT pg_notify(%(channel)s, session_id::text) FROM crowded) AS told
)
INSERT INTO browser_session (token_sha256, session_id, tenant_id, key_id, key_sha256, ends_at)
SELECT %(token)s, %(session)s, %(tenant)s, %(key)s, %(key_sha256)s, now() + make_interval(secs => %(life)s) FROM told
RETURNING made_at, ends_at
"""
FIND = """
SELECT token_sha256, session_id, tenant_id, key_id, key_sha256, made_at, ends_at, extract(epoch FROM ends_at - now())::float8
FROM browser_session WHERE token_sha256 = ANY (%s) AND ends_at > now()
"""
END = """
WITH ended AS (
    DELETE FROM browser_session WHERE session_id = %(session)s AND tenant_id = %(tenant)s RETURNING session_id
)
SELECT pg_notify(%(channel)s, session_id::text) FROM ended
"""
MAKE_LINK = """
WITH crowded AS (
    DELETE FROM sign_in_link WHERE token_sha256 IN (
        SELECT token_sha256 FROM sign_in_link WHERE key_id = %(key)s AND tenant_id = %(tenant)s
        ORDER BY made_at DESC OFFSET %(others)s
    )
)
INSERT INTO sign_in_link (token_sha256, tenant_id, key_id, key_sha256, ends_at)
VALUES (%(token)s, %(tenant)s, %(key)s, %(key_sha256)s, now() + make_interval(secs => %(life)s))
RETURNING ends_at
"""
# Whoever deletes the row has used the link; a second one at the same time waits for the first, and finds nothing.
TAKE_LINK = """
WITH taken AS (DELETE FROM sign_in_link WHERE token_sha256 = %s RETURNING *)
SELECT tenant_id, key_id, key_sha256 FROM taken WHERE ends_at > now()
"""
EXPIRE = """
WITH sessions AS (
    DELETE FROM browser_session WHERE token_sha256 IN (
        SELECT token_sha256 FROM browser_session WHERE ends_at <= now() ORDER BY ends_at LIMIT %(most)s
    ) RETURNING 1
), links AS (
    DELETE FROM sign_in_link WHERE token_sha256 IN (
        SELECT token_sha256 FROM sign_in_link WHERE ends_at <= now() ORDER BY ends_at LIMIT %(most)s
    ) RETURNING 1
)
SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM links)
"""


class PostgresBrowserSessions:
    """Implements the port `BrowserSessions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, token_sha256: str, session_id: UUID, by: SignedBy, *, life_s: float, most: int) -> BrowserSession:
        values = {**_of(token_sha256, by, life_s, most), "session": session_id, "channel": CHANNEL}
        async with self._database.connection() as connection:
            [(made_at, ends_at)] = await (await connection.execute(BEGIN, values)).fetchall()
        return BrowserSession(session_id, by, made_at, ends_at, life_s)

    async def find(self, token_sha256s: Sequence[str]) -> Mapping[str, BrowserSession]:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(FIND, [list(token_sha256s)])).fetchall()
        return {row[0]: BrowserSession(row[1], SignedBy(*row[2:5]), *row[5:]) for row in rows}

    async def end(self, tenant_id: UUID, session_id: UUID) -> None:
        async with self._database.connection() as connection:
            await connection.execute(END, {"session": session_id, "tenant": tenant_id, "channel": CHANNEL})

    async def make_link(self, token_sha256: str, by: SignedBy, *, life_s: float, most: int) -> datetime:
        async with self._database.connection() as connection:
            [(ends_at,)] = await (await connection.execute(MAKE_LINK, _of(token_sha256, by, life_s, most))).fetchall()
        found: datetime = ends_at
        return found

    async def take_link(self, token_sha256: str) -> SignedBy | None:
        async with self._database.connection() as connection:
            row = await (await connection.execute(TAKE_LINK, [token_sha256])).fetchone()
        return None if row is None else SignedBy(*row)

    async def expire(self) -> int:
        expired = 0
        while True:
            async with self._database.connection() as connection:
                [counts] = await (await connection.execute(EXPIRE, {"most": EXPIRED_AT_ONCE})).fetchall()
            expired += sum(counts)
            if max(counts) < EXPIRED_AT_ONCE:
                return expired


def _of(token_sha256: str, by: SignedBy, life_s: float, most: int) -> dict[str, object]:
    return {
        "token": token_sha256, "tenant": by.tenant_id, "key": by.key_id, "key_sha256": by.key_sha256, "life": life_s,
        "others": most - 1,
    }  # fmt: skip


class PostgresSessionEndings(ChannelListener):
    """Implements the port `SessionEndings`. Listens from `listen` on: a process that no browser asks does not."""

    def __init__(self, source: str | Notifications) -> None:
        super().__init__(source, CHANNEL)
        self._calls: list[tuple[Callable[[UUID], None], Callable[[], None]]] = []
        self._joined = False

    @property
    def told(self) -> bool:
        return self.listening.is_set()

    async def listen(self, ended: Callable[[UUID], None], doubt: Callable[[], None]) -> Callable[[], None]:
        one = (ended, doubt)
        self._calls.append(one)
        if not self._joined:
            self._joined = True
            await self.start()
        return lambda: self._calls.remove(one)

    def on_notification(self, payload: str) -> None:
        for ended, _ in self._calls:
            ended(UUID(payload))

    def missed(self) -> None:
        for _, doubt in self._calls:
            doubt()

    def on_loss(self) -> None:
        self.missed()
