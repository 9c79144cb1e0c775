"""Parked events of projections and of sagas: listed, retried in order, not overtaken by live events."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from application.engine.sagas.manager import partition_of
from application.engine.sagas.reactions import Reaction, ReactionCause
from application.views.runs import RunView
from domain import agent_runs, runs
from domain.errors import ProjectionBehind
from domain.kernel import RecordedEvent
from domain.tenants import DEFAULT_TENANT_ID
from projections import runs as run_views
from projections.engine import parked
from projections.engine.positions import Positions
from projections.kernel import Connection
from tests.integration.projection_kit import Log, log_on, projecting, task
from tests.integration.system_kit import System

REFUSED = "agent_run.claimed"


class Repairable:
    """The handler of runs, broken on one topic until it is repaired."""

    def __init__(self) -> None:
        self.broken = True

    async def __call__(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        if self.broken and any(event.topic == REFUSED for event in batch):
            raise ArithmeticError("cannot take a claim")
        await run_views.apply(connection, batch)


async def shown_run(log: Log, run_id: UUID) -> RunView:
    async with log.database.connection() as connection:
        shown = (await run_views.get_run(connection, DEFAULT_TENANT_ID, run_id)).value
    assert shown is not None
    return shown


async def test_a_retry_is_in_order_and_not_overtaken(database_url: str) -> None:
    handler = Repairable()
    projection = replace(run_views.PROJECTION, apply=handler)
    async with log_on(database_url) as log, projecting(log, projection):
        known = [await log.run(2, end=False) for _ in range(3)]
        await log.until("runs")

        async def retry(root_id: UUID) -> parked.Retried:
            return await parked.retry(log.database, log.feed, projection, root_id)

        async with log.database.connection() as connection:
            page = await parked.list_parked(connection, ["runs"], limit=4, after=0)
            assert [(e.root_id, e.topic) for e in page.data] == [
                (known[0], REFUSED), (known[0], "agent_run.step_recorded"), (known[0], "agent_run.step_recorded"),
                (known[1], REFUSED),
            ]  # fmt: skip
            assert page.data[0].error == "ArithmeticError: cannot take a claim" and "earlier event" in page.data[1].error
            assert page.next_cursor
            assert await parked.roots(connection, ["runs"], 10) == known
        assert await retry(known[0]) == parked.Retried(known[0], 3, "ArithmeticError: cannot take a claim")
        assert await log.rows("SELECT count(*) FROM parked_event") == [(9,)], "nothing was changed"

        handler.broken = False
        done, all_written = asyncio.Event(), asyncio.Event()

        async def go_on() -> None:  # live events of the same roots, all the while
            version = 4
            while not done.is_set():
                for root in known:
                    [(agent_run_id,)] = await log.rows(
                        "SELECT DISTINCT originator_id FROM event WHERE root_id = %s AND originator_id <> root_id", root
                    )
                    step = agent_runs.StepRecorded(attempt=1, key=f"t{version}", kind="step", result=1)
                    await log.append(root, (agent_run_id, version, [step]))
                version += 1
            all_written.set()
            await asyncio.Event().wait()

        async with task(go_on):
            await asyncio.gather(*(retry(root) for root in known))
            done.set()
            await all_written.wait()
            await log.until("runs")
        assert await log.rows("SELECT * FROM parked_event") == []
        for root in known:
            events = [e for e in await log.feed.read(after=0, limit=10_000) if e.root_id == root]
            expected = run_views.replay(events)
            shown = await shown_run(log, root)
            assert expected is not None and shown.position == events[-1].position
            assert (shown.event_count, shown.steps[0].recorded_steps) == (len(events), len(events) - 4)
        assert await retry(known[0]) == parked.Retried(known[0], 0)


async def test_what_is_parked_during_a_retry_belongs_to_it(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Repairable()
    projection = replace(run_views.PROJECTION, apply=handler)
    async with log_on(database_url) as log, projecting(log, projection):
        root = await log.run(2, end=False)
        await log.until("runs")
        [(agent_run_id,)] = await log.rows("SELECT originator_id FROM event WHERE root_id <> originator_id LIMIT 1")

        read, reads = log.feed.at, 0

        async def overtaken(positions: Sequence[int]) -> list[RecordedEvent]:  # after each read more events are parked, if possible
            nonlocal reads
            found = await read(positions)
            reads += 1
            step = agent_runs.StepRecorded(attempt=1, key=f"late{reads}", kind="step", result=1)
            await log.append(root, (agent_run_id, 3 + reads, [step]))
            with contextlib.suppress(ProjectionBehind):
                await Positions(log.database).until("runs", await log.feed.head(), 15 if reads == 1 else 1)
            return found

        handler.broken = False
        monkeypatch.setattr(log.feed, "at", overtaken)
        assert await parked.retry(log.database, log.feed, projection, root) == parked.Retried(root, 4)
        assert reads == 2
        await log.until("runs")
        assert (await shown_run(log, root)).event_count == 4 + 2 + 2
        assert await log.rows("SELECT * FROM parked_event") == []


async def test_reactions_of_sagas_are_executed_again(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    await system.worker().register("alpha")

    def broken(event: runs.StepScheduled, cause: ReactionCause) -> list[Reaction]:
        raise ArithmeticError("cannot react")

    with monkeypatch.context() as patched:
        assert system.container.commands._follow_ups is not None
        known = system.container.commands._follow_ups._handlers
        patched.setitem(known, runs.StepScheduled, tuple(one._replace(handler=broken) for one in known[runs.StepScheduled]))
        run_id = await system.start("alpha")
        other = await system.start("alpha")
        await system.settled()
        for name in ("sagas", partition_of(UUID(run_id))):
            listed = (await system.http.get(f"/v1/projections/{name}/parked")).json()["data"]
            assert (run_id, "run.step_scheduled", "ArithmeticError: cannot react") in [
                (e["root_id"], e["topic"], e["error"]) for e in listed
            ]
        answered = await system.http.post("/v1/projections/sagas/retry", json={"root_id": run_id})
        assert answered.json()["data"] == [{"root_id": run_id, "events": 1, "error": "ArithmeticError: cannot react"}]
    answered = await system.http.post("/v1/projections/sagas/retry")
    assert {(r["root_id"], r["error"]) for r in answered.json()["data"]} == {(run_id, None), (other, None)}
    for run in (run_id, other):
        await system.until_topic(run, "agent_run.requested")
    assert await system.sql("SELECT * FROM parked_event") == []
    again = await system.http.post("/v1/projections/sagas/retry", json={"root_id": run_id})
    assert (again.status_code, again.json()["code"]) == (404, "not-found")
