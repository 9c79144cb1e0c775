"""Bulk actions are carried out: each run once, whoever is killed, and the runs are those that were there when it began."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from application.bulk_actions import carrying_out
from application.bulk_actions.carrying_out import BulkActionService
from application.bulk_actions.orders import RIGHTS, STATUSES, is_so
from application.bulk_actions.starting import check_order, find_runs
from application.engine.ports.pages import Page, encode_cursor
from application.reads import OpenBulkAction, Positioned, RunsWanted
from application.runs.signals import MAX_PAYLOAD_BYTES
from domain import bulk_actions, runs
from domain.access import Action
from domain.bulk_actions import BulkAction, BulkOrder, CancelBulkAction, RunFilter, SignalSaid, StartBulkAction
from domain.errors import InvalidCommand, Unavailable
from domain.kernel import Metadata
from domain.runs import CancelRun, PauseRun, ResumeRun, Run
from tests.kit.engine import Engine
from tests.kit.waiting import TENANT, new_id, until
from tests.unit.test_run_keys import start as start_with_key

PAUSE = BulkOrder(verb="pause", reason="look first")


class ListedRuns:
    """The list of runs, as new as the log. `behind`: it does not know that many of the last events."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.behind = 0
        self.refuses: str | None = None
        self.asked: list[RunsWanted] = []

    async def list(self, tenant_id: UUID, wanted: RunsWanted) -> Positioned[Page[Any]]:
        if self.refuses is not None:
            raise InvalidCommand(self.refuses, pointer="/error")
        self.asked.append(wanted)
        head = self.engine.log.head - self.behind
        started = [e for e in self.engine.log.events[:head] if e.topic == "run.started" and e.tenant_id == tenant_id][::-1]
        if wanted.started_before is not None:
            started = [event for event in started if event.recorded_at < wanted.started_before]
        if wanted.before is not None:
            ids = [event.stream_id for event in started]
            started = started[ids.index(wanted.before) + 1 :]
        found = []
        for event in started:
            run: Run = (await self.engine.commands.load(runs.DECIDER, tenant_id, event.stream_id)).state
            agents = {step.agent for step in run.plan.steps} if run.plan is not None else set()
            status = ("queued" if run.queued else "paused" if run.paused else "running") if run.status == "running" else run.status
            if wanted.status in (None, status) and (wanted.agent is None or wanted.agent in agents):
                found.append(_Listed(event.stream_id))
        page = found[: wanted.limit]
        more = encode_cursor(str(page[-1].run_id)) if len(found) > wanted.limit else None
        return Positioned(Page(page, more), head)


class _Listed:
    def __init__(self, run_id: UUID) -> None:
        self.run_id = run_id


class Known:
    """All bulk actions, whether they have ended or not: a read model may be late."""

    def __init__(self) -> None:
        self.all: list[OpenBulkAction] = []

    async def open(self, limit: int) -> Sequence[OpenBulkAction]:
        return self.all[:limit]


class Silence:
    def matters(self, payload: str) -> bool:
        return True

    async def wait(self, timeout: float) -> None:
        raise _Asleep


class _Asleep(Exception):
    """The service has nothing to do."""


class _Killed(BaseException):
    """The end of a process."""


class World:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.listed, self.known = engine, ListedRuns(engine), Known()

    def service(self, engine: Engine | None = None) -> BulkActionService:
        engine = engine or self.engine
        return BulkActionService(engine.commands, self.known, self.listed, engine.feed, Silence())  # type: ignore[arg-type]

    async def begin(self, order: BulkOrder = PAUSE, asked: RunFilter | None = None) -> UUID:
        id = new_id()
        command = StartBulkAction(
            bulk_action_id=id, order=order, filter=asked or RunFilter(), by="key:ada", on_behalf_of="user:eve"
        )
        await self.engine.give(command)
        self.known.all.append(OpenBulkAction(TENANT, id))
        return id

    async def state(self, id: UUID) -> BulkAction:
        found: BulkAction = (await self.engine.commands.load(bulk_actions.DECIDER, TENANT, id)).state
        return found

    async def carried_out(self, id: UUID, service: BulkActionService | None = None) -> BulkAction:
        service = service or self.service()
        with pytest.raises(_Asleep):
            await service.run()
        return await self.state(id)

    async def run_of(self, run_id: UUID) -> Run:
        found: Run = (await self.engine.commands.load(runs.DECIDER, TENANT, run_id)).state
        return found


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    engine = Engine()
    await engine.set_up()
    await engine.worker().register("alpha", "beta")
    yield World(engine)


