"""Several machines on one database and one NATS: they are restarted one after the other under load, and one sleeps and wakes up."""

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapters.embedded import EmbeddedServices
from application.engine.background import end
from application.engine.leases import LEASE_S
from projections.registry import PROJECTIONS
from tests.chaos.checker import check_snapshot
from tests.chaos.checks.clients import check_answers
from tests.chaos.checks.snapshot import Snapshot, Violation, read_snapshot
from tests.chaos.faults_kit import rounds, seeded
from tests.chaos.fleet import Balancer, Fleet, Machine
from tests.chaos.load import Load
from tests.chaos.test_kills import AGENTS, BAD_NEWS, END_TIMEOUT_S, SETTLE_TIMEOUT_S
from tests.chaos.witness import check_witness, read_lines
from tests.integration.system_kit import empty_work_queue
from tests.pace import ANSWER_S, Deadline, ended, until

pytestmark = pytest.mark.chaos

TAKEOVER_S = 5.0
SHARED_S = 20.0
WELL_KNOWN = frozenset({"ownership_lost"})
"""Log lines of a machine that slept and woke up: another machine owns its leases by then."""


async def test_a_rolling_restart_and_a_sleeper_lose_and_double_nothing(
    services: EmbeddedServices, database_url: str, tmp_path: Path
) -> None:
    chance = seeded()
    await empty_work_queue(services.nats_url)
    async with Fleet(services, database_url, tmp_path, AGENTS) as fleet:
        headers = {"Authorization": f"Bearer {fleet.key}"}
        async with httpx2.AsyncClient(
            base_url=fleet.urls[0], headers=headers, transport=Balancer(fleet.urls), timeout=ANSWER_S
        ) as http:
            load, stop = Load(http, chance.randrange(10**6)), asyncio.Event()
            loading = asyncio.create_task(load.run(stop), name="load")
            try:
                await shared_fairly(http)
                for _ in range(rounds(1, 5)):
                    for machine in fleet.machines:
                        await machine.stop()
                        await asyncio.sleep(chance.uniform(0.0, 0.5))
                        await machine.start()
                    await shared_fairly(http)
                    await a_sleeper_is_replaced(fleet.engines[0], http)
                stop.set()
                await ended(loading, END_TIMEOUT_S)
                snapshot = await settled(database_url, services.nats_url)
            finally:
                await end(loading)
            lines = read_lines(fleet.witness)
            violations = [
                *await check_snapshot(snapshot, services.nats_url, expected={run.id: run.expected for run in load.runs}),
                *check_witness(lines, snapshot),
                *check_answers(load.runs, snapshot),
                *check_outputs(fleet.machines),
            ]
            assert violations == [], "\n".join(map(str, violations[:50]))
            print(f"{len(load.runs)} runs, {snapshot.head} events, {len(lines)} executions")


async def shared_fairly(http: httpx2.AsyncClient) -> None:
    """Each of two engines does half of the units that can be shared, and all work is done."""

    async def fair() -> bool:
        alive = await members(http)
        shares = [len(PROJECTIONS) // 2, len(PROJECTIONS) - len(PROJECTIONS) // 2]
        return held(alive, "sagas:") == [4, 4] and held(alive, "projection:") == shares and held(alive, "relay") == [1]

    await until(fair, SHARED_S)


async def members(http: httpx2.AsyncClient) -> dict[str, list[str]]:
    """The units of the living members that have some, by place."""
    health = (await http.get("/health/ready")).json()
    return {member["place"]: member["units"] for member in health.get("members", []) if member["alive"] and member["units"]}


def held(members: Mapping[str, Sequence[str]], kind: str) -> list[int]:
    """How many units of a kind each member holds that holds any, ascending."""
    counts = (sum(unit.startswith(kind) for unit in units) for units in members.values())
    return sorted(count for count in counts if count)


async def a_sleeper_is_replaced(engine: Machine, http: httpx2.AsyncClient) -> None:
    """One engine sleeps for longer than its lease. The other engine takes all units in time. After the wake-up both share again."""
    engine.send(signal.SIGSTOP)
    try:

        async def alone() -> bool:
            alive = await members(http)
            return held(alive, "sagas:") == [8] and held(alive, "projection:") == [len(PROJECTIONS)] and held(alive, "relay") == [1]

        await until(alone, TAKEOVER_S)
        await asyncio.sleep(LEASE_S / 2)
    finally:
        engine.send(signal.SIGCONT)
    await shared_fairly(http)


async def settled(database_url: str, nats_url: str) -> Snapshot:
    deadline = Deadline(SETTLE_TIMEOUT_S)
    while True:
        snapshot = await read_snapshot(database_url)
        if not await check_snapshot(snapshot, nats_url) or await deadline.over():
            return snapshot
        await asyncio.sleep(0.3)


def check_outputs(machines: list[Machine]) -> Iterator[Violation]:
    for machine in machines:
        for text in machine.output.read_text("utf-8", "replace").splitlines():
            try:
                line: Any = json.loads(text)
            except ValueError:
                line = {"event": text}
            if line["event"] in BAD_NEWS - WELL_KNOWN or "Traceback" in str(line["event"]):
                yield Violation("no-bad-news-in-the-log", machine.name, text[:2000])
