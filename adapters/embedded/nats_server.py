"""NATS with JetStream as a direct child: only on loopback, with a lasting port. The server is ready when JetStream answers."""

import asyncio
import os
import re
import signal
import time
from typing import Any

import nats
import nats.errors
import structlog

from adapters.embedded import nats_accounts
from adapters.embedded.binaries import Binary
from adapters.embedded.errors import EmbeddedError, StartFailed
from adapters.embedded.files import write_private
from adapters.embedded.logs import ServerLog
from adapters.embedded.nats_rights import (
    INBOX,
    OPERATOR_USER,
    SERVER_ACCOUNT,
    SERVER_USER,
    WORKER_USER,
    Subscriber,
    accounts,
    subscribers_in,
    text_of,
)
from adapters.embedded.processes import Child, spawn
from adapters.embedded.state import StateDirectory

log = structlog.get_logger(__name__)

_HOST = "127.0.0.1"
_PASSWORDS = {SERVER_USER: "nats_server", OPERATOR_USER: "nats_operator", WORKER_USER: "nats_worker"}
"""The names of the passwords in secrets.json, by user."""
_ANY_PORT = -1
_MEMORY_STORE_LIMIT_BYTES = 256 * 1024 * 1024
_RETRY_S = 5.0
_STOP_STEPS = ((signal.SIGINT, 10.0),)


class NatsServer:
    def __init__(
        self, state: StateDirectory, binary: Binary, log_file: ServerLog, *, log_id: str | None, start_timeout_s: float
    ) -> None:
        """`log_id`: the log whose subjects the server's user may use; see nats_rights.py. Changes take effect at the next start."""
        self.binary = binary
        self.log_id = log_id
        self.child: Child | None = None
        self.port: int | None = None
        self._state = state
        self._start_timeout_s = start_timeout_s
        self._store = state.home / "nats"
        self._ports_dir = state.home / "run"
        self._config = state.home / "nats.conf"
        self.log_file = log_file

    @property
    def server_url(self) -> str:
        return self._url(SERVER_USER, "nats_server")

    def describe(self) -> dict[str, object]:
        return {"host": _HOST, "port": self.port, "store": str(self._store), "log": str(self.log_file.path)}

    async def start(self) -> None:
        """Starts the server and waits until JetStream answers. Raises EmbeddedError.

        The server uses its last port again, so that clients reconnect. Without a last port, or if another process has taken it, the
        system chooses a port: the server itself binds port 0 and reports the port, so no process can take the port in between.
        """
        self._adopt_streams()
        recalled = self._state.recall("nats_port")
        port = recalled if isinstance(recalled, int) and 0 < recalled < 65536 else _ANY_PORT
        # Clients wait for a server that ran a moment ago, so its port is tried for some time.
        deadline = time.monotonic() + (_RETRY_S if self.port is not None else 0)
        while (fault := await self._launch(port)) is not None:
            if port == _ANY_PORT or "address already in use" not in fault:
                raise StartFailed(f"NATS did not start: {fault} (log: {self.log_file.path})")
            if time.monotonic() > deadline:
                log.warning("nats_port_taken", port=port)
                port = _ANY_PORT
            else:
                await asyncio.sleep(0.2)
        if self.port != self._state.recall("nats_port"):
            self._state.remember(nats_port=self.port)
        await self._jetstream_answers()

    def _adopt_streams(self) -> None:
        """Streams of a release without accounts stood in the account of all. They are of the server."""
        old, new = (self._store / "jetstream" / name for name in ("$G", SERVER_ACCOUNT))
        if old.is_dir() and not new.exists() and not old.parent.is_symlink():
            old.rename(new)
            log.info("nats_streams_adopted", account=SERVER_ACCOUNT)

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(_STOP_STEPS)

    def last_words(self) -> str:
        return _last_words(self.log_file.newest())

    async def _launch(self, port: int) -> str | None:
        """Starts the server and reads its port. Returns None if the server listens, and its last log line if it ended."""
        for stale in self._ports_dir.glob("*.ports"):
            stale.unlink()
        with nats_accounts.changing(self._config):
            write_private(self._config, text_of(self._configuration(port)), self._state.server_owner, sync=False)
        offset, output = self.log_file.open()
        try:
            self.child = child = spawn(
                [self.binary.path, "-c", self._config],
                account=self._state.account,
                cwd=self._store,
                output=output,
                keep_open=(self._state.lock_fd,),
                death_signal=signal.SIGTERM,
            )
        finally:
            os.close(output)
        deadline = time.monotonic() + self._start_timeout_s
        while (found := self._told_port(child.pid)) is None:
            if (code := child.returncode) is not None:
                return _last_words(self.log_file.text(offset)) or f"it ended with code {code}"
            if time.monotonic() > deadline:
                raise StartFailed(f"NATS did not listen after {self._start_timeout_s:.0f} s (log: {self.log_file.path})")
            await asyncio.sleep(0.005)
        self.port = found
        return None

    def _told_port(self, pid: int) -> int | None:
        """The port in the ports file of this process. A killed server leaves its ports file behind."""
        for path in self._ports_dir.glob(f"*_{pid}.ports"):
            match = re.search(r"nats://[^\"]*:(\d+)", path.read_text(encoding="utf-8"))
            if match:
                return int(match.group(1))
        return None

    async def _jetstream_answers(self) -> None:
        """Waits until JetStream answers. An open port is not enough: JetStream may still be recovering its store."""
        deadline = time.monotonic() + self._start_timeout_s
        reason = ""
        while time.monotonic() < deadline:
            if self.child is not None and self.child.returncode is not None:
                raise StartFailed(f"NATS ended while starting: {self.last_words()} (log: {self.log_file.path})")
            try:
                async with asyncio.timeout(5):
                    client = await nats.connect(
                        self.server_url,
                        allow_reconnect=False,
                        connect_timeout=2,
                        error_cb=_told_by_the_call,
                        inbox_prefix=INBOX,
                    )
                    try:
                        await client.jetstream(timeout=2).account_info()
                    finally:
                        await client.close()
                return
            except (nats.errors.Error, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                await asyncio.sleep(0.02)
        raise StartFailed(f"JetStream did not answer: {reason} (log: {self.log_file.path})")

    def _configuration(self, port: int) -> dict[str, Any]:
        """The server's configuration as JSON, which is a subset of its configuration language."""
        secrets = self._state.secrets
        passwords = {name: secrets[secret] for name, secret in _PASSWORDS.items()}
        return {
            "server_name": "tidelog",
            "host": _HOST,
            "port": port,
            "ports_file_dir": str(self._ports_dir),
            "jetstream": {"store_dir": str(self._store), "max_memory_store": _MEMORY_STORE_LIMIT_BYTES},
            "accounts": accounts(self.log_id, passwords, self._subscribers()),
        }

    def _subscribers(self) -> list[Subscriber]:
        """The subscribers of the last start, and those that were added since then (nats_accounts.py)."""
        try:
            return subscribers_in(nats_accounts.read(self._config))
        except EmbeddedError as error:
            log.warning("nats_subscribers_lost", error=str(error))
            return []

    def _url(self, user: str, secret: str) -> str:
        return f"nats://{user}:{self._state.secrets[secret]}@{_HOST}:{self.port}"


async def _told_by_the_call(error: Exception) -> None:
    """Logs an error that the client also raises. The client's default callback would print a traceback for each try."""
    log.debug("nats_not_ready", error=str(error))


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
    chosen = telling or lines
    return re.sub(r"^\[\d+\] \S+ \S+ ", "", chosen[-1]) if chosen else ""
