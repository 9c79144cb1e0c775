"""A rolling upgrade from the release before, whose processes run: in the order of docs/how-to/upgrade.md, under load, with kills.

Processes of both releases stand side by side: both relays, the sagas of one with the writer of the other. Calls that must not be
repeated are in hand meanwhile.
"""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapters.embedded import EmbeddedServices
from application.engine.background import end
from tests.chaos.checker import check_snapshot
from tests.chaos.checks.clients import check_answers
from tests.chaos.checks.losses import check_losses
from tests.chaos.faults_kit import rounds, seeded
from tests.chaos.fleet import Balancer, Fleet, Machine
from tests.chaos.load import POSTING, Load
from tests.chaos.releases import BEFORE, Release
from tests.chaos.server import COMMAND
from tests.chaos.test_fleet import check_outputs, settled
from tests.chaos.test_kills import AGENTS, BREATH_S, END_TIMEOUT_S, work_goes_on
from tests.chaos.witness import check_witness, read_lines
from tests.integration.system_kit import empty_work_queue, fresh_database
from tests.pace import ANSWER_S, ended, finished, until

pytestmark = [pytest.mark.chaos, pytest.mark.upgrade, pytest.mark.timeout(600)]  # a dozen processes start one after the other

HELD = 3
PATIENCE_S = 20.0
REFUSED_S = 30.0
"""Seconds that work waits which a worker of 0.1.0 took and this release refused to it: the pause is that worker's."""


class Upgrade:
    """The processes of both releases on one database."""

    def __init__(self, fleet: Fleet, before: Release) -> None:
        self._fleet = fleet
        self._port = fleet.urls[0].rpartition(":")[2]
        self.old_api = fleet.api("old-api", int(self._port), before)
        self.old_engine = fleet.engine("old-engine", before)
        self.old_worker = fleet.worker("old-worker", fleet.urls[0], before)
        self.in_its_place, self.new_api = fleet.apis
        """The new api at the address of the old one, and another."""
        [self.new_engine] = fleet.engines
        self.new_worker = fleet.workers[1]

    @property
    def machines(self) -> list[Machine]:
        old = (self.old_api, self.old_engine, self.old_worker)
        return [*old, self.in_its_place, self.new_api, self.new_engine, self.new_worker]

    def migrate(self, release: Release | None) -> None:
        command, environment = (release.command, release.environment) if release else ((str(COMMAND),), {})
        answer = finished([*command, "migrate"], 30, env={"PATH": "/usr/bin:/bin", **self._fleet.servers, **environment})
        assert answer.returncode == 0, answer.stdout + answer.stderr

    async def start(self, before: Release) -> None:
        """The release before, alone."""
        await asyncio.to_thread(self.migrate, before)
        await asyncio.gather(self.old_api.start(), self.old_engine.start())
        await self.old_worker.start()

    async def kill(self) -> None:
        for machine in self.machines:
            await machine.kill()


