"""The writer's session: one connection, which appends, and which hears of the appends of others if somebody wants that.

The notifications of its own appends come with their answers, and cost no wake-up. Those of others wake the process while the
session is idle.
"""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

from adapters.postgres import pool
from adapters.postgres.durability import Insistence
from adapters.postgres.listener import ANSWER_SECONDS, CHECK_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from adapters.postgres.log.append_batch import PARAMETERS, PREPARE_SQL, PREPARED, EncodedAppend, Row, encoded_parameters
from adapters.postgres.log.head import CHANNEL, HEAD_SQL
from adapters.postgres.log.own_appends import OwnAppends
from adapters.postgres.log.prepared import PreparedStatement

log = structlog.get_logger(__name__)

STATEMENT_TIMEOUT = 10.0
"""Seconds for one batch, including the wait for other writers."""


@dataclass(slots=True)
class _Open:
    """An open connection."""

    connection: pool.Connection
    statement: PreparedStatement
    insistence: Insistence
    pid: int
    """Of the server's process, which notifications name."""
    listens: bool = False
    heard: list[int] = field(default_factory=list)
    """Positions of notifications by other sessions, in order."""


class WriterSession:
    """A lost connection is made again by the next append, or at once if `own` is wanted. One statement at a time."""

    def __init__(self, database_url: str, own: OwnAppends | None = None) -> None:
        self._database_url = database_url
        self._own = own
        self._open: _Open | None = None
        self._turn = asyncio.Lock()

    async def append(self, appends: Sequence[EncodedAppend]) -> list[Row]:
        """Raises NotDurable, and the errors of `pool.connect`. After an error of the driver the session must be closed."""
        async with self._turn:
            session = await self._connected()
            if session.insistence.due:
                with pool.deadline(session.connection, _patience()), session.statement.aside():
                    await session.insistence.insist()
            rows = await session.statement.run(encoded_parameters(appends), Row._make, _patience())
            if session.listens and self._own is not None:
                self._pass_on(session, self._own)
                self._own.appended(appends, rows)
            return rows

    async def close(self) -> None:
        """Ends the connection. It may be opened again."""
        session, self._open = self._open, None
        if session is None:
            return
        session.statement.close()
        if self._own is not None and session.listens:
            self._own.lost()
            self._own.turned.set()
        pool.sever(session.connection)  # `close` sends a message first, which could block on a peer that is half gone
        await session.connection.close()

    async def listen(self) -> None:
        """Keeps the session open and listening while `own` is wanted. Ends by being cancelled."""
        own, pause = self._own, FIRST_PAUSE_SECONDS
        assert own is not None
        while True:
            own.turned.clear()
            try:
                async with self._turn:
                    await self._follow(own)
            except (psycopg.Error, OSError) as error:
                log.warning("listener_lost", channel=CHANNEL, error=str(error))
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            pause = FIRST_PAUSE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS if own.wanted else None):
                    await own.turned.wait()

    async def _follow(self, own: OwnAppends) -> None:
        """Begins or ends to listen, or checks that the connection is alive. Raises psycopg.Error, OSError."""
        if not own.wanted and (self._open is None or not self._open.listens):
            return
        try:
            session = await self._connected()
            with pool.deadline(session.connection, ANSWER_SECONDS), session.statement.aside():
                if own.wanted:
                    await self._hear(session, own)
                else:
                    session.listens = False
                    await session.connection.execute("UNLISTEN *")
                    own.lost()
        except (psycopg.Error, OSError):
            await self.close()
            raise

    async def _hear(self, session: _Open, own: OwnAppends) -> None:
        begins = not session.listens
        if begins:
            await session.connection.execute(SQL("LISTEN {}").format(Identifier(CHANNEL)))
        row = await (await session.connection.execute(HEAD_SQL)).fetchone()
        assert row is not None, "the log has no head"
        session.listens = True
        if begins:
            session.heard.clear()
            own.began(row[0])
        self._pass_on(session, own)
        if row[0] != own.position:
            own.heard(row[0])

    async def _connected(self) -> _Open:
        if self._open is not None and self._open.statement.broken:
            await self.close()
        return self._open or await self._connect()

    async def _connect(self) -> _Open:
        connection = await pool.connect(
            self._database_url,
            role="append",
            statement_timeout=STATEMENT_TIMEOUT,
            options={"plan_cache_mode": "force_generic_plan"},  # planning for each batch would cost more than its inserts
        )
        try:
            with pool.deadline(connection, _patience()):
                await connection.execute(PREPARE_SQL)
        except BaseException:
            await connection.close()
            raise
        statement = PreparedStatement(connection, PREPARED, PARAMETERS, lambda: self._on_input(session))
        session = _Open(connection, statement, Insistence(connection), connection.info.backend_pid)
        if self._own is not None:
            connection.add_notify_handler(lambda notify: _note(session, notify.pid, notify.payload))
        statement.watch()
        self._open = session
        return session

    def _pass_on(self, session: _Open, own: OwnAppends) -> None:
        while notify := session.connection.pgconn.notifies():
            _note(session, notify.be_pid, notify.extra.decode())
        heard, session.heard = session.heard, []
        for position in heard:
            own.heard(position)

    def _on_input(self, session: _Open) -> None:
        """Something has arrived while the session was idle."""
        if self._own is None or not session.listens:
            return
        if session.statement.broken:
            self._own.lost()
            self._own.turned.set()
        else:
            self._pass_on(session, self._own)


def _patience() -> float:
    """Seconds after which a server is given up that does not even report its own time-out."""
    return STATEMENT_TIMEOUT + pool.GRACE


def _note(session: _Open, pid: int, payload: str) -> None:
    """Notes a notification. What the session itself has appended is known from the answer."""
    if pid != session.pid:
        session.heard.append(int(payload))