async def test_a_pause_by_filter_pauses_what_it_finds_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying_out, "SELECTED_TOGETHER", 4)
    monkeypatch.setattr(carrying_out, "SLICE", 3)
    monkeypatch.setattr(carrying_out, "TOGETHER", 2)
    mine = [await world.engine.start("alpha") for _ in range(9)]
    other = await world.engine.start("beta")
    await world.engine.give(PauseRun(run_id=mine[4], reason="another reason"))
    await world.engine.give(CancelRun(run_id=mine[5]))
    id = await world.begin(asked=RunFilter(agent="alpha", statuses=("running", "paused", "cancelled")))
    world.engine.clock.advance(1)
    late = await world.engine.start("alpha")
    found = await world.carried_out(id)
    assert (found.status, found.selected, found.parts, found.handled) == ("completed", 9, 3, 9)
    assert (found.done, found.unchanged, dict(found.refused)) == (7, 1, {"invalid-state": 1})
    [example] = found.examples
    assert (example.run_id, example.message) == (mine[5], "the run is cancelled; only a running one can be paused")
    states = {run_id: await world.run_of(run_id) for run_id in (*mine, other, late)}
    assert [run_id for run_id, run in states.items() if not run.paused] == [mine[5], other, late]
    pause = states[mine[0]].pause
    assert pause is not None
    assert (pause.by, pause.reason, pause.on_behalf_of) == ("key:ada", "look first", "user:eve")
    parts = [e for e in world.engine.log.streams[id] if e.topic == "bulk_action.runs_selected"]
    named = [run for part in parts for run in world.engine.catalog.registry.decoded(part).runs]
    assert sorted(named) == sorted(mine)
    assert len(named) == 9


async def test_each_run_says_who_and_why_and_has_its_entry_in_the_audit_trail(world: World) -> None:
    run_id = await world.engine.start("alpha")
    id = await world.begin()
    await world.carried_out(id)
    [paused] = [e for e in world.engine.log.streams[run_id] if e.topic == "run.paused"]
    said = Metadata.model_validate_json(paused.metadata)
    assert (said.actor, said.on_behalf_of, said.causation_id) == ("key:ada", "user:eve", f"{id}:1")
    assert (said.correlation_id, said.command_id) == (run_id, bulk_actions.command_id_of(id, run_id))
    [entry] = [world.engine.catalog.registry.decoded(e) for e in world.engine.log.events if e.topic == "audit.action_recorded"]
    assert entry.model_dump(exclude_defaults=True) == {
        "action": "runs.steer", "operation": "pause", "actor": "key:ada", "on_behalf_of": "user:eve", "target_kind": "run",
        "target_id": str(run_id), "reason": "look first", "result": "done",
    }  # fmt: skip


