"""The contract of the port `RunReads`, in memory and on the tables of the read model."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import Pool
from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.engine.ports.pages import uuid_cursor
from application.reads import RunReads, RunsWanted
from domain import runs
from domain.errors import InvalidCommand
from domain.failures import Cause, Failure
from domain.kernel import Command
from projections.engine.runner import ProjectionRunner
from projections.run_terms import PROJECTION as RUN_TERMS
from projections.runs import PROJECTION, RunQueries
from tests.contract.conftest import LogSide, MemoryLogSide, PostgresLogSide
from tests.kit.memory import MemoryLog, MemoryRunReads, MemorySubscription
from tests.kit.waiting import request_of

TENANT, OTHER = uuid7(), uuid7()


class ReadSide(Protocol):
    reads: RunReads
    log: LogSide

    async def caught_up(self) -> None:
        """Waits until the read model has every event of the log."""
        ...


class MemorySide:
    def __init__(self, log: MemoryLogSide) -> None:
        self.log, self.reads = log, MemoryRunReads(log.log)

    async def caught_up(self) -> None:
        pass


class PostgresSide:
    def __init__(self, log: PostgresLogSide, pool: Pool) -> None:
        self.log, database = log, PostgresDatabase(pool)
        self.reads = RunQueries(database)
        self._runner = ProjectionRunner([PROJECTION, RUN_TERMS], database, MemorySubscription(MemoryLog()))

    async def caught_up(self) -> None:
        await self._runner._take()
        if events := await self.log.feed.read(after=self._runner.position, limit=1_000):
            await self._runner.handle(events)


@pytest.fixture
def memory_side(memory_log: MemoryLogSide) -> MemorySide:
    return MemorySide(memory_log)


@pytest_asyncio.fixture
async def postgres_side(postgres_log: PostgresLogSide, pool: Pool) -> PostgresSide:
    side = PostgresSide(postgres_log, pool)
    await side.caught_up()
    return side


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> ReadSide:
    found: ReadSide = request.getfixturevalue(f"{request.param}_side")
    return found


async def give(side: ReadSide, *commands: Command, tenant: UUID = TENANT) -> None:
    loop = CommandLoop(side.log.store, CATALOG, reactions=False)  # only the runs' own events: no agent runs beside them
    for command in commands:
        await loop.execute(request_of(tenant), command)
    await side.caught_up()


def start(run_id: UUID, *agents: str, project: UUID | None = None, **given: Any) -> runs.StartRun:
    return runs.StartRun(run_id=run_id, project_id=project or TENANT, plan=runs.sequential(agents or ("alpha",)), **given)


async def ids(side: ReadSide, tenant: UUID = TENANT, **asked: Any) -> list[UUID]:
    return [run.run_id for run in (await side.reads.list(tenant, RunsWanted(**{"limit": 100} | asked))).value.data]


async def test_a_run_is_the_fold_of_its_events(side: ReadSide) -> None:
    run_id = uuid7()
    await give(side, start(run_id, "alpha", "beta", input={"q": 1}, metadata={"m": [1]}))
    found = await side.reads.get(TENANT, run_id)
    view = found.value
    assert view is not None and found.position == 2
    assert (view.run_id, view.status, view.input, view.metadata) == (run_id, "running", {"q": 1}, {"m": [1]})
    assert (view.version, view.position, view.event_count) == (2, 2, 2)
    assert [(step.key, step.agent, step.status) for step in view.steps] == [
        ("alpha", "alpha", "scheduled"),
        ("beta", "beta", "pending"),
    ]
    folded = None
    for event in await side.log.feed.read(after=0, limit=10):
        folded = side.reads.evolve(folded, event)
    assert folded is not None and folded.model_dump(mode="json") == view.model_dump(mode="json")


async def test_what_a_run_has_become_is_read(side: ReadSide) -> None:
    run_id = uuid7()
    await give(side, start(run_id))
    await give(side, runs.CancelRun(run_id=run_id, reason="enough"))
    found = await side.reads.get(TENANT, run_id)
    assert found.value is not None and found.position == 3
    assert (found.value.status, found.value.cancel_reason, found.value.version) == ("cancelled", "enough", 3)
    assert found.value.finished_at == found.value.updated_at >= found.value.created_at


async def test_a_paused_run_says_why_until_it_goes_on(side: ReadSide) -> None:
    run_id, child, above = uuid7(), uuid7(), uuid7()
    parent = runs.Parent(run_id=above, step="s", part=0)
    for id_, of in ((run_id, None), (child, parent)):
        await give(side, start(id_, "a").model_copy(update={"parent": of}))
    await give(side, runs.PauseRun(run_id=run_id, reason="look first", by="key:ann", on_behalf_of="ada"))
    paused = (await side.reads.get(TENANT, run_id)).value
    assert paused is not None and paused.priority == "normal"
    await give(side, runs.ChangePriority(run_id=run_id, priority="low"))
    await give(side, runs.PauseRun(run_id=child, parent_number=1))
    await give(side, runs.PauseRun(run_id=child, reason="itself"))
    found = (await side.reads.get(TENANT, run_id)).value
    assert found is not None and found.status == "paused" and found.pause is not None and found.priority == "low"
    assert found.pause.model_dump() == {
        "by": "key:ann", "on_behalf_of": "ada", "reason": "look first", "at": paused.updated_at, "parent_id": None
    }  # fmt: skip
    await give(side, runs.ResumeRun(run_id=child))
    found = (await side.reads.get(TENANT, child)).value
    assert found is not None and found.status == "paused" and found.pause is not None, "still with the run above"
    assert (found.pause.parent_id, found.pause.reason) == (above, None)
    await give(side, runs.ResumeRun(run_id=child, parent_number=1))
    await give(side, runs.CancelRun(run_id=run_id))
    for id_, status in ((child, "running"), (run_id, "cancelled")):
        found = (await side.reads.get(TENANT, id_)).value
        assert found is not None and (found.status, found.pause) == (status, None)


async def test_a_run_of_nobody_or_of_another_tenant_is_none(side: ReadSide) -> None:
    run_id = uuid7()
    assert (await side.reads.get(TENANT, run_id)).value is None
    await give(side, start(run_id), tenant=OTHER)
    found = await side.reads.get(TENANT, run_id)
    assert found.value is None and found.position == 2, "and how far the read model is"
    assert await ids(side) == [] and await ids(side, OTHER) == [run_id]


NIL, MAX = UUID(int=0), UUID(int=2**128 - 1)


async def test_runs_are_listed_newest_first_and_in_pages_whatever_their_ids(side: ReadSide) -> None:
    """A client may make the ids: neither an id of the far future nor the first and the last of all ids changes the order."""
    started = [uuid7(), UUID("ffffffff-ffff-4fff-bfff-fffffffffff0"), uuid7(), MAX, NIL, UUID(int=5)]
    await give(side, *(start(run_id) for run_id in started))
    events = await side.log.feed.read(after=0, limit=100)  # the times of documents are cut to milliseconds
    times = [event.recorded_at for event in events if event.topic == runs.RunStarted.TOPIC]
    assert times == sorted(times) and len(times) == len(started)
    newest_first = [run_id for _, run_id in sorted(zip(times, started, strict=True), reverse=True)]
    assert await ids(side) == newest_first
    for filters in ({"status": "running"}, {"project_id": TENANT}, {"project_id": TENANT, "status": "running"}):
        assert await ids(side, **filters) == newest_first
        assert await ids(side, **filters, before=newest_first[2]) == newest_first[3:]
    seen: list[UUID] = []
    before: UUID | None = None
    pages = 0
    while True:
        page = (await side.reads.list(TENANT, RunsWanted(2, before))).value
        seen += [run.run_id for run in page.data]
        pages += 1
        if page.next_cursor is None:
            break
        before = uuid_cursor(page.next_cursor)
    assert (seen, pages) == (newest_first, 3)
    assert (await side.reads.list(TENANT, RunsWanted(6))).value.next_cursor is None


async def test_a_page_after_a_run_that_is_not_there_is_refused(side: ReadSide) -> None:
    run_id = uuid7()
    await give(side, start(run_id), tenant=OTHER)
    for before in (uuid7(), run_id):
        with pytest.raises(InvalidCommand) as caught:
            await ids(side, before=before)
        assert caught.value.pointer == "/cursor"


async def test_runs_are_listed_by_status_and_project(side: ReadSide) -> None:
    ours, other = sorted(uuid7() for _ in range(2))
    cancelled, running, elsewhere = sorted((uuid7() for _ in range(3)), reverse=True)
    await give(side, start(elsewhere, project=other), start(running, project=ours), start(cancelled, project=ours))
    await give(side, runs.CancelRun(run_id=cancelled))
    expected: Sequence[tuple[dict[str, Any], list[UUID]]] = (
        ({"status": "cancelled"}, [cancelled]),
        ({"status": "running"}, [running, elsewhere]),
        ({"status": "failed"}, []),
        ({"project_id": ours}, [cancelled, running]),
        ({"project_id": ours, "status": "running"}, [running]),
        ({"project_id": ours, "before": cancelled}, [running]),
        ({"project_id": uuid7()}, []),
        ({"before": elsewhere}, []),
    )
    for asked, found in expected:
        assert await ids(side, **asked) == found, asked


async def test_completed_runs_without_some_steps_are_listed(side: ReadSide) -> None:
    ours, (older, whole, newer) = uuid7(), sorted(uuid7() for _ in range(3))
    for run_id, project in ((older, ours), (whole, ours), (newer, TENANT)):
        plan = runs.parallel(("alpha", "beta"), None)
        await give(side, runs.StartRun(run_id=run_id, project_id=project, plan=plan))
        alpha, beta = (runs.agent_run_id_of(run_id, key) for key in ("alpha", "beta"))
        await give(side, runs.CompleteStep(run_id=run_id, step="alpha", agent_run_id=alpha))
        if run_id == whole:
            await give(side, runs.CompleteStep(run_id=run_id, step="beta", agent_run_id=beta))
        else:
            why = Failure(type="KeyError", message="'ticket'")
            await give(side, runs.FailStep(run_id=run_id, step="beta", agent_run_id=beta, error=why))
    assert await ids(side, status="degraded") == [newer, older]
    assert await ids(side, status="degraded", limit=1, before=newer) == [older]
    assert await ids(side, status="degraded", project_id=ours) == [older]
    assert await ids(side, OTHER, status="degraded") == []
    assert await ids(side, status="completed") == [newer, whole, older], "a degraded run is completed"
    listed = (await side.reads.list(TENANT, RunsWanted(3, status="completed"))).value.data
    assert [(run.degraded, run.missing) for run in listed] == [(True, ["beta"]), (False, []), (True, ["beta"])]


async def test_runs_of_several_statuses_are_listed_and_counted(side: ReadSide) -> None:
    ours, (degraded, cancelled, failed, running, elsewhere) = uuid7(), (uuid7() for _ in range(5))
    error = Failure(type="KeyError", message="'ticket'")
    plan = runs.parallel(("alpha", "beta"), None)
    await give(side, runs.StartRun(run_id=degraded, project_id=ours, plan=plan), start(cancelled, project=ours))
    await give(side, start(failed, metadata={"team": "a"}), start(running, project=ours, metadata={"team": "a"}))
    await give(side, start(elsewhere), start(uuid7()), tenant=OTHER)
    alpha, beta = (runs.agent_run_id_of(degraded, key) for key in ("alpha", "beta"))
    await give(side, runs.CompleteStep(run_id=degraded, step="alpha", agent_run_id=alpha))
    await give(side, runs.FailStep(run_id=degraded, step="beta", agent_run_id=beta, error=error))
    await give(side, runs.CancelRun(run_id=cancelled))
    await give(side, runs.FailStep(run_id=failed, step="alpha", agent_run_id=runs.agent_run_id_of(failed, "alpha"), error=error))
    expected: Sequence[tuple[dict[str, Any], list[UUID]]] = (
        ({"statuses": ("failed", "cancelled")}, [failed, cancelled]),
        ({"statuses": ("failed", "degraded")}, [failed, degraded]),
        ({"statuses": ("completed", "degraded")}, [degraded]),
        ({"statuses": ("running", "degraded"), "project_id": ours}, [running, degraded]),
        ({"statuses": ("running", "failed"), "within": [ours]}, [running]),
        ({"statuses": ("cancelled", "degraded"), "within": [ours, TENANT]}, [cancelled, degraded]),
        ({"statuses": ("running", "failed"), "metadata": [("team", "a")]}, [running, failed]),
        ({"statuses": ("failed", "cancelled"), "metadata": [("team", "a")], "project_id": TENANT}, [failed]),
        ({"statuses": ("queued", "paused")}, []),
    )
    for asked, listed in expected:
        assert await found(side, **asked) == listed, asked

    async def counted(tenant: UUID = TENANT, **asked: Any) -> dict[str, int]:
        counts = (await side.reads.counts(tenant, RunsWanted(1, **asked))).value
        assert not counts.more
        return {status: count for status, count in counts.counts.items() if count}

    assert await counted() == {"running": 1, "completed": 1, "degraded": 1, "cancelled": 1, "failed": 1}
    assert await counted(status="failed", project_id=ours) == {"running": 1, "completed": 1, "degraded": 1, "cancelled": 1}
    assert await counted(within=[TENANT]) == {"failed": 1} and await counted(OTHER) == {"running": 2}
    assert await counted(metadata=[("team", "a")]) == {"failed": 1, "running": 1}
    # how long they have taken
    assert await ids(side, longer_s=0) == [running, failed, cancelled, degraded] == await ids(side, shorter_s=1_000)
    assert await ids(side, longer_s=1_000) == [] == await ids(side, shorter_s=0, statuses=("running", "failed"))
    assert await ids(side, shorter_s=1_000, statuses=("running", "degraded"), limit=1) == [running]
    assert await counted(longer_s=0, project_id=TENANT) == {"failed": 1}
    if isinstance(side, PostgresSide):  # the clock in memory stands still
        assert await counted(unmoved_s=0) == {"running": 1}
    with pytest.raises(InvalidCommand) as caught:
        await side.reads.list_as_of(TENANT, 1, RunsWanted(1, longer_s=1))
    assert caught.value.pointer == "/longer_s"


async def test_an_entry_of_a_list_has_the_run_in_short(side: ReadSide) -> None:
    run_id = uuid7()
    await give(side, start(run_id, "alpha", "beta"))
    [entry] = (await side.reads.list(TENANT, RunsWanted(1))).value.data
    view = (await side.reads.get(TENANT, run_id)).value
    assert view is not None
    assert (entry.agents, entry.status, entry.degraded, entry.unreadable) == (["alpha", "beta"], "running", False, False)
    assert (entry.created_at, entry.finished_at, entry.position, entry.event_count) == (view.created_at, None, 2, 2)


async def test_a_list_at_a_position_is_the_list_of_then(side: ReadSide) -> None:
    older, newer, other = uuid7(), uuid7(), uuid7()
    seen: list[tuple[int, list[dict[str, Any]], list[dict[str, Any]]]] = []
    for command in (start(older), start(newer, project=other), runs.CancelRun(run_id=older)):
        await give(side, command)
        lists = [await side.reads.list(TENANT, RunsWanted(9, status=s)) for s in (None, "running")]
        seen.append((lists[0].position, *([run.model_dump(mode="json") for run in found.value.data] for found in lists)))
    for position, every, running in [(0, [], []), *seen]:
        for status, listed in ((None, every), ("running", running)):
            page = await side.reads.list_as_of(TENANT, position, RunsWanted(9, status=status))
            assert [run.model_dump(mode="json") for run in page.data] == listed, (position, status)
            assert page.next_cursor is None
    in_the_append = seen[0][0] - 1  # between `run.started` and `run.step_scheduled`, which have the same time
    [run] = (await side.reads.list_as_of(TENANT, in_the_append, RunsWanted(9))).data
    assert (run.run_id, run.event_count, run.position) == (older, 1, in_the_append)
    then = seen[1][0]
    assert [run.run_id for run in (await side.reads.list_as_of(TENANT, then, RunsWanted(9, newer))).data] == [older]
    assert (await side.reads.list_as_of(TENANT, then, RunsWanted(9, newer, project_id=other))).data == []
    with pytest.raises(InvalidCommand):
        await side.reads.list_as_of(TENANT, then, RunsWanted(9, uuid7()))


async def found(side: ReadSide, tenant: UUID = TENANT, **filters: Any) -> list[UUID]:
    """The runs of all pages. As of the head of the log, the list must be the same."""
    listed: list[UUID] = []
    before: UUID | None = None
    while True:
        read = await side.reads.list(tenant, RunsWanted(1, before, **filters))
        listed += [run.run_id for run in read.value.data]
        if read.value.next_cursor is None:
            break
        before = uuid_cursor(read.value.next_cursor)
    if "error" not in filters:
        then = await side.reads.list_as_of(tenant, read.position, RunsWanted(9, **filters))
        assert [run.run_id for run in then.data] == listed
    return listed


async def test_runs_are_found_by_what_they_have(side: ReadSide) -> None:
    loop = CommandLoop(side.log.store, CATALOG, reactions=False)
    first, second, third, foreign = (uuid7() for _ in range(4))
    await give(side, start(first, "alpha", "beta", metadata={"ticket": "T-1", "n": 5, "urgent": True, "deep": {"ticket": "T-1"}}))
    of_ada = request_of(TENANT)._replace(actor="key:a", on_behalf_of="ada")
    await loop.execute(of_ada, start(second, "beta", metadata={"ticket": "T-1", "n": "5", "note": None}))
    await loop.execute(request_of(TENANT)._replace(actor="key:a"), start(third, "gamma", "gamma", metadata={"ticket": "T-2"}))
    await give(side, start(foreign, "beta", metadata={"ticket": "T-1"}), tenant=OTHER)
    cause = Cause(relation="cause", type="OSError", message="errno 111")
    why = Failure(type="ConnectError", message="Connection refused by Db_1:\n\t(Ärger)", causes=(cause,))
    beta = runs.agent_run_id_of(second, "beta")
    await give(side, runs.FailStep(run_id=second, step="beta", agent_run_id=beta, error=why))
    expected: list[tuple[dict[str, Any], list[UUID]]] = [
        ({}, [third, second, first]),
        ({"agent": "beta"}, [second, first]),
        ({"agent": "gamma"}, [third]),
        ({"agent": "bet"}, []),
        ({"actor": "key:a"}, [third, second]),
        ({"actor": "test"}, [first]),
        ({"on_behalf_of": "ada"}, [second]),
        ({"on_behalf_of": "key:a"}, []),
        ({"metadata": [("ticket", "T-1")]}, [second, first]),
        ({"metadata": [("ticket", "t-1")]}, []),
        ({"metadata": [("n", "5")]}, [second, first]),
        ({"metadata": [("urgent", "true")]}, [first]),
        ({"metadata": [("note", "null")]}, [second]),
        ({"metadata": [("deep", '{"ticket":"T-1"}')]}, []),
        ({"metadata": [("ticket", "T-1"), ("urgent", "true")]}, [first]),
        ({"error": "refused connection"}, [second]),
        ({"error": "db_1"}, [second]),
        ({"error": "ÄRGER oserror 111"}, [second]),
        ({"error": "connection lost"}, []),
        ({"agent": "beta", "status": "failed"}, [second]),
        ({"agent": "beta", "status": "running"}, [first]),
        ({"agent": "beta", "project_id": TENANT}, [second, first]),
        ({"agent": "beta", "project_id": OTHER}, []),
        ({"agent": "beta", "actor": "key:a", "metadata": [("ticket", "T-1")], "error": "refused"}, [second]),
    ]
    for filters, runs_of in expected:
        assert await found(side, **filters) == runs_of, filters
    assert await found(side, OTHER, agent="beta") == [foreign]
    assert await found(side, OTHER, error="refused") == []
    times = {run.run_id: run.created_at for run in (await side.reads.list(TENANT, RunsWanted(9))).value.data}
    middle, newest_first = times[second], (third, second, first)  # in memory all may have one time
    assert await found(side, started_after=middle) == [run for run in newest_first if times[run] >= middle]
    assert await found(side, started_before=middle) == [run for run in newest_first if times[run] < middle]
    later = [run for run in (second, first) if times[run] >= middle]
    assert await found(side, started_after=middle, started_before=times[third] + timedelta(1), agent="beta") == later
    assert await found(side, started_after=times[third], started_before=times[first]) == []


async def test_filters_that_cannot_be_looked_for_are_refused(side: ReadSide) -> None:
    await give(side, start(uuid7()))
    for refused in (
        RunsWanted(1, error=""),
        RunsWanted(1, error=" -.! "),
        RunsWanted(1, error="a b c d e f g h i"),
        RunsWanted(1, metadata=[(str(number), "x") for number in range(9)]),
    ):
        with pytest.raises(InvalidCommand):
            await side.reads.list(TENANT, refused)
    with pytest.raises(InvalidCommand):
        await side.reads.list_as_of(TENANT, 1, RunsWanted(1, error="refused"))


async def test_a_list_of_then_knows_the_terms_of_runs(side: ReadSide) -> None:
    older, newer = uuid7(), uuid7()
    await give(side, start(older, metadata={"ticket": "T-1"}))
    await give(side, start(newer, metadata={"ticket": "T-1"}))
    await give(side, runs.CancelRun(run_id=older))
    [started] = [e for e in await side.log.feed.read(after=0, limit=99) if (e.stream_id, e.version) == (newer, 1)]
    for position, status, listed in (
        (started.position - 1, None, [older]),
        (started.position - 1, "running", [older]),
        (started.position, None, [newer, older]),
        (started.position, "cancelled", []),
        (started.position + 2, "cancelled", [older]),
        (started.position + 2, "running", [newer]),
    ):
        wanted = RunsWanted(9, status=status, agent="alpha", metadata=[("ticket", "T-1")])
        page = await side.reads.list_as_of(TENANT, position, wanted)
        assert [run.run_id for run in page.data] == listed, (position, status)
