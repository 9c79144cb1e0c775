"""Connections to Postgres: with limits and timeouts on everything, and driver errors turned into domain errors in one place."""

import asyncio
import contextlib
import re
import select
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, Self

import psycopg
import structlog
from psycopg import errors
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PipelineStatus
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from domain.errors import InvalidCommand, PayloadTooLarge, TidelogError, Unavailable

log = structlog.get_logger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Pool = AsyncConnectionPool[Connection]


class Connections(Protocol):
    """Where connections come from: a pool, or a share of one."""

    def connection(self, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Raises psycopg.Error (PoolTimeout, TooManyRequests) when none comes in time (seconds)."""
        ...


CONNECT_TIMEOUT = 5
"""Seconds to reach the server and log in."""
STATEMENT_TIMEOUT = 30.0
"""Seconds that one statement may take, unless a caller of `open_pool` says otherwise."""
RECONNECT_FOR = 4.0
"""Seconds for which the pool tries to connect by itself, at longer and longer intervals; then who waits makes it try at once.
With the pool's own five minutes an outage would last twice as long for us as for the database."""
GRACE = 2.0
"""Seconds after a statement's time-out in which the server must have said so; a connection that says nothing is given up then."""

# First two characters of an SQLSTATE: the database, not the statement, is in trouble, and trying again later is right.
# 08 connection, 25006 read-only (a demoted primary), 40 rolled back for others, 53 out of resources, 55P03 lock not available,
# 57 operator intervention (shutdown, crash, timeout), 58 system error.
_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "57", "58"})
_TRANSIENT_STATES = frozenset({"25006", "55P03"})

# What libpq and the server say of a connection that no waiting will mend. A connection that only ended says "EOF" or "closed".
_REFUSAL = re.compile(
    r"certificate|private key|does not support SSL|SSL error: (?!unexpected eof)|sslmode|pg_hba\.conf"
    r"|(?:password|\w+) authentication failed|no password supplied"
)


class DatabaseRefused(Unavailable):
    """The database is there, but a connection is refused, by it or by us: its certificate, ours, no TLS, the password.

    A person has to act. It is tried again, because what is wrong may be mended on the other side.
    """


def is_transient(error: BaseException) -> bool:
    """Whether the same statement may succeed later, perhaps on another connection."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # the driver speaks, not the server: lost connection, pool exhausted, closed
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return error.sqlstate[:2] in _TRANSIENT_CLASSES or error.sqlstate in _TRANSIENT_STATES
    return isinstance(error, OSError)  # and so TimeoutError, ConnectionError


def domain_error(error: BaseException) -> TidelogError | None:
    """The domain error for an error of the driver; None for one that only a defect of ours explains."""
    if (refusal := _refusal(error)) is not None:
        return DatabaseRefused(f"the database is there, but there is no way in: {refusal}")
    if is_transient(error):
        return Unavailable(f"the database is not available: {_first_line(error)}")
    if isinstance(error, errors.ProgramLimitExceeded | errors.StatementTooComplex):
        return PayloadTooLarge(f"more than the database takes: {_first_line(error)}")
    if isinstance(error, psycopg.DataError):
        return InvalidCommand(f"a value that the database cannot hold: {_first_line(error)}")
    return None


def _refusal(error: BaseException) -> str | None:
    """The line that says why a person has to act; None for every other error."""
    if not isinstance(error, psycopg.OperationalError) or (error.sqlstate or "28")[:2] != "28":
        return None
    return next((line.strip() for line in str(error).splitlines() if _REFUSAL.search(line)), None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Around every use of the database: what leaves it is a domain error (Unavailable, PayloadTooLarge, InvalidCommand).

    A driver error with no counterpart passes as it is: it is a defect and must be seen.
    """
    try:
        yield
    except (psycopg.Error, OSError) as error:
        translated = domain_error(error)
        if translated is None:
            raise
        raise translated from error