@pytest.mark.parametrize("killed_after", range(14))
async def test_a_kill_at_any_moment_changes_nothing(
    world: World, killed_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The database goes away for a process after so many appends, and another process goes on."""
    for name, number in (("SELECTED_TOGETHER", 4), ("SLICE", 3), ("TOGETHER", 2), ("GROUPS_AT_ONCE", 1)):
        monkeypatch.setattr(carrying_out, name, number)
    mine = [await world.engine.start("alpha") for _ in range(6)]
    id = await world.begin()
    first = world.engine.another()
    append, left = first.store.append, killed_after

    async def dies(request: Any) -> Any:
        nonlocal left
        if left == 0:
            raise _Killed
        left -= 1
        return await append(request)

    monkeypatch.setattr(first.commands._store, "append", dies)
    service = world.service(first)
    try:
        while await service.go_on(TENANT, id):
            pass
    except _Killed:
        pass
    for run_id in mine[:2]:  # people do as they like meanwhile
        if (await world.run_of(run_id)).paused:
            await world.engine.give(ResumeRun(run_id=run_id))
    resumed = [run_id for run_id in mine[:2] if "run.resumed" in world.engine.of_stream(run_id)]
    found = await world.carried_out(id, world.service(world.engine.another()))
    assert (found.status, found.handled, found.done, found.unchanged) == ("completed", 6, 6, 0)
    for run_id in mine:
        assert world.engine.of_stream(run_id).count("run.paused") == 1
        assert (await world.run_of(run_id)).paused is (run_id not in resumed)


async def test_two_processes_at_once_count_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying_out, "SLICE", 2)
    mine = [await world.engine.start("alpha") for _ in range(7)]
    id = await world.begin(BulkOrder(verb="cancel", reason="no need"))
    one, two = world.service(), world.service(world.engine.another())
    going = True
    while going:
        going = any([await one.go_on(TENANT, id), await two.go_on(TENANT, id)])
    found = await world.state(id)
    assert (found.status, found.handled, found.done) == ("completed", 7, 7)
    assert [world.engine.of_stream(run_id).count("run.cancelled") for run_id in mine] == [1] * 7


async def test_a_cancelled_one_leaves_the_others_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying_out, "SLICE", 2)
    mine = [await world.engine.start("alpha") for _ in range(5)]
    id = await world.begin()
    service = world.service()
    await service.go_on(TENANT, id)
    await service.go_on(TENANT, id)
    await world.engine.give(CancelBulkAction(bulk_action_id=id, by="key:bob"))
    assert await service.go_on(TENANT, id) is False
    found = await world.state(id)
    assert (found.status, found.handled, found.done) == ("cancelled", 2, 2)
    assert [(await world.run_of(run_id)).paused for run_id in mine] == [True, True, False, False, False]


async def test_signals_retries_and_the_way_back(world: World) -> None:
    run_id = await world.engine.start("alpha")
    signal = BulkOrder(verb="signal", reason="r", signal=SignalSaid(name="go", payload={"a": 1}))
    found = await world.carried_out(await world.begin(signal))
    assert (found.done, world.engine.of_stream(run_id).count("run.signalled")) == (1, 1)
    await world.carried_out(await world.begin())
    found = await world.carried_out(await world.begin(BulkOrder(verb="resume", reason="r")))
    assert (found.done, (await world.run_of(run_id)).paused) == (1, False)
    found = await world.carried_out(await world.begin(BulkOrder(verb="retry", reason="r"), RunFilter(statuses=("running",))))
    assert (found.done, list(found.refused)) == (0, ["invalid-state"])
    found = await world.carried_out(await world.begin(BulkOrder(verb="cancel", reason="r")))
    assert (found.done, (await world.run_of(run_id)).cancel_reason) == (1, "r")
    async with world.engine.running():
        await world.engine.settled()
        found = await world.carried_out(await world.begin(BulkOrder(verb="retry", reason="r"), RunFilter(statuses=("cancelled",))))
        assert (found.done, dict(found.refused)) == (1, {})
        assert world.engine.of_stream(run_id).count("run.retried") == 1


async def test_queued_runs_are_meant_unless_a_filter_says_no(world: World) -> None:
    goes_on, *queued = [await start_with_key(world.engine) for _ in range(3)]
    found = await world.carried_out(await world.begin())
    assert (found.selected, [(await world.run_of(each)).paused for each in queued]) == (3, [True, True])
    found = await world.carried_out(await world.begin(BulkOrder(verb="resume", reason="r")))
    assert (found.done, [(await world.run_of(each)).paused for each in (goes_on, *queued)]) == (3, [False] * 3)
    signal = BulkOrder(verb="signal", reason="r", signal=SignalSaid(name="go"))
    assert (await world.carried_out(await world.begin(signal))).done == 3
    await world.carried_out(await world.begin(BulkOrder(verb="cancel", reason="r"), RunFilter(statuses=("running",))))
    async with world.engine.running():
        await world.engine.settled()
    assert [(await world.run_of(each)).status for each in (goes_on, *queued)] == ["cancelled", "running", "running"]
    await world.carried_out(await world.begin(BulkOrder(verb="cancel", reason="r")))
    assert [(await world.run_of(each)).status for each in queued] == ["cancelled", "cancelled"]
    assert list(STATUSES["cancel"]) == ["queued", "running", "paused"], "a run that begins meanwhile is not missed"


async def test_a_filter_that_cannot_be_looked_for_ends_it(world: World) -> None:
    world.listed.refuses = "error must be words"
    found = await world.carried_out(await world.begin())
    assert found.status == "failed"


async def test_it_waits_until_the_list_knows_what_was_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await world.engine.start("alpha")
    id = await world.begin()
    world.listed.behind = 1
    service, pauses = world.service(), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(carrying_out.asyncio, "sleep", sleep)
    for _ in range(8):
        assert await service.go_on(TENANT, id) is True
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], "a list that stands still is asked less and less"
    monkeypatch.undo()
    assert (await world.state(id)).parts == 0
    world.listed.behind = 0
    await world.carried_out(id, service)
    assert (await world.run_of(run_id)).paused


async def test_one_that_cannot_be_read_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await world.engine.start("alpha")
    broken, id = await world.begin(), await world.begin()
    service, go_on = world.service(), BulkActionService.go_on

    async def fails(self: BulkActionService, tenant_id: UUID, bulk_action_id: UUID) -> bool:
        if bulk_action_id == broken:
            raise ValueError("damaged")
        return await go_on(self, tenant_id, bulk_action_id)

    monkeypatch.setattr(BulkActionService, "go_on", fails)
    found = await world.carried_out(id, service)
    assert (found.status, (await world.run_of(run_id)).paused) == ("completed", True)
    assert (await world.state(broken)).status == "selecting"


async def test_an_outage_is_waited_out(world: World) -> None:
    run_id = await world.engine.start("alpha")
    id = await world.begin()
    world.engine.log.away = True
    with pytest.raises(Unavailable):
        await world.service().go_on(TENANT, id)
    world.engine.log.away = False
    await world.carried_out(id)
    await until(lambda: "run.paused" in world.engine.of_stream(run_id), "the pause")


async def test_a_dry_run_counts_and_writes_nothing(world: World) -> None:
    mine = [await world.engine.start("alpha") for _ in range(3)]
    await world.engine.give(PauseRun(run_id=mine[0]))
    head = world.engine.log.head
    found = await find_runs(world.listed, TENANT, BulkOrder(verb="cancel"), RunFilter(agent="alpha"), None)  # type: ignore[arg-type]
    assert (found.matched, found.complete, set(found.runs)) == (3, True, set(mine))
    found = await find_runs(world.listed, TENANT, PAUSE, RunFilter(), None)  # type: ignore[arg-type]
    assert (found.matched, found.runs) == (2, [mine[2], mine[1]])
    assert world.engine.log.head == head
    world.listed.refuses = "no words"
    with pytest.raises(InvalidCommand) as refused:
        await find_runs(world.listed, TENANT, PAUSE, RunFilter(), None)  # type: ignore[arg-type]
    assert refused.value.pointer == "/filter/error"


def test_the_action_needs_the_right_of_the_command() -> None:
    assert RIGHTS == {
        "pause": Action.RUNS_STEER, "resume": Action.RUNS_STEER, "cancel": Action.RUNS_CANCEL, "retry": Action.RUNS_RETRY,
        "signal": Action.RUNS_SIGNAL, "priority": Action.RUNS_STEER,
    }  # fmt: skip
    assert STATUSES.keys() == RIGHTS.keys()
    ended = Run(status="completed")
    assert not any(is_so(BulkOrder(verb=verb), ended) for verb in STATUSES)
    assert is_so(BulkOrder(verb="cancel"), Run(status="cancelled"))
    queued = Run(status="running", queued=True)
    assert (is_so(PAUSE, queued), is_so(BulkOrder(verb="resume"), queued)) == (False, True)
    assert "queued" in STATUSES["pause"] and "queued" in STATUSES["cancel"]


def test_a_payload_that_no_run_takes_is_refused_before_it_begins() -> None:
    large = BulkOrder(verb="signal", signal=SignalSaid(name="go", payload="x" * MAX_PAYLOAD_BYTES))
    with pytest.raises(InvalidCommand, match="the payload has"):
        check_order(large, new_id())
    check_order(PAUSE, new_id())
