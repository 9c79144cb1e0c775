"""PostgreSQL as a direct child: an atomically created cluster, a private unix socket, readiness as the server reports it."""

import asyncio
import os
import re
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
import structlog
from psycopg import sql

from adapters.embedded.accounts import Account
from adapters.embedded.binaries import Binary
from adapters.embedded.errors import DataDirectoryBusy, StartFailed
from adapters.embedded.files import make_private_directory, remove_tree, sync_directory, write_private
from adapters.embedded.logs import ServerLog
from adapters.embedded.processes import Child, ProcessIdentity, spawn
from adapters.embedded.sockets import PORT, choose_socket_dir
from adapters.embedded.state import StateDirectory

log = structlog.get_logger(__name__)

ADMIN_ROLE = "postgres"
APP_ROLE = "tidelog"
DATABASE = "tidelog"

# For a machine that also runs all other processes: small memory, and WAL settings for rare checkpoints.
SETTINGS: Mapping[str, str] = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "jit": "off",
    "wal_buffers": "16MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "10min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "cluster_name": "tidelog",
}
# The roles that the database's rights are given to, and what the application's login is in them: see adapters/postgres/rights.py.
MAKE_ROLES = f"""
DO $$
DECLARE
    kind text;
    role text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['owner', 'log', 'app', 'reader'] LOOP
        role := '{APP_ROLE}_' || kind;
        IF to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXECUTE format('GRANT %I TO {APP_ROLE} WITH INHERIT %s, SET TRUE', role, (kind <> 'reader')::text);
        END IF;
    END LOOP;
END
$$
"""
# Without tidelog.throw_away the log refuses appends: see adapters/postgres/durability.py.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "tidelog.throw_away": "on"}
_INITDB_FLAGS = (
    # Pinned, because initdb would take them from the environment, and indexes would sort differently on other machines.
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--auth=scram-sha-256",
    f"--username={ADMIN_ROLE}",
    "--no-instructions",
)
_INITDB_TIMEOUT_S = 120.0
_RETRY_S = 5.0
_STOP_STEPS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))
# Faults that a killed server leaves for an instant: its memory segment, or a lock file with a reused pid.
_PASSING_FAULTS = ("pre-existing shared memory block", "lock file")