async def test_an_upgrade_loses_nothing_and_leaves_no_call_in_doubt(services: EmbeddedServices, tmp_path: Path) -> None:
    chance, file = seeded(), tmp_path / "go-on"
    (tmp_path / "release").mkdir()
    before = Release(BEFORE, tmp_path / "release")
    await empty_work_queue(services.nats_url)
    async with fresh_database(services, copy_of="dbname=template1") as database_url:
        fleet = Fleet(services, database_url, tmp_path, AGENTS, engines=1)
        upgrade = Upgrade(fleet, before)
        headers = {"Authorization": f"Bearer {fleet.key}"}
        try:
            await upgrade.start(before)
            async with httpx2.AsyncClient(
                base_url=fleet.urls[0], headers=headers, transport=Balancer(fleet.urls), timeout=ANSWER_S
            ) as http:
                load = Load(http, chance.randrange(10**6), at_once=4, shapes=POSTING)
                held = Load(http, chance.randrange(10**6), at_once=HELD, shapes=[lambda: holding(file)])
                stop, all_held = asyncio.Event(), asyncio.Event()
                holding_them = asyncio.create_task(held.run(all_held), name="calls in hand")
                loading = asyncio.create_task(load.run(stop), name="load")
                try:
                    await until(lambda: in_hand(fleet), PATIENCE_S)
                    all_held.set()
                    await engines(upgrade, load, loading)
                    await apis(upgrade, load, loading)
                    file.touch()
                    await until(lambda: answered(http, held), PATIENCE_S)
                    await upgrade.new_worker.start()
                    await upgrade.old_worker.stop()
                    await work_goes_on(load, loading, 1, REFUSED_S + BREATH_S)
                    stop.set()
                    await ended(loading, END_TIMEOUT_S)
                    await ended(holding_them, END_TIMEOUT_S)
                    await settled(database_url, services.nats_url)
                    checks = await checked(http)
                    snapshot = await settled(database_url, services.nats_url)  # with the entries of the checks in the audit trail
                finally:
                    await end(loading, holding_them)
                runs = [*load.runs, *held.runs]
                violations = [
                    *await check_snapshot(snapshot, services.nats_url, expected={run.id: run.expected for run in runs}),
                    *check_witness(read_lines(fleet.witness), snapshot),
                    *check_losses(snapshot, []),
                    *check_answers(runs, snapshot),
                    *check_outputs(upgrade.machines),
                ]
                assert violations == [], "\n".join(map(str, violations[:50]))
                assert [check for check in checks.values() if check["status"] != "equal"] == []
                assert checks["runs"]["earlier_rows"], "runs that the release before has stored are documents"
                print(f"{len(runs)} runs, {snapshot.head} events")
        finally:
            await upgrade.kill()


def holding(file: Path) -> dict[str, Any]:
    return {"plan": {"kind": "sequential", "agents": ["holder", "editor"]}, "input": {"file": str(file)}}


async def in_hand(fleet: Fleet) -> bool:
    return sum(line.key == "chaos.hold" for line in read_lines(fleet.witness)) >= HELD


async def answered(http: httpx2.AsyncClient, held: Load) -> bool:
    """Whether the outcomes of the calls in hand are recorded."""
    shown = [(await http.get(f"/v1/runs/{run.id}")).json() for run in held.runs]
    return [call["status"] for run in shown for step in run["steps"] for call in step["calls"]] == ["succeeded"] * HELD


async def checked(http: httpx2.AsyncClient) -> dict[str, dict[str, Any]]:
    """Read model → its check against the log."""

    async def checks() -> dict[str, Any]:
        return {view["name"]: view["check"] for view in (await http.get("/v1/projections")).json()["data"]}

    for name in await checks():
        assert (await http.post(f"/v1/projections/{name}/verify", json={})).status_code == 202

    async def all_ended() -> bool:
        return all(check["finished_at"] is not None for check in (await checks()).values())

    await until(all_ended, PATIENCE_S)
    return await checks()


async def engines(upgrade: Upgrade, load: Load, loading: asyncio.Task[None]) -> None:
    """Relay, read models and sagas: both releases side by side, each alone after a kill of the other."""
    await asyncio.to_thread(upgrade.migrate, None)
    await upgrade.new_engine.start()
    await work_goes_on(load, loading, 1)
    for _ in range(rounds(0, 4)):
        await upgrade.new_engine.kill()
        await work_goes_on(load, loading, 1)
        await upgrade.new_engine.start()
        await work_goes_on(load, loading, 1)
    await upgrade.old_engine.kill()
    await work_goes_on(load, loading, 1)


async def apis(upgrade: Upgrade, load: Load, loading: asyncio.Task[None]) -> None:
    """Both releases write; then the new one stands at the address of the old one."""
    await upgrade.new_api.start()
    await work_goes_on(load, loading, 1)
    for _ in range(rounds(0, 4)):
        await upgrade.new_api.kill()
        await upgrade.new_api.start()
        await work_goes_on(load, loading, 1)
    await upgrade.old_api.stop()
    await upgrade.in_its_place.start()
