"""Starts runs over HTTP and waits for their results, many at once, in a process of its own.

`python -m benchmarks.run_load`: the first line of its input is a `Target` as JSON, each further line an `Order`. Each order is
answered with one line, an `Outcome`.

The process has aiohttp, which `make bench` puts into .venv-load. Where aiohttp is missing, httpx2 does the same at three to
six times the client's cost, so that the tests need nothing more than the environment.
"""

import asyncio
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from api.open_files import raise_open_files

DONE = "benchmark-done"
"""Stands in the result of every run that has completed, so that an answer needs no parsing."""
CONNECT_S, READ_S = 30.0, 90.0
LOOK_S = 0.25
BREATH_S = 0.05
"""Seconds after a refusal: a caller that is refused does not ask at once again."""
MORE_S = 120.0
"""Seconds after the end of the time for new runs in which runs under way must end."""
REFUSALS = (429, 503)
PACKAGES = Path(__file__).parent.parent / ".venv-load"

Ask = Callable[[str, str, bytes | None], Awaitable[tuple[int, bytes]]]
"""Takes method, URL and body; returns status and body. Raises OSError."""


@dataclass(frozen=True)
class Target:
    """`look`: the address of a run that had not ended when the start was answered, with `{}` for its id."""

    url: str
    headers: dict[str, str]
    look: str | None = None


@dataclass(frozen=True)
class Order:
    """`in_flight` callers, each with one run after the other: for some seconds, or until `count` runs were started.

    `rate`: at most so many starts a second, evenly spaced.
    """

    body: Any
    in_flight: int
    seconds: float | None = None
    count: int | None = None
    keep: bool = False
    """Whether the answers are wanted."""
    rate: float | None = None


@dataclass(frozen=True)
class Outcome:
    """`seconds`: from the first request to the last answer. `cpu`: the client's seconds of the processor.

    The times are those of completed runs.
    """

    completed: int
    refused: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu: float
    why: dict[str, int] = field(default_factory=dict)
    """What refusals and failures were, and how often."""
    answers: list[Any] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.completed / self.seconds


def quantile(ascending: list[float], share: float) -> float:
    """The value below which the share of all values lies. Not a number without values."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))] if ascending else float("nan")


class Caller:
    def __init__(self, ask: Ask, target: Target, order: Order) -> None:
        self._ask = ask
        self._target = target
        self._order = order
        self._body = json.dumps(order.body).encode()
        self.waits: list[float] = []
        self.why: Counter[str] = Counter()
        self.refused = self.failed = 0
        self.answers: list[Any] = []

    async def work(self, began: float, until: float, numbers: Iterator[int]) -> None:
        first = True  # a machine that is late by all of the seconds still has a run of each caller to tell of
        while (first or time.perf_counter() < until) and (number := next(numbers, None)) is not None:
            first = False
            if self._order.rate is not None:
                await asyncio.sleep(max(0.0, min(began + number / self._order.rate, until) - time.perf_counter()))
            await self._run()

    async def _run(self) -> None:
        began = time.perf_counter()
        try:
            status, body = await self._ask("POST", self._target.url, self._body)
            while status < 300 and DONE.encode() not in body and self._target.look and b'"status":"failed"' not in body:
                await asyncio.sleep(LOOK_S)
                status, body = await self._ask("GET", self._target.look.format(json.loads(body)["run_id"]), None)
        except (OSError, TimeoutError) as error:
            self.failed += 1
            self.why[str(error) or type(error).__name__] += 1
            return
        if status in REFUSALS:
            self.refused += 1
            self.why[f"{status} {body[:200].decode(errors='replace')}"] += 1
            await asyncio.sleep(BREATH_S)
        elif DONE.encode() in body:
            self.waits.append(time.perf_counter() - began)
            if self._order.keep:
                self.answers.append(json.loads(body))
        else:
            self.failed += 1
            self.why[f"{status} {body[:200].decode(errors='replace')}"] += 1


@asynccontextmanager
async def asking(headers: dict[str, str]) -> AsyncIterator[Ask]:
    """A client with any number of connections that are kept. Requests carry the headers."""
    if importlib.util.find_spec("aiohttp") is None:
        async with _asking_httpx2(headers) as ask:
            yield ask
        return
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def ask(method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
            try:
                async with session.request(method, url, data=body) as answer:
                    return answer.status, await answer.read()
            except aiohttp.ClientError as error:
                raise OSError(type(error).__name__) from error

        yield ask


@asynccontextmanager
async def _asking_httpx2(headers: dict[str, str]) -> AsyncIterator[Ask]:
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx2.Timeout(READ_S, connect=CONNECT_S)
    async with httpx2.AsyncClient(limits=limits, timeout=timeout, headers=headers, trust_env=False) as client:

        async def ask(method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
            try:
                answer = await client.request(method, url, content=body)
            except httpx2.HTTPError as error:
                raise OSError(type(error).__name__) from error
            return answer.status_code, answer.content

        yield ask


async def carry_out(ask: Ask, target: Target, order: Order) -> Outcome:
    began, cpu = time.perf_counter(), time.process_time()
    caller = Caller(ask, target, order)
    until = began + (MORE_S if order.seconds is None else order.seconds)
    numbers = itertools.count() if order.count is None else iter(range(order.count))
    working = [asyncio.create_task(caller.work(began, until, numbers)) for _ in range(order.in_flight)]
    _, late = await asyncio.wait(working, timeout=until - began + MORE_S)
    for task in late:
        task.cancel()
    ended = await asyncio.gather(*working, return_exceptions=True)
    if errors := [error for error in ended if isinstance(error, Exception)]:
        raise errors[0]
    caller.waits.sort()
    p50, p99 = (quantile(caller.waits, share) * 1e3 for share in (0.5, 0.99))
    why = dict(caller.why) | ({"not ended in time": len(late)} if late else {})
    took = time.perf_counter() - began
    failed = caller.failed + len(late)
    return Outcome(
        len(caller.waits), caller.refused, failed, took, p50, p99, time.process_time() - cpu, why, caller.answers
    )  # fmt: skip


async def serve(lines: Iterator[str]) -> None:
    target = Target(**json.loads(next(lines)))
    async with asking(target.headers) as ask:
        for line in lines:
            print(json.dumps(asdict(await carry_out(ask, target, Order(**json.loads(line))))), flush=True)


class Load:
    """The client's process."""

    def __init__(self, child: subprocess.Popen[str], target: Target) -> None:
        self._child = child
        self._send(asdict(target))

    @classmethod
    @contextmanager
    def started(cls, target: Target) -> Iterator["Load"]:
        if not PACKAGES.is_dir():
            print("The client is httpx2, several times as dear as aiohttp: rates and bursts are the client's (see `make bench`).")
        command = [sys.executable, "-m", "benchmarks.run_load"]
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(PACKAGES))))
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, "PYTHONPATH": path})
        try:
            yield cls(child, target)
        finally:
            try:
                child.communicate(timeout=10)  # closes the process's input, which ends the process
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()

    def order(self, order: Order) -> Outcome:
        self._send(asdict(order))
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended with status {self._child.wait()}")
        return Outcome(**json.loads(line))

    def _send(self, value: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(value) + "\n")
        self._child.stdin.flush()


if __name__ == "__main__":
    raise_open_files()
    uvloop.run(serve(iter(sys.stdin.readline, "")))
