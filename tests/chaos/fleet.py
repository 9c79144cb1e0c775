"""Processes of several machines: each a `tidelog serve` or a worker of its own, on one PostgreSQL and one NATS."""

import asyncio
import hashlib
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import httpx2

from adapters.embedded import EmbeddedServices
from tests.chaos.agents._witness import VARIABLE
from tests.chaos.releases import Release
from tests.chaos.server import COMMAND
from tests.kit import forked
from tests.pace import until
from tests.ports import free_port
from tidelog.http_client import HttpTransport

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
Process = asyncio.subprocess.Process | forked.Forked
WORKER = (sys.executable, "-P", "-m", "tidelog.worker")


class Machine:
    """One process that can be stopped, killed, paused and started again. Its output goes to a file that is kept over starts."""

    def __init__(self, name: str, folder: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.name = name
        self.output = folder / f"{name}.log"
        self.ready_file = folder / f"{name}.ready"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDELOG_")}
        self._environment = {**clean, "TIDELOG_LOG_FORMAT": "json", "TIDELOG_READY_FILE": str(self.ready_file), **environment}
        self._command = command
        self._process: Process | None = None
        self._starts = 0

    async def start(self) -> None:
        """Starts the process. Returns when the process's roles run."""
        self.ready_file.unlink(missing_ok=True)
        self._starts += 1
        with self.output.open("ab") as output:
            self._process = await self._begin(output)
        process = self._process

        async def ready() -> bool:
            assert process.returncode is None, f"{self.name} ended:\n{self.output.read_text()[-4000:]}"
            return self._ready()

        await until(ready, START_TIMEOUT_S)

    async def _begin(self, output: IO[bytes]) -> Process:
        """A process of this release is forked from one that has imported it. One of another release imports its own sources."""
        program, *arguments = self._command
        how = {str(COMMAND): forked.tidelog, sys.executable: forked.python}.get(program)
        if how is not None and forked.imports_the_same(self._environment):
            return await how(*arguments, env=self._environment, stdout=output, stderr=output)
        return await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )

    def _ready(self) -> bool:
        return self.ready_file.exists()

    async def stop(self) -> None:
        """Stops the process as an orchestrator does: SIGTERM, and time to end."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
            process = self._process

            async def over() -> bool:
                return process.returncode is not None

            await until(over, STOP_TIMEOUT_S)
            assert process.returncode == 0, f"{self.name}:\n{self.output.read_text()[-4000:]}"

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class WorkerMachine(Machine):
    def _ready(self) -> bool:
        return self.output.read_text().count("worker_registered") >= self._starts


class Fleet:
    """Machines with the api role, machines with the engine's roles, and a worker for each api; all on one database."""

    def __init__(
        self, services: EmbeddedServices, database_url: str, folder: Path, agents: Path, *, apis: int = 2, engines: int = 2
    ) -> None:
        self.key = f"tl_{secrets.token_urlsafe(32)}"
        self.witness = folder / "witness"
        self.servers = {
            "TIDELOG_DATABASE_URL": database_url,
            "TIDELOG_NATS_URL": services.nats_url,
            "TIDELOG_BOOTSTRAP_KEY_SHA256": hashlib.sha256(self.key.encode()).hexdigest(),
        }
        """The settings of all servers."""
        self._folder, self._agents = folder, agents
        ports = [free_port() for _ in range(apis)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [self.api(f"api-{number}", port) for number, port in enumerate(ports)]
        self.engines = [self.engine(f"engine-{number}") for number in range(engines)]
        self.workers = [self.worker(f"worker-{number}", url) for number, url in enumerate(self.urls)]

    def api(self, name: str, port: int, release: Release | None = None) -> Machine:
        """`release`: None for this one, whose relay works beside the writer of the api."""
        return self._server(name, "api,relay" if release is None else "api", release, {"TIDELOG_PORT": str(port)})

    def engine(self, name: str, release: Release | None = None) -> Machine:
        return self._server(name, "relay,projector,saga", release, {})

    def _server(self, name: str, roles: str, release: Release | None, environment: Mapping[str, str]) -> Machine:
        command, of_release = (release.command, release.environment) if release else ((str(COMMAND),), {})
        return Machine(name, self._folder, (*command, "serve", "--roles", roles), {**self.servers, **of_release, **environment})

    def worker(self, name: str, url: str, release: Release | None = None) -> WorkerMachine:
        command, of_release = (release.worker, release.environment) if release else (WORKER, {})
        environment = {"TIDELOG_API_KEY": self.key, VARIABLE: str(self.witness), "TIDELOG_URL": url, **of_release}
        return WorkerMachine(name, self._folder, (*command, "--agents", str(self._agents), "--log-format", "json"), environment)

    @property
    def machines(self) -> list[Machine]:
        return [*self.apis, *self.engines, *self.workers]

    async def __aenter__(self) -> "Fleet":
        try:
            await asyncio.gather(*(machine.start() for machine in [*self.apis, *self.engines]))
            await asyncio.gather(*(worker.start() for worker in self.workers))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for machine in self.machines:
            await machine.kill()


class Balancer(httpx2.AsyncBaseTransport):
    """A load balancer in front of the api processes.

    Requests go to the processes in turn, and to the next process if one does not answer.
    """

    def __init__(self, urls: list[str]) -> None:
        self._transports = [HttpTransport() for _ in urls]
        self._urls = [httpx2.URL(url) for url in urls]
        self._turn = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._turn += 1
        for attempt in range(len(self._urls)):
            place = (self._turn + attempt) % len(self._urls)
            request.url = request.url.copy_with(port=self._urls[place].port)
            try:
                return await self._transports[place].handle_async_request(request)
            except httpx2.ConnectError:
                if attempt == len(self._urls) - 1:
                    raise
        raise AssertionError("no server")

    async def aclose(self) -> None:
        for transport in self._transports:
            await transport.aclose()