def _conninfo(database_url: str, role: str, statement_timeout: float, options: dict[str, str]) -> str:
    """The URL with what we insist on; what the URL itself sets (sslmode, its own `options`) stays."""
    given = conninfo_to_dict(database_url)
    settings = {
        "timezone": "UTC",
        "statement_timeout": f"{round(statement_timeout * 1000)}ms",
        "idle_in_transaction_session_timeout": f"{round(statement_timeout * 1000)}ms",
        **options,
    }
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    defaults: dict[str, Any] = {
        "application_name": f"tidelog-{role}",
        "connect_timeout": CONNECT_TIMEOUT,
        # A peer that vanished without a word is noticed after 10 + 3 * 5 seconds when idle, after 15 when it owes an answer.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    return make_conninfo(database_url, **defaults | given | {"options": f"{given.get('options') or ''} {ours}".strip()})


async def connect(
    database_url: str, *, role: str, statement_timeout: float = STATEMENT_TIMEOUT, options: dict[str, str] | None = None
) -> Connection:
    """A connection of one's own, in autocommit. `role` names the process in pg_stat_activity. Raises psycopg.Error, OSError."""
    conninfo = _conninfo(database_url, role, statement_timeout, options or {})
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


async def open_pool(
    database_url: str,
    *,
    role: str,
    min_size: int = 1,
    max_size: int = 10,
    timeout: float = 5.0,
    max_waiting: int = 1_000,
    statement_timeout: float = STATEMENT_TIMEOUT,
) -> Pool:
    """A pool of autocommit connections. Returns at once and connects behind, so that a process starts without a database.

    `timeout`: seconds to wait for a connection; `max_waiting`: callers that may wait, the next one gets Unavailable at once.
    """
    trouble = _Trouble()
    pool = _TellingPool(
        _conninfo(database_url, role, statement_timeout, {}),
        connection_class=_connection_class(trouble, statement_timeout + GRACE),
        kwargs={"autocommit": True},
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        max_waiting=max_waiting,
        max_lifetime=30 * 60.0,
        max_idle=5 * 60.0,
        reconnect_timeout=RECONNECT_FOR,
        check=_check_open,
        reset=_refuse_pipeline,
        name=f"tidelog-{role}",
        open=False,
    )
    pool.trouble = trouble
    await pool.open(wait=False)
    return pool


class _Trouble:
    """Why the last try to connect failed; None since one succeeded."""

    def __init__(self) -> None:
        self.error: psycopg.Error | OSError | None = None


def _connection_class(trouble: _Trouble, answer_within: float) -> type[Connection]:
    """Connections that tell of trouble, and on which no wait for the server is longer than `answer_within` seconds."""

    class PoolConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
        @classmethod
        async def connect(cls, *arguments: Any, **options: Any) -> Self:
            try:
                connection = await super().connect(*arguments, **options)
            except (psycopg.Error, OSError) as error:
                trouble.error = error
                raise
            trouble.error = None
            return connection

        async def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
            try:
                with deadline(self, answer_within):
                    return await super().wait(gen, *arguments, **options)
            finally:
                _end(self, gen)

    return PoolConnection


def _end(connection: Connection, gen: PQGen[Any]) -> None:
    """Ends what a cancelled wait left off in the middle; does nothing to what has ended.

    The driver leaves it to the garbage collector, at a moment when the connection may be somebody else's. Leaving a pipeline is not
    to be ended: it asks the server for what is still to come. Such a connection is of no use any more.
    """
    try:
        gen.close()
    except Exception:  # noqa: BLE001  # it wants to go on, or finds the connection closed
        connection.pgconn.finish()
        with contextlib.suppress(Exception):
            gen.close()


class _TellingPool(AsyncConnectionPool[Connection]):
    """Connects behind the backs of those who wait: their time-out would not say why there is no connection."""

    trouble: _Trouble

    async def reconnect_failed(self) -> None:
        """The pool would try again for the next caller only. Those who wait already would wait in vain until their time is up."""
        await super().reconnect_failed()
        async with self._lock:
            if self._waiting:
                self._maybe_grow_pool()

    async def getconn(self, timeout: float | None = None) -> Connection:
        try:
            return await super().getconn(timeout)
        except PoolTimeout as error:
            if self.trouble.error is None:
                raise
            reason = _refusal(self.trouble.error) or _first_line(self.trouble.error)
            raise PoolTimeout(f"{error}: {reason}") from self.trouble.error


async def _refuse_pipeline(connection: Connection) -> None:
    """Has the pool throw a connection away that comes back in pipeline mode, as one does whose user was cancelled while it left it.

    What the next user executed on it would wait for a commit that never comes, with all its locks.
    """
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise psycopg.InterfaceError("returned in pipeline mode")


async def _check_open(connection: Connection) -> None:
    """Refuses a connection that the server closed while it lay in the pool (a restart, an administrator).

    An idle connection has nothing to read; one that was closed has the end of file. Asking the kernel costs microseconds, where the
    driver's own check is a round trip on each use.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def sever(connection: Connection) -> None:
    """Ends a connection under whoever waits on it: they get an OperationalError at once, even if the server is half gone."""
    if connection.closed:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """A hard bound for what the server's own statement_timeout cannot bound: a server that does not answer at all."""
    handle = asyncio.get_running_loop().call_later(seconds, sever, connection)
    try:
        yield
    finally:
        handle.cancel()


async def check_health(pool: Connections, *, timeout: float = 2.0) -> None:
    """A real round trip. Raises Unavailable, DatabaseRefused; with the reason, so before whoever asks gives up after `timeout`."""
    with translate_errors():
        async with pool.connection(timeout=timeout * 0.75) as connection:
            with deadline(connection, timeout):
                await connection.execute("SELECT 1")
