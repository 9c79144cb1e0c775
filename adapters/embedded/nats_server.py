"""NATS with JetStream as a direct child: only on loopback, with a lasting port. The server is ready when JetStream answers."""

import asyncio
import json
import os
import re
import signal
import time
from typing import Any

import nats
import nats.errors
import structlog

from adapters.embedded.binaries import Binary
from adapters.embedded.errors import StartFailed
from adapters.embedded.files import write_private
from adapters.embedded.logs import ServerLog
from adapters.embedded.processes import Child, spawn
from adapters.embedded.state import StateDirectory

log = structlog.get_logger(__name__)

SERVER_USER = "tidelog"
WORKER_USER = "worker"
"""The inbox prefix of workers' clients. Workers may subscribe to no other subjects."""

_HOST = "127.0.0.1"
_ANY_PORT = -1
_MEMORY_STORE_LIMIT_BYTES = 256 * 1024 * 1024
_RETRY_S = 5.0
_STOP_STEPS = ((signal.SIGINT, 10.0),)


def worker_permissions(log_id: str | None) -> dict[str, Any]:
    """The NATS permissions of workers of 0.1.0, for one minor release: to keep and acknowledge work that they had before.

    Workers of later releases have no account. `log_id`: None if the log is not known yet. NATS has no wildcard for a part of a
    stream's name.
    """
    stream = "*" if log_id is None else f"TIDELOG_WORK_{log_id}"
    return {"publish": {"allow": [f"$JS.ACK.{stream}.>"]}, "subscribe": {"deny": [">"]}}


class NatsServer:
    def __init__(
        self, state: StateDirectory, binary: Binary, log_file: ServerLog, *, log_id: str | None, start_timeout_s: float
    ) -> None:
        """`log_id`: the log whose work workers may acknowledge; see `worker_permissions`. Changes take effect at the next start."""
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

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(_STOP_STEPS)

    def last_words(self) -> str:
        return _last_words(self.log_file.newest())

    async def _launch(self, port: int) -> str | None:
        """Starts the server and reads its port. Returns None if the server listens, and its last log line if it ended."""
        for stale in self._ports_dir.glob("*.ports"):
            stale.unlink()
        config = json.dumps(self._configuration(port), indent=1, ensure_ascii=False)
        write_private(self._config, config, self._state.server_owner, sync=False)
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
                        self.server_url, allow_reconnect=False, connect_timeout=2, error_cb=_told_by_the_call
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
        return {
            "server_name": "tidelog",
            "host": _HOST,
            "port": port,
            "ports_file_dir": str(self._ports_dir),
            "jetstream": {"store_dir": str(self._store), "max_memory_store": _MEMORY_STORE_LIMIT_BYTES},
            "authorization": {
                "users": [
                    {"user": SERVER_USER, "password": self._state.secrets["nats_server"]},
                    {
                        "user": WORKER_USER,
                        "password": self._state.secrets["nats_worker"],
                        "permissions": worker_permissions(self.log_id),
                    },
                ]
            },
        }

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
