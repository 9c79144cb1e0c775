"""Steps that are more than one execution of an agent: rows and replay tell the same, at each position; an event costs the same in
a large map."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from application.reads import RunsWanted
from domain import agent_runs, runs
from domain.failures import Failure
from domain.kernel import Event, RecordedEvent
from domain.plans import Adaptive, AgentRef, ChildRun, Each, Gather, Repeat, Wait
from domain.tenants import DEFAULT_TENANT_ID
from projections import runs as read_model
from projections.run_terms import PROJECTION as RUN_TERMS
from projections.runs import list_runs, list_runs_as_of
from projections.runs.queries import read_parts
from tests.integration.projection_kit import PROJECT, Log, log_on
from tests.integration.system_kit import System, new_id

FAILURE = Failure(type="E", message="broken", traceback="at line 1")
PLAN = runs.Plan(
    steps=(
        runs.Step(key="look", agent="a", when="input.deep", input_from="input.about", fallbacks=(AgentRef(agent="b"),)),
        runs.Step(key="map", agent="a", after=("look",), each=Each(over="steps.look.result", on_failure="continue")),
        runs.Step(key="loop", agent="a", repeat=Repeat(times=5, until="result > 3")),
        runs.Step(key="grow", agent="a", adaptive=Adaptive(agents=(AgentRef(agent="b"),))),
        runs.Step(key="child", run=ChildRun(plan={"steps": [{"key": "x", "agent": "a"}]})),
        runs.Step(key="pause", wait=Wait(s=60)),
        runs.Step(key="fast", agent="a"),
        runs.Step(key="slow", agent="b", each=Each(over="input.list")),
        runs.Step(key="first", gather=Gather(mode="any"), after=("fast", "slow")),
        runs.Step(key="sum", value="1 + 1", when="steps.loop.result > 1", after=("loop",)),
        runs.Step(key="never", agent="a", when="false"),
        runs.Step(key="after.never", agent="a", after=("never",)),
    ),
    result="steps.sum.result",
)


class Told:
    """Events of one run, in their order."""

    def __init__(self) -> None:
        self.run_id = new_id()
        self.events: list[tuple[UUID, Event]] = []
        self.child = new_id()

    def run(self, *events: Event) -> None:
        self.events += [(self.run_id, event) for event in events]

    def agent_run(self, name: str, fallback: int = 0) -> UUID:
        return runs.agent_run_id_of(self.run_id, f"{name}:{fallback}" if fallback else name)

    def works(self, id: UUID, *events: Event) -> None:
        self.events += [(id, agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1)), *((id, event) for event in events)]

    def part(self, step: str, number: int, fallback: int = 0) -> UUID:
        id = self.agent_run(f"{step}.{number}", fallback)
        agent = "b" if fallback else "a"
        self.run(runs.PartScheduled(step=step, part=number, agent_run_id=id, agent=agent, input={"n": number}))
        return id


def told() -> Told:
    """Every form, each of its outcomes."""
    story = Told()
    parent = runs.Parent(run_id=new_id(), step="above", part=3)
    origin = runs.Origin(kind="schedule", name="nightly")
    story.run(
        runs.RunStarted(
            project_id=PROJECT, plan=PLAN, parent=parent, workflow=runs.WorkflowRef(name="review", version=2), origin=origin
        )
    )
    first, second = story.agent_run("look"), story.agent_run("look", 1)
    scheduled = runs.StepScheduled(step="look", agent="a", agent_version=None, agent_run_id=first, saw={"input.deep": True})
    story.run(scheduled.model_copy(update={"mapped": True, "input": {"about": "x"}}))
    story.works(first, agent_runs.CallStarted(attempt=1, key="k", tool="t", invocation_id=new_id()))
    story.run(
        runs.StepFellBack(step="look", execution_id=first, agent="b", number=1, error=FAILURE),
        scheduled.model_copy(update={"agent": "b", "agent_run_id": second}),
    )
    story.works(second, agent_runs.CallStarted(attempt=1, key="k", tool="t", invocation_id=new_id()))
    story.events.append((first, agent_runs.AgentRunCancelled()))  # late: the step goes on with another
    story.run(runs.StepCompleted(step="look", agent_run_id=second, result=[1, 2, 3]))
    _map(story)
    _loop_and_others(story)
    story.run(runs.RunCompleted(result=2, degraded=True, missing=("never",)))
    return story


def _map(story: Told) -> None:
    story.run(runs.StepStarted(step="map", form="each", items=tuple(range(25)), saw={}))
    for number in range(22):
        id = story.part("map", number)
        story.works(id)
        match number:
            case 0:
                story.events.append((id, agent_runs.AgentRunRetryScheduled(attempt=1, error=FAILURE, delay_s=1.0, dispatch=2)))
                story.events.append((id, agent_runs.AgentRunResumed(run_id=story.run_id, agent="a", dispatch=2, lapsed=1)))
            case 1:
                story.run(runs.PartFailed(step="map", part=1, execution_id=id, error=FAILURE, tolerated=True))
            case 2:
                story.events.append((id, agent_runs.AgentRunCancelled()))
            case 3:
                story.run(runs.StepFellBack(step="map", part=3, execution_id=id, agent="b", number=1, error=FAILURE))
                again = story.part("map", 3, fallback=1)
                story.works(again, agent_runs.CallStarted(attempt=1, key="k", tool="t", invocation_id=new_id()))
                story.works(again, agent_runs.StepRecorded(attempt=1, key="s", kind="step", result=1))
                story.run(runs.PartCompleted(step="map", part=3, execution_id=again, result="y" * 20_000))
            case _:
                story.run(runs.PartCompleted(step="map", part=number, execution_id=id, result=number))
    story.run(
        runs.StepCompleted(
            step="map", agent_run_id=None, result=["z" * 20_000], without=(1,), abandoned=(story.agent_run("map.0"),)
        )
    )


def _loop_and_others(story: Told) -> None:
    story.run(runs.StepStarted(step="loop", form="repeat"))
    for number in range(2):
        id = story.part("loop", number)
        story.run(runs.PartCompleted(step="loop", part=number, execution_id=id, result=number))
    story.run(runs.StepCompleted(step="loop", agent_run_id=None, result=4, exhausted=True))
    story.run(
        runs.StepStarted(step="grow", form="adaptive"),
        runs.StepFailed(step="grow", agent_run_id=None, error=FAILURE, tolerated=True),
    )
    story.run(
        runs.StepStarted(step="child", form="run"),
        runs.PartScheduled(step="child", part=0, child_id=story.child, plan={"steps": []}),
        runs.PartCompleted(step="child", part=0, execution_id=story.child, result={"ok": True}),
        runs.StepCompleted(step="child", agent_run_id=None, result={"ok": True}),
        runs.StepStarted(step="pause", form="wait", delay_s=60),
    )  # fmt: skip
    fast = story.agent_run("fast")
    story.run(runs.StepScheduled(step="fast", agent="a", agent_version=None, agent_run_id=fast))
    story.run(runs.StepStarted(step="slow", form="each", items=(1, 2)))
    slow = story.part("slow", 0)
    story.run(
        runs.StepCompleted(step="fast", agent_run_id=fast, result=1),
        runs.StepSkipped(step="slow", reason="not_needed", by="first", abandoned=(slow,)),
        runs.StepCompleted(step="first", agent_run_id=None, result={"fast": 1}),
        runs.StepCompleted(step="sum", agent_run_id=None, result=2, saw={"steps.loop.result": 4}),
        runs.StepSkipped(step="never", reason="condition", condition="false", value=False, saw={}),
        runs.StepSkipped(step="after.never", reason="upstream"),
        runs.StepCompleted(step="pause", agent_run_id=None),
    )  # fmt: skip


async def recorded(log: Log, story: Told) -> Sequence[RecordedEvent]:
    versions: dict[UUID, int] = {}
    for stream_id, event in story.events:
        await log.append(story.run_id, (stream_id, versions.get(stream_id, 0), [event]))
        versions[stream_id] = versions.get(stream_id, 0) + 1
    return await log.feed.read(after=0, limit=len(story.events))


async def applied(log: Log, batch: Sequence[RecordedEvent]) -> None:
    async with log.database.transaction() as connection:
        await read_model.PROJECTION.apply(connection, batch)


async def shown(log: Log, run_id: UUID) -> object:
    async with log.database.connection() as connection:
        found = (await read_model.get_run(connection, DEFAULT_TENANT_ID, run_id)).value
    assert found is not None
    return found.model_dump(mode="json")


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_rows_and_replay_tell_the_same_of_every_form(database_url: str, size: int) -> None:
    async with log_on(database_url) as log:
        story = told()
        events = await recorded(log, story)
        for first in range(0, len(events), size):
            await applied(log, events[first : first + size])
            expected = read_model.replay(events[: first + size])
            assert expected is not None
            assert await shown(log, story.run_id) == expected.model_dump(mode="json"), events[min(first + size, len(events)) - 1]


async def test_what_a_run_of_every_form_shows(database_url: str) -> None:
    async with log_on(database_url) as log:
        story = told()
        events = await recorded(log, story)
        await applied(log, events)
        run = read_model.replay(events)
        assert run is not None and run.result == 2
        assert run.parent is not None and (run.parent.step, run.parent.part) == ("above", 3)
        steps = {step.key: step for step in run.steps}
        assert {key: step.status for key, step in steps.items() if step.status != "completed"} == {
            "grow": "failed", "slow": "skipped", "never": "skipped", "after.never": "skipped",
        }  # fmt: skip
        assert [step.form for step in run.steps] == [
            "agent", "each", "repeat", "adaptive", "run", "wait", "agent", "each", "gather", "value", "agent", "agent",
        ]  # fmt: skip
        look = steps["look"]
        assert look.why is not None and (look.why.condition, look.why.value, look.why.saw) == (
            "input.deep",
            True,
            {"input.deep": True},
        )
        assert look.input == {"about": "x"} and look.agent_run_id == story.agent_run("look", 1) and look.call_count == 2
        assert look.fallbacks is not None and [(tried.agent, tried.error.traceback) for tried in look.fallbacks] == [("b", None)]
        parts = steps["map"].parts
        assert parts is not None and (parts.total, parts.started, parts.completed, parts.failed, parts.cancelled) == (
            25,
            22,
            19,
            1,
            2,
        )
        assert [part.number for part in parts.first] == list(range(20))
        assert [part.status for part in parts.first[:4]] == ["cancelled", "failed", "cancelled", "completed"]
        assert (parts.first[3].agent, parts.first[3].fallback) == ("b", 1)
        loop, child = steps["loop"].parts, steps["child"].parts
        assert loop is not None and (loop.total, loop.started, steps["loop"].exhausted) == (5, 2, True)
        assert child is not None and (child.first[0].run_id, child.first[0].agent_run_id) == (story.child, None)
        slow, never, later, total = steps["slow"].why, steps["never"].why, steps["after.never"].why, steps["sum"].why
        assert slow is not None and (slow.reason, slow.by) == ("not_needed", "first")
        assert never is not None and (never.reason, never.condition, never.value) == ("condition", "false", False)
        assert later is not None and later.reason == "upstream"
        assert total is not None and (total.value, total.saw) == (True, {"steps.loop.result": 4})
        pause = steps["pause"]
        assert pause.waits_until is not None and pause.started_at is not None
        assert pause.waits_until - pause.started_at == timedelta(seconds=60)


async def test_parts_have_a_list_with_their_values(database_url: str) -> None:
    async with log_on(database_url) as log:
        story = told()
        await applied(log, await recorded(log, story))
        async with log.database.connection() as connection:
            page = await read_parts(connection, DEFAULT_TENANT_ID, story.run_id, "map", limit=4, after=-1)
            assert page is not None and page.next_cursor is not None
            assert [(part.number, part.input, part.result) for part in page.data] == [
                (0, {"n": 0}, None), (1, {"n": 1}, None), (2, {"n": 2}, None), (3, {"n": 3}, None),
            ]  # fmt: skip
            assert page.data[1].error == FAILURE
            large = page.data[3].large
            assert large is not None and large["result"].ref.startswith(f"/v1/runs/{story.run_id}/steps/map/parts/3/result?as_of=")
            rest = await read_parts(connection, DEFAULT_TENANT_ID, story.run_id, "map", limit=30, after=3)
            assert rest is not None and rest.next_cursor is None
            assert [part.result for part in rest.data] == list(range(4, 22))
            other = await read_parts(connection, new_id(), story.run_id, "map", limit=30, after=-1)
            assert other is None, "of another tenant"


async def test_runs_are_found_by_their_parent_their_workflow_and_what_started_them(database_url: str) -> None:
    async with log_on(database_url) as log:
        parent, other = new_id(), new_id()
        plan = runs.Plan(steps=(runs.Step(key="a", value="1"),))

        async def start(of: UUID | None, name: str, version: int, origin: runs.Origin | None = None) -> UUID:
            run_id = new_id()
            above = None if of is None else runs.Parent(run_id=of, step="map")
            workflow = runs.WorkflowRef(name=name, version=version)
            started = runs.RunStarted(project_id=PROJECT, plan=plan, parent=above, workflow=workflow, origin=origin)
            await log.append(run_id, (run_id, 0, [started]))
            return run_id

        first = await start(parent, "review", 1)
        second = await start(parent, "review", 2, runs.Origin(kind="schedule", name="nightly"))
        third = await start(other, "reviews", 1, runs.Origin(kind="trigger", name="nightly"))
        head = await log.feed.head()
        events = await log.feed.read(after=0, limit=head)
        await applied(log, events)
        async with log.database.transaction() as connection:
            await RUN_TERMS.apply(connection, events)

        async def found(position: int | None = None, **filters: Any) -> list[UUID]:
            wanted = RunsWanted(10, **filters)
            async with log.database.connection() as connection:
                if position is None:
                    page = await list_runs(connection, DEFAULT_TENANT_ID, wanted)
                else:
                    page = await list_runs_as_of(connection, DEFAULT_TENANT_ID, position, wanted)
                assert (await list_runs(connection, new_id(), wanted)).data == [], "of another tenant"
            return [run.run_id for run in page.data]

        for position in (None, head):
            assert await found(position, parent=parent) == [second, first]
            assert await found(position, parent=new_id()) == []
            assert await found(position, workflow="review") == [second, first]
            assert await found(position, workflow="review@2") == [second]
            assert await found(position, origin="schedule") == await found(position, origin="schedule:nightly") == [second]
            assert await found(position, origin="nightly") == []
            assert await found(position, parent=parent, workflow="review@1") == [first]
        assert await found(events[1].position, parent=parent) == [second, first]
        assert await found(events[0].position, parent=parent) == [first]
        async with log.database.connection() as connection:
            page = await list_runs(connection, DEFAULT_TENANT_ID, RunsWanted(10))
        told = [run.model_dump(include={"parent", "workflow", "origin", "agents"}) for run in page.data]
        assert told == [
            {"agents": [], "parent": {"run_id": of}, "workflow": {"name": name, "version": version}, "origin": origin}
            for of, name, version, origin in (
                (other, "reviews", 1, {"kind": "trigger", "name": "nightly"}),
                (parent, "review", 2, {"kind": "schedule", "name": "nightly"}),
                (parent, "review", 1, None),
            )
        ]
        assert third == page.data[0].run_id


async def test_lists_of_a_run_without_parts_and_children_are_empty(shared: System) -> None:
    await shared.worker("plain").register("plain")
    run_id = await shared.start("plain")
    position = {"Tidelog-Position": str(await shared.settled())}
    for as_of in ({}, {"as_of": position["Tidelog-Position"]}):
        for path in ("steps/plain/parts", "children"):
            answer = await shared.http.get(f"/v1/runs/{run_id}/{path}", params=as_of, headers={} if as_of else position)
            assert (answer.status_code, answer.json()) == (200, {"data": [], "next_cursor": None}), answer.text
        absent = await shared.http.get(f"/v1/runs/{run_id}/steps/other/parts", params=as_of, headers={} if as_of else position)
        assert absent.status_code == 404 and absent.json()["detail"] == f"run {run_id} has no step other"
    assert (await shared.http.get(f"/v1/runs/{new_id()}/children")).status_code == 404
    assert (await shared.http.get(f"/v1/runs/{new_id()}/steps/plain/parts")).status_code == 404
    assert (await shared.http.get(f"/v1/runs/{run_id}/steps/plain/parts/0/result")).status_code == 404
    assert (await shared.http.get(f"/v1/runs/{run_id}/steps/plain/parts/-1/result")).status_code == 422
    run = await shared.run(run_id)
    assert run["parent"] is run["workflow"] is run["origin"] is None
    [step] = run["steps"]
    assert step["form"] == "agent" and not {"why", "parts", "input", "fallbacks", "waits_until", "exhausted"} & step.keys()