class PostgresServer:
    def __init__(
        self,
        state: StateDirectory,
        binary: Binary,
        log_file: ServerLog,
        *,
        durable: bool,
        settings: Mapping[str, str],
        start_timeout_s: float,
    ) -> None:
        self.binary = binary
        self.child: Child | None = None
        self._state = state
        self._owner: Account | None = state.server_owner
        self._data = state.postgres_data
        self._settings = {**SETTINGS, **settings, **({} if durable else _NOT_DURABLE)}
        self._durable = durable
        self._start_timeout_s = start_timeout_s
        self.log_file = log_file
        self._socket_dir = state.home / "run"

    @property
    def app_url(self) -> str:
        return self._url(APP_ROLE, "postgres_app", DATABASE)

    @property
    def admin_url(self) -> str:
        return self._url(ADMIN_ROLE, "postgres_admin", DATABASE)

    def describe(self) -> dict[str, object]:
        return {
            "socket": str(self._socket_dir / f".s.PGSQL.{PORT}"),
            "data": str(self._data),
            "log": str(self.log_file.path),
            "durable": self._durable,
        }

    async def start(self) -> None:
        """Starts the server on new or existing data and waits until it accepts connections. Raises EmbeddedError."""
        self._remove_unfinished_clusters()
        if not (self._data / "PG_VERSION").exists():
            await self._create_cluster()
        self._socket_dir = choose_socket_dir(self._state, self._socket_dir)
        deadline = time.monotonic() + _RETRY_S
        while True:
            self._clear_stale_files()
            fault = await self._launch()
            if fault is None:
                break
            if time.monotonic() > deadline or not any(passing in fault for passing in _PASSING_FAULTS):
                raise StartFailed(f"PostgreSQL did not start: {fault} (log: {self.log_file.path})")
            await asyncio.sleep(0.1)
        await self._ensure_database()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(_STOP_STEPS)

    def last_words(self) -> str:
        return _last_words(self.log_file.newest())

    async def _create_cluster(self) -> None:
        """Runs initdb beside the place of the data, then renames: an incomplete cluster is never taken for a complete one."""
        make_private_directory(self._data.parent, self._owner)
        name = secrets.token_hex(4)
        draft, password_file = (self._data.with_name(f"initdb-{name}{end}") for end in ("", ".password"))
        write_private(password_file, self._state.secrets["postgres_admin"] + "\n", self._owner, sync=False)
        offset, output = self.log_file.open()
        try:
            flags = [*_INITDB_FLAGS, f"--pgdata={draft}", f"--pwfile={password_file}"]
            child = spawn(
                [self.binary.path.with_name("initdb"), *flags, *(() if self._durable else ("--no-sync",))],
                account=self._state.account,
                cwd=self._data.parent,
                output=output,
                keep_open=(self._state.lock_fd,),
                death_signal=signal.SIGTERM,
            )
            try:
                async with asyncio.timeout(_INITDB_TIMEOUT_S):
                    code = await child.exited()
            except TimeoutError:
                raise StartFailed(f"initdb took longer than {_INITDB_TIMEOUT_S:.0f} s (log: {self.log_file.path})") from None
            finally:
                child.kill()
        finally:
            os.close(output)
            password_file.unlink(missing_ok=True)
        if code != 0:
            raise StartFailed(f"initdb failed: {_last_words(self.log_file.text(offset))} (log: {self.log_file.path})")
        draft.rename(self._data)
        if self._durable:
            sync_directory(self._data.parent)

    def _remove_unfinished_clusters(self) -> None:
        for leftover in self._data.parent.glob("initdb-*"):
            remove_tree(leftover)

    def _clear_stale_files(self) -> None:
        """Removes stale files that would prevent the start although no process uses the data. The caller holds the lock."""
        pid_file = self._data / "postmaster.pid"
        try:
            pid = abs(int(pid_file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]))
        except (FileNotFoundError, ValueError):
            pid = 0
        if pid and _serves(pid, self._data):
            raise DataDirectoryBusy(
                f"a PostgreSQL server that Tidelog did not start (process {pid}) uses {self._data}: stop it first", pid
            )
        if pid and _exists(pid):
            # A zombie, or another program with a reused pid: PostgreSQL would take it for a postmaster and refuse to start.
            log.warning("stale_pid_file_removed", path=str(pid_file), pid=pid)
            pid_file.unlink(missing_ok=True)
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (self._socket_dir / name).unlink(missing_ok=True)

    async def _launch(self) -> str | None:
        """Starts the postmaster and waits for its "ready". Returns None if it is ready, and its last log line if it ended."""
        offset, output = self.log_file.open()
        settings = {
            **self._settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": '"' + str(self._socket_dir).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
        }
        try:
            self.child = child = spawn(
                [self.binary.path, "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())],
                account=self._state.account,
                cwd=self._data.parent,
                output=output,
                keep_open=(self._state.lock_fd,),
                death_signal=signal.SIGINT,
            )
        finally:
            os.close(output)
        deadline = time.monotonic() + self._start_timeout_s
        tell_at = time.monotonic() + 5
        while not self._says_ready(child.pid):
            if (code := child.returncode) is not None:
                return _last_words(self.log_file.text(offset)) or f"it ended with code {code}"
            if time.monotonic() > deadline:
                raise StartFailed(f"PostgreSQL was not ready after {self._start_timeout_s:.0f} s (log: {self.log_file.path})")
            if time.monotonic() > tell_at:
                tell_at += 5
                log.info("waiting_for_postgres", last_words=_last_words(self.log_file.text(offset)))
            await asyncio.sleep(0.005)
        return None

    def _says_ready(self, pid: int) -> bool:
        """Whether postmaster.pid says "ready", as pg_ctl checks it: line 1 is the pid, line 8 the state.

        Early attempts to connect would fill the log.
        """
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    async def _ensure_database(self) -> None:
        """Creates the role and the database if they are missing. After a crash between the two, the next start completes them."""
        try:
            async with asyncio.timeout(30):
                connection = await psycopg.AsyncConnection.connect(
                    self._url(ADMIN_ROLE, "postgres_admin", "postgres"), autocommit=True, connect_timeout=10
                )
                async with connection:
                    await self._create_missing(connection)
        except (psycopg.Error, TimeoutError) as error:
            raise StartFailed(f"PostgreSQL started but refuses its administrator: {error} (log: {self.log_file.path})") from error

    async def _create_missing(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        cursor = await connection.execute(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s), EXISTS (SELECT FROM pg_database WHERE datname = %s)",
            (APP_ROLE, DATABASE),
        )
        role_exists, database_exists = await cursor.fetchone() or (False, False)
        if not role_exists:
            if connection.info.server_version >= 160_000:
                # The passwords are 192 random bits. Iterations are for those that can be guessed, and every connection pays.
                await connection.execute("SET scram_iterations = 1")
            app, admin = (sql.Literal(self._state.secrets[name]) for name in ("postgres_app", "postgres_admin"))
            await connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(APP_ROLE), app))
            await connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ADMIN_ROLE), admin))
        await connection.execute(MAKE_ROLES)
        if not database_exists:
            await connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(APP_ROLE))
            )

    def _url(self, role: str, secret: str, database: str) -> str:
        host = quote(str(self._socket_dir), safe="")
        return f"postgresql://{role}:{self._state.secrets[secret]}@/{database}?host={host}&port={PORT}"


def _exists(pid: int) -> bool:
    """Whether PostgreSQL would see a process with this pid: a zombie or another account's process counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _serves(pid: int, data: Path) -> bool:
    """Whether `pid` is a live postmaster of this data. On Linux a postmaster's working directory is its data directory."""
    if ProcessIdentity.of(pid) is None:
        return False
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
    except FileNotFoundError:
        # Without /proc it is unknown. This process holds the lock, so only a person could have started a postmaster.
        return False
    except PermissionError:
        return False


def _last_words(text: str) -> str:
    """The line of a server log that says why it ended."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\b(FATAL|PANIC|error|ERROR)\b", line)]
    chosen = telling or lines
    return re.sub(r"^\d{4}-\S+ \S+ \S+ \[\d+\] ", "", chosen[-1]) if chosen else ""
