"""`EmbeddedServices` for the tests, on other servers than the embedded ones: the methods that the fixtures use, and TLS to
Postgres.

The launcher itself starts NATS. The launcher's Postgres must be version 17 or newer and listens on a socket only. So this module
starts Postgres: any version, on 127.0.0.1, with TLS if the server was built with OpenSSL.
"""

import asyncio
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from adapters.embedded import Binary, EmbeddedServices, find_nats
from adapters.embedded.accounts import Account, choose_account, running_as_root
from tests.pace import within
from tests.ports import free_port
from tests.tls_kit import Authority

POSTGRES_VARIABLE = "TIDELOG_COMPAT_PAIR_POSTGRES"
NATS_VARIABLE = "TIDELOG_COMPAT_PAIR_NATS"
START_S = 30.0
MUTUAL = "mutual"
"""A user of every such Postgres with TLS. The user must show a certificate with this name, beside the password."""
PASSWORD = secrets.token_hex(8)

_HBA = f"""
local   all all                scram-sha-256
hostssl all {MUTUAL}   127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all all      127.0.0.1/32 scram-sha-256
host    all postgres 127.0.0.1/32 scram-sha-256
"""


class CompatServices:
    """Services on the Postgres and the NATS that the environment names."""

    def __init__(self, state_dir: Path, **_: object) -> None:
        self.postgres = CompatPostgres(Path(os.environ[POSTGRES_VARIABLE]))
        self._nats = EmbeddedServices(state_dir, want_postgres=False, nats_bin=Path(os.environ[NATS_VARIABLE]))

    async def start(self) -> None:
        try:
            await self.postgres.start()
            await self._nats.start()
        except BaseException:
            await self.postgres.stop()
            raise

    async def stop(self) -> None:
        await self._nats.stop()
        await self.postgres.stop()

    @property
    def database_url(self) -> str:
        return self.postgres.url("tidelog")

    @property
    def admin_database_url(self) -> str:
        return self.postgres.url("postgres")

    @property
    def nats_url(self) -> str:
        return self._nats.nats_url


def nats_of_the_pair(_: object = None) -> Binary:
    return find_nats(Path(os.environ[NATS_VARIABLE]))


class CompatPostgres:
    """A Postgres cluster in a temporary folder, without flushing to disk."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self._folder = Path(tempfile.mkdtemp(prefix="tidelog-compat-"))
        self._account: Account | None = choose_account(None, self._folder) if running_as_root() else None
        self._data = self._folder / "data"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.tls = False
        """Whether the server was built with OpenSSL."""
        self.authority = Authority(self._folder, client=MUTUAL)

    def url(self, user: str, *, tls: str | None = None) -> str:
        """`tls`: parameters of libpq that replace the parameters that check the server (none if the server has no TLS)."""
        host = f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self._port}/tidelog"
        if self.tls:
            return f"{host}?{tls if tls is not None else f'sslmode=verify-full&sslrootcert={quote(str(self.authority.ca))}'}"
        return host

    async def start(self) -> None:
        self._folder.chmod(0o711)
        await asyncio.to_thread(self._create)
        for attempt in range(5):
            self._port = free_port()
            if await self._launch():
                break
            assert attempt < 4, self._log()
        await self._fill()

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _create(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(PASSWORD + "\n")
        self._data.mkdir(mode=0o700)
        for path in (password_file, self._data, self.authority.server_key):
            self._give(path)
        flags = [
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--username=postgres",
            "--no-sync",
            f"--pwfile={password_file}",
        ]
        self._run("initdb", *flags, f"--pgdata={self._data}")
        library = self._run("postgres", "-D", str(self._data), "-C", "ssl_library")
        self.tls = library.strip() == "OpenSSL"
        hba = _HBA if self.tls else "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self._data / "pg_hba.conf").write_text(hba)

    async def _launch(self) -> bool:
        settings = {
            "listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": "", "fsync": "off",
            "full_page_writes": "off", "tidelog.throw_away": "on", "jit": "off", "timezone": "UTC",
        }  # fmt: skip
        if self.tls:
            authority = self.authority
            files = {"ssl_cert_file": authority.server_cert, "ssl_key_file": authority.server_key, "ssl_ca_file": authority.ca}
            settings |= {"ssl": "on", **{name: str(path) for name, path in files.items()}}
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  returns at once
                [self._binary, "-D", self._data, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._data,
                preexec_fn=_die_with_parent, **self._as_account(),
            )  # fmt: skip
        async with within(START_S):
            while self._process.poll() is None:
                try:
                    async with await self._connect("postgres"):
                        return True
                except psycopg.OperationalError:
                    await asyncio.sleep(0.05)
        if "Address already in use" in self._log():
            return False
        raise AssertionError(self._log())

    async def _fill(self) -> None:
        async with await self._connect("postgres") as connection:
            for user in ("tidelog", MUTUAL):
                await connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(user), Literal(PASSWORD)))
            await connection.execute("CREATE DATABASE tidelog OWNER tidelog")
            await connection.execute("GRANT tidelog TO mutual")

    async def _connect(self, database: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
        url = self.url("postgres").replace("/tidelog", f"/{database}", 1)
        return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._binary.with_name(program), *arguments],
            cwd=self._folder, capture_output=True, text=True, timeout=120, check=False, **self._as_account(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _as_account(self) -> dict[str, object]:
        account = self._account
        return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def _log(self) -> str:
        return (self._folder / "log").read_text()[-2_000:]


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG; SIGINT: a fast shutdown
