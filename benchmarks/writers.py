"""Callers that append and wait for their answers, in this process or in several processes that start at the same moment.

A process of `Writers` is `python -m benchmarks.writers DATABASE_URL CALLERS`: it waits for lines `START SECONDS` (on the machine's
monotonic clock) and answers each with one JSON object.
"""

import asyncio
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from uuid import UUID

import uvloop

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.pool import open_pool
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command

STATE = json.dumps({"text": "x" * 285}).encode()
METADATA = json.dumps({"actor": "key:benchmark", "correlation_id": "0" * 36, "causation_id": "0" * 36, "command_id": "0" * 36})

_numbers = itertools.count(random.getrandbits(70))


def new_id() -> UUID:
    """Ids that ascend with time in all processes, like UUIDv7.

    They are cheaper to make, because the store is measured and not the ids.
    """
    return UUID(int=(time.time_ns() // 1_000_000 << 80) + next(_numbers))


TENANT = new_id()


@dataclass(frozen=True, slots=True)
class Round:
    """Events per second, the seconds for which callers waited, and the CPU seconds of their processes per 1,000 events."""

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0

    @classmethod
    def of(cls, waits: list[float], events: int, seconds: float, cpu: float = 0.0) -> "Round":
        waits.sort()
        return cls(events / seconds, waits[len(waits) // 2], waits[len(waits) * 99 // 100], cpu / events * 1_000)


def one_event() -> AppendRequest:
    """The request for an append of one event to a new stream."""
    stream_id = new_id()
    stream = StreamAppend(stream_id, stream_id, 0, (NewEvent("thing.happened", 1, STATE),))
    return one_command(TENANT, new_id(), (stream,), METADATA)


async def store_round(store: PostgresEventStore, callers: int, seconds: float) -> Round:
    waits: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()

    async def caller() -> None:
        while time.perf_counter() < started + seconds:
            request = one_event()
            before = time.perf_counter()
            await store.append(request)
            waits.append(time.perf_counter() - before)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return Round.of(waits, len(waits), time.perf_counter() - started, time.process_time() - cpu)


class Writers:
    """Several processes, each with an event store and callers of its own."""

    def __init__(self, children: list[subprocess.Popen[str]]) -> None:
        self._children = children

    @classmethod
    @contextmanager
    def started(cls, database_url: str, *, processes: int, callers: int) -> Iterator["Writers"]:
        """`callers` in each process."""
        command = [sys.executable, "-m", "benchmarks.writers", database_url, str(callers)]
        pipe = subprocess.PIPE
        children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)]
        try:
            yield cls(children)
        finally:
            for child in children:
                try:
                    child.communicate(timeout=10)  # closes the process's input, which ends the process
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.communicate()

    def round(self, seconds: float) -> Round:
        """Runs all processes at once. The rates are summed, and the waits of the slowest process count."""
        start = time.perf_counter() + 0.05
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(f"{start} {seconds}\n")
            child.stdin.flush()
        rounds = [self._answer(child) for child in self._children]
        rate = sum(one.rate for one in rounds)
        cpu = sum(one.cpu * one.rate for one in rounds) / rate
        return Round(rate, max(one.p50 for one in rounds), max(one.p99 for one in rounds), cpu)

    @staticmethod
    def _answer(child: subprocess.Popen[str]) -> Round:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"a writer ended with status {child.wait()}")
        return Round(**json.loads(line))


async def write(database_url: str, callers: int) -> None:
    pool = await open_pool(database_url, role="benchmark", max_size=1)
    store = PostgresEventStore(database_url, pool)
    await store.start()
    await store.append(one_event())  # the callers are connected from here on
    while line := await asyncio.to_thread(sys.stdin.readline):
        start, seconds = map(float, line.split())
        await asyncio.sleep(max(0.0, start - time.perf_counter()))
        print(json.dumps(asdict(await store_round(store, callers, seconds))), flush=True)
    await store.close()
    await pool.close()


if __name__ == "__main__":
    uvloop.run(write(sys.argv[1], int(sys.argv[2])))
