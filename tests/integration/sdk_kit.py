"""For tests of the SDK with the real server: a process with all roles on real Postgres and NATS, and workers."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from nats.js import JetStreamContext

from adapters.nats.names import work_subjects
from tests.integration.system_kit import eventually, nats_client_of, work_stream_of
from tests.kit import forked
from tests.kit.forked import Forked
from tests.pace import ANSWER_S, in_time, within
from tests.ports import free_port
from tests.silence import kernel_calls
from tidelog import Client
from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.models import Event, Run
from tidelog.worker import Worker

T = TypeVar("T")

KEY = "tl_test_key_of_the_sdk_tests"
SERVE = """
from api.roles import run
from api.settings import ROLES, load_settings
run(load_settings(), set(ROLES))
"""


async def until(condition: Callable[[], T], timeout_s: float = 20) -> T:
    """Returns the first truthy value of a condition."""
    async with within(timeout_s):
        while True:
            if value := condition():
                return value
            await asyncio.sleep(0.02)


class Server:
    """A process with all roles. The process keeps its port when it is killed and started again."""

    def __init__(self, database_url: str, nats_url: str, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "server.log"
        self._shown = 0
        self._process: Forked | None = None
        self._environment = {
            **os.environ,
            "TIDELOG_DATABASE_URL": database_url,
            "TIDELOG_NATS_URL": nats_url,
            "TIDELOG_PORT": str(port),
            "TIDELOG_LOG_FORMAT": "console",
            "TIDELOG_BOOTSTRAP_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
        }

    async def start(self) -> None:
        """Returns when the server accepts the key."""
        with self._log.open("ab") as log:
            process = await forked.python("-c", SERVE, env=self._environment, stdout=log, stderr=log)
        self._process = process
        async with Client(self.url, KEY, patience_s=0) as client:

            async def answers() -> bool:
                assert process.returncode is None, self._log.read_text()[-4000:]
                try:
                    await client.agents()
                except (TidelogConnectionError, TidelogAPIError):
                    return False
                return True

            await eventually(answers, "the server", 30)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, timeout_s: float = 60) -> int:
        """Waits until the process has ended by itself. Returns the exit code."""
        assert self._process is not None
        async with within(timeout_s):
            return await self._process.wait()

    async def stop(self) -> None:
        """Ends the process as an operator does, and prints its log. pytest shows the log if the test failed."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await in_time(self._process.wait(), 15)
            await self.kill()
        print(self.new_log())

    def new_log(self) -> str:
        """The end of the log lines since the last call."""
        log = self._log.read_text() if self._log.exists() else ""
        new, self._shown = log[self._shown :], len(log)
        return new[-8000:]


@contextlib.asynccontextmanager
async def serving(database_url: str, nats_url: str, folder: Path) -> AsyncIterator[Server]:
    server = Server(database_url, nats_url, folder)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def running(url: str, *parts: Any, key: str = KEY, **options: Any) -> AsyncIterator[Worker]:
    """Makes a worker in this process for these agents and tools."""
    worker = Worker(
        url=url,
        api_key=key,
        agents=[part for part in parts if isinstance(part, type)],
        tools=[part for part in parts if not isinstance(part, type)],
        **options,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        await in_time(worker.registered.wait(), 15)
        yield worker
    finally:
        stop.set()
        await in_time(task, 20)


@contextlib.asynccontextmanager
async def worker_process(url: str, folder: Path, *arguments: str, key: str = KEY) -> AsyncIterator[Forked]:
    """Runs a worker process for the agents of a folder. The worker is registered when the block begins."""
    log = folder / f"worker-{uuid4()}.log"
    with log.open("wb") as output:
        process = await forked.python(
            *("-m", "tidelog.worker", "--log-format", "json"),
            *("--agents", str(folder), "--workspace", str(folder), *arguments),
            env={**os.environ, "TIDELOG_URL": url, "TIDELOG_API_KEY": key, "PYTHONFAULTHANDLER": "1"},
            stderr=output,
        )

    def registered() -> bool:
        assert process.returncode is None, log.read_text()
        return "worker_registered" in log.read_text()

    try:
        await until(registered)
        yield process
    except asyncio.CancelledError:
        raise
    except BaseException:
        print("the worker:", process.returncode, *kernel_calls(process.pid), sep="\n")
        process.send_signal(signal.SIGABRT)  # the stack of each thread goes to the log
        await process.wait()
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        print(log.read_text()[-8000:])


def log_lines(folder: Path, event: str) -> list[dict[str, Any]]:
    """The lines of this event in the logs of the worker processes of the folder."""
    lines = [line for log in folder.glob("worker-*.log") for line in log.read_text().splitlines() if line.startswith("{")]
    return [fields for line in lines if (fields := json.loads(line))["event"] == event]


async def outcome(client: Client, *, timeout_s: float = 20, **start: Any) -> Run:
    """Starts a run and waits for its end."""
    started = await client.start_run(**start)
    return await end_of(client, started.run_id, timeout_s)


async def end_of(client: Client, run_id: UUID, timeout_s: float = 20) -> Run:
    return await in_time(client.wait(run_id, timeout=600), timeout_s)


async def event_of(client: Client, run_id: UUID, type: str, **data: Any) -> Event:
    """Waits for the first event of this type whose data have these values."""
    async with within(30):
        async for event in client.events(run_id):
            if event.type == type and data.items() <= event.data.items():
                return event
    raise AssertionError(f"the run ended without {type} {data}")


async def events_of(client: Client, run_id: UUID, *types: str) -> list[Event]:
    """The events of these types that are in the log now."""
    return [event async for event in client.events(run_id, follow=False) if event.type in types]


async def queued(jetstream: JetStreamContext, agent: str) -> int:
    """The number of messages for an agent on the queue: waiting messages and unacknowledged ones."""
    stream = await work_stream_of(jetstream)
    info = await jetstream.stream_info(stream, subjects_filter=f"{work_subjects('*')}.agent.*.{agent}.>")
    return sum((info.state.subjects or {}).values())


@contextlib.asynccontextmanager
async def administering(nats_url: str) -> AsyncIterator[JetStreamContext]:
    """JetStream with the rights of the server."""
    connection = await nats_client_of(nats_url)
    try:
        yield connection.jetstream(timeout=ANSWER_S)
    finally:
        await connection.close()
