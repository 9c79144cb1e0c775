"""Connections to PostgreSQL, with limits and time-outs on everything. Here alone errors of the driver become domain errors."""

import asyncio
import contextlib
import re
import select
import socket
import traceback
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, Self
from uuid import UUID

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


Rights = Literal["app", "reader", "login"]
"""The role whose rights a connection has: see adapters/postgres/rights.py. `login`: those of the login, to migrate."""

# Where the roles own nothing, a dump was restored without owners: the rights are given again by the next migration.
MAY_TAKE = """
    SELECT r.rolname FROM access_rights AS a
    JOIN pg_roles AS r ON r.rolname = CASE %s WHEN 'app' THEN a.app WHEN 'reader' THEN a.reader END
    WHERE pg_has_role(session_user, r.oid, 'MEMBER')
      AND (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'checkpoint'::regclass) = a.app
"""
TAKE = "SELECT set_config('role', %s, false)"
READ_FOR = "SELECT set_config('tidelog.tenant', %s, false)"


class Connections(Protocol):
    """A source of connections: a pool, or a share of one."""

    def connection(self, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Raises psycopg.Error (PoolTimeout, TooManyRequests) when none comes in time (seconds)."""
        ...


CONNECT_TIMEOUT = 5
"""Seconds to reach the server and log in."""
STATEMENT_TIMEOUT = 30.0
"""Seconds that one statement may take, unless a caller of `open_pool` sets another bound."""
RECONNECT_FOR = 4.0
"""Seconds for which the pool tries to connect by itself, at growing intervals. After that a waiter makes the pool try at once.
With the pool's own five minutes an outage would last twice as long for Tidelog as for the database."""
GRACE = 2.0
"""Seconds that the server has after a statement's time-out to report it. A connection that stays silent is then given up."""

# First two characters of an SQLSTATE: the database is in trouble, not the statement. A later try may succeed.
# 08 connection, 25006 read-only (a demoted primary), 40 rolled back for others, 53 out of resources, 55P03 lock not available,
# 57 operator intervention (shutdown, crash, timeout), 58 system error.
_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "57", "58"})
_TRANSIENT_STATES = frozenset({"25006", "55P03"})

# Words of libpq and of the server about a connection that waiting will not mend. Of a connection that only ended they say "EOF" or
# "closed". They are no proof: a server in another language is tried again for ever, and its words stand in the warnings.
_REFUSAL = re.compile(
    r"certificate|private key|does not support SSL|SSL error: (?!unexpected eof)|sslmode|pg_hba\.conf"
    r"|(?:password|\w+) authentication failed|no password supplied"
    r"|(?:database|role) \".*\" (?:does not exist|is not permitted to log in)|permission denied for database|invalid port number"
)


class DatabaseRefused(Unavailable):
    """The database is there, but there is no way in: a certificate, no TLS, the password, no such database, an unusable URL.

    A person has to act. The connection is tried again, because the other side may be mended.
    """


def is_transient(error: BaseException) -> bool:
    """Whether the same statement may succeed later, perhaps on another connection."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # the driver speaks, not the server: lost connection, pool exhausted, closed
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return error.sqlstate[:2] in _TRANSIENT_CLASSES or error.sqlstate in _TRANSIENT_STATES or _is_of_a_recovery(error)
    return isinstance(error, OSError)  # and so TimeoutError, ConnectionError


def _is_of_a_recovery(error: psycopg.Error) -> bool:
    """Whether PostgreSQL answers readers while it recovers, and refuses its unlogged tables until the end of the recovery.

    The state (0A000) stands for many other refusals, too, and the words depend on the server's language. The place does not.
    """
    return isinstance(error, errors.FeatureNotSupported) and error.diag.source_function == "get_relation_info"


def domain_error(error: BaseException) -> TidelogError | None:
    """The domain error for an error of the driver. None for an error that only a defect of Tidelog explains."""
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
    """The line that says why a person has to act. None for every other error."""
    if not isinstance(error, psycopg.OperationalError) or (error.sqlstate or "28")[:2] != "28":
        return None
    return next((line.strip() for line in str(error).splitlines() if _REFUSAL.search(line)), None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Stands around every use of the database and turns errors into domain errors (Unavailable, PayloadTooLarge, InvalidCommand).

    An error of the driver without a counterpart passes as it is: it is a defect and must be seen.
    """
    try:
        yield
    except (psycopg.Error, OSError) as error:
        translated = domain_error(error)
        if translated is None:
            raise
        raise translated from error


def _conninfo(database_url: str, role: str, statement_timeout: float, options: dict[str, str]) -> str:
    """The URL with the settings that Tidelog insists on. Settings of the URL itself (sslmode, `options`) stay."""
    try:
        given = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError as error:
        told = re.sub('".*"', "…", str(error).strip())  # the driver quotes what it does not understand, which may be the password
        raise DatabaseRefused(f"no URL such as postgresql://user@host:5432/name: {told}") from None
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
        # A peer that vanished silently is noticed after 10 + 3 * 5 seconds on an idle connection, after 15 if it owes an answer.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    return make_conninfo(database_url, **defaults | given | {"options": f"{given.get('options') or ''} {ours}".strip()})


