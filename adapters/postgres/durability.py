"""Whether a commit is on disk before PostgreSQL answers it. The writer of the log insists on that, on its own connection.

`synchronous_commit = off` is a choice of the session: the writer turns it on for itself. `on`, `local`, `remote_write` and
`remote_apply` all flush on the server that answers, and stay as they are. `fsync = off` is a choice of the server: nothing is
appended there, unless the server also says `tidelog.throw_away = on`, as the servers of the tests do. PostgreSQL takes a setting
with a dot in its name from anybody. The setting stands beside `fsync = off`, so no setting of Tidelog has to agree with it.
"""

import time
from dataclasses import dataclass

import structlog

from adapters.postgres.pool import Connection, Connections, translate_errors
from domain.errors import Unavailable

THROW_AWAY = "tidelog.throw_away"
ASK_EVERY_S = 5.0
"""The writer notices a change of the server's configuration after at most so many seconds."""

log = structlog.get_logger(__name__)

# One round trip: sets synchronous_commit for the session, so that a new default does not reach the session, and answers the
# settings.
INSIST_SQL = """
SELECT current_setting('fsync') = 'on' AS fsync,
    set_config('synchronous_commit', CASE asked WHEN 'off' THEN 'on' ELSE asked END, %(local)s) <> 'off' AS synchronous,
    lower(coalesce(current_setting('tidelog.throw_away', true), '')) IN ('on', 'true', 'yes', '1') AS throw_away
FROM current_setting('synchronous_commit') AS asked
"""
SERVER_SQL = """
SELECT current_setting('fsync') = 'on',
    lower(coalesce(current_setting('tidelog.throw_away', true), '')) IN ('on', 'true', 'yes', '1'),
    current_setting('full_page_writes') = 'on'
"""


class NotDurable(Unavailable):
    """The server answers commits that are not on its disk.

    A person has to act. The writer asks again, because the server may be mended.
    """


class Insistence:
    """The writer's knowledge of its connection. The server's settings can change while a connection lives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ask_at = 0.0
        self._refused = False

    @property
    def due(self) -> bool:
        """Whether the server must be asked before the next append."""
        return time.monotonic() >= self._ask_at

    async def insist(self) -> None:
        """Makes commits of the session durable. Raises NotDurable if the server prevents that; psycopg.Error."""
        row = await (await self._connection.execute(INSIST_SQL, {"local": False})).fetchone()
        assert row is not None
        fsync, synchronous, throw_away = row
        try:
            judge(fsync=fsync, synchronous=synchronous, throw_away=throw_away)
        except NotDurable as error:
            if not self._refused:  # one line, not one for each batch
                log.error("appends_refused", reason=error.message)
            self._refused = True
            raise
        if self._refused:
            log.info("appends_taken_again")
        self._refused, self._ask_at = False, time.monotonic() + ASK_EVERY_S


@dataclass(frozen=True, slots=True)
class Durability:
    """Whether a server keeps acknowledged appends. `fsync` is False only for a server that says it is to be thrown away."""

    fsync: bool
    full_page_writes: bool
    """Off: a power failure may tear pages, unless the file system writes whole pages."""


async def inspect(connection: Connection) -> Durability:
    """Raises NotDurable, psycopg.Error."""
    row = await (await connection.execute(SERVER_SQL)).fetchone()
    assert row is not None
    fsync, throw_away, full_page_writes = row
    judge(fsync=fsync, synchronous=True, throw_away=throw_away)
    return Durability(fsync, full_page_writes)


async def durability_of(pool: Connections) -> Durability:
    """Raises NotDurable, Unavailable."""
    with translate_errors():
        async with pool.connection() as connection:
            return await inspect(connection)


def judge(*, fsync: bool, synchronous: bool, throw_away: bool) -> None:
    """Raises NotDurable."""
    if not synchronous:
        raise NotDurable("PostgreSQL answers commits before they are on disk: synchronous_commit is off and cannot be turned on")
    if not fsync and not throw_away:
        raise NotDurable(
            "PostgreSQL does not write to disk what it answers: fsync is off. Turn it on; for a database that may be lost, "
            f"set {THROW_AWAY} = on beside it"
        )