class _SingleConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection of which nothing is left on the server if opening it was cancelled."""

    reads_for: UUID | Literal["everybody", "unknown"] | None = "everybody"
    """The tenant whose rows the role `reader` sees; None: no tenant's. `everybody`: the connection has another role.
    `unknown`: it may be one or another."""

    @classmethod
    async def connect(cls, *arguments: Any, **options: Any) -> Self:
        """`rights`, one of the options: see `Rights`."""
        rights: Rights = options.pop("rights", "app")
        try:
            connection = await super().connect(*arguments, **options)
            try:
                await connection._take_role(rights)
            except BaseException:
                await connection.close()
                raise
            return connection
        except asyncio.CancelledError as cancelled:
            # The driver's frames hold the half-open connection, and the exception holds the frames. PostgreSQL would wait a minute
            # for the rest of the login, and a database cannot be dropped meanwhile.
            traceback.clear_frames(cancelled.__traceback__)
            raise

    async def _take_role(self, rights: Rights) -> None:
        """Takes a role if the roles are in force. Otherwise the connection has the rights of its login."""
        if rights == "login":
            return
        with contextlib.suppress(errors.UndefinedTable):  # a database that is not migrated to this release yet
            role = await (await self.execute(MAY_TAKE, [rights])).fetchone()
            if role is None:
                return
            await self.execute(TAKE, role)
            if rights == "reader":
                self.reads_for = None


async def read_for(connection: Connection, tenant_id: UUID | None) -> None:
    """Makes a reading connection show the rows of one tenant, and of no other; None: of no tenant. For others nothing changes.

    To be called outside of a transaction: its end would undo it. It is a round trip when the tenant is not the one of before.
    """
    if not isinstance(connection, _SingleConnection) or connection.reads_for in ("everybody", tenant_id):
        return
    connection.reads_for = "unknown"
    await connection.execute(READ_FOR, ["" if tenant_id is None else str(tenant_id)])
    connection.reads_for = tenant_id


async def connect(
    database_url: str,
    *,
    role: str,
    rights: Rights = "app",
    statement_timeout: float = STATEMENT_TIMEOUT,
    options: dict[str, str] | None = None,
) -> Connection:
    """Opens a single connection, in autocommit. `role` names the process in pg_stat_activity. Raises psycopg.Error, OSError."""
    conninfo = _conninfo(database_url, role, statement_timeout, options or {})
    return await _SingleConnection.connect(conninfo, rights=rights, autocommit=True)


async def open_pool(
    database_url: str,
    *,
    role: str,
    rights: Rights = "app",
    min_size: int = 1,
    max_size: int = 10,
    timeout: float = 5.0,
    max_waiting: int = 1_000,
    statement_timeout: float = STATEMENT_TIMEOUT,
) -> Pool:
    """A pool of autocommit connections. Returns at once and connects in the background, so that a process starts without a
    database.

    `timeout`: seconds to wait for a connection. `max_waiting`: number of callers that may wait; the next gets Unavailable at once.
    """
    trouble = _Trouble()
    pool = _TellingPool(
        _conninfo(database_url, role, statement_timeout, {}),
        connection_class=_connection_class(trouble, statement_timeout + GRACE),
        kwargs={"autocommit": True, "rights": rights},
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
    """Why the last try to connect failed. None after a try that succeeded."""

    def __init__(self) -> None:
        self.error: psycopg.Error | OSError | None = None


def _connection_class(trouble: _Trouble, answer_within: float) -> type[Connection]:
    """Connections that report trouble, and that wait for the server at most `answer_within` seconds."""

    class PoolConnection(_SingleConnection):
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
    """Ends the driver's generator that a cancelled wait left behind. A generator that has ended is left alone.

    The driver leaves the generator to the garbage collector, which may run while somebody else has the connection. The generator
    that leaves a pipeline cannot be ended, because it asks the server for outstanding results. Its connection is of no use any
    more.
    """
    try:
        gen.close()
    except Exception:  # noqa: BLE001  # the generator wants to go on, or finds the connection closed
        connection.pgconn.finish()
        with contextlib.suppress(Exception):
            gen.close()


class _TellingPool(AsyncConnectionPool[Connection]):
    """Connects in the background: a waiter's time-out would not say why there is no connection."""

    trouble: _Trouble

    async def _get_ready_connection(self, timeout: float | None) -> Connection | None:
        """Takes the connection that was used last: its server process has all that it needs at hand, and the others sleep.

        The pool itself takes the connection that was idle for longest, so a process with little to do wakes one after the other.
        """
        if self._pool:
            self._pool.appendleft(self._pool.pop())
        return await super()._get_ready_connection(timeout)

    async def reconnect_failed(self) -> None:
        """Makes the pool try again. By itself it would only do so for the next caller, and present waiters would wait in vain."""
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
    """Makes the pool discard a connection that comes back in pipeline mode. That happens when its user was cancelled while leaving
    the pipeline.

    Statements of the next user would wait on that connection for a commit that never comes, with all their locks.
    """
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise psycopg.InterfaceError("returned in pipeline mode")


async def _check_open(connection: Connection) -> None:
    """Refuses a connection that the server closed while it lay in the pool (a restart, an administrator).

    An idle connection has nothing to read; a closed connection has the end of file. Asking the kernel costs microseconds; the
    driver's own check is a round trip on each use.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def sever(connection: Connection) -> None:
    """Ends a connection while others wait on it. They get an OperationalError at once, even if the server is half gone."""
    if connection.closed:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """A hard bound for a server that does not answer at all: its own statement_timeout cannot help there."""
    handle = asyncio.get_running_loop().call_later(seconds, sever, connection)
    try:
        yield
    finally:
        handle.cancel()


async def check_health(pool: Connections, *, timeout: float = 2.0) -> None:
    """Makes a round trip. Raises Unavailable or DatabaseRefused with the reason, before a caller gives up after `timeout`."""
    with translate_errors():
        async with pool.connection(timeout=timeout * 0.75) as connection:
            with deadline(connection, timeout):
                await connection.execute("SELECT 1")
