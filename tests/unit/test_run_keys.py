"""Keys of runs: who holds a key, who waits for it; and runs that wait, through the product's own catalog, in memory."""

import contextlib
from random import Random
from uuid import UUID

import pytest

from application.engine.commands.request import CommandRequest
from application.runs.keys import key_of_run
from application.runs.retry import retry_run
from application.runs.start import StartedDifferently, start_run
from application.runs.terms import Terms
from domain import agents, runs
from domain.access import Action, roles_that_may
from domain.concurrency import Concurrency, KeyOfRun, OnBusy, key_id_of
from domain.errors import DomainError, InvalidState, RunKeyBusy, RunKeyQueueFull
from domain.failures import Failure
from domain.kernel import Metadata
from domain.projects import default_project_id
from domain.run_keys import (
    DECIDER,
    MOST_WAITING,
    ReleaseKey,
    RunKey,
    RunKeyLeft,
    RunKeyQueued,
    RunKeyReleased,
    RunKeyTaken,
    TakeKey,
    Turn,
)
from domain.runs import CancelRun, ForceStep, PauseRun, ResumeRun, RetryRun, SetDeadline
from tests.kit import given
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory.reads import MemoryNames
from tests.kit.waiting import TENANT, new_id, request_of

KEY = UUID(int=7)
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
PROJECT = default_project_id(TENANT)
DEPLOY = Concurrency(key="deploy")


def take(run_id: UUID, on_busy: OnBusy = "queue", turn: int = 0) -> TakeKey:
    return TakeKey(key_id=KEY, key="k", run_id=run_id, turn=turn, on_busy=on_busy)


def release(run_id: UUID, turn: int = 0) -> ReleaseKey:
    return ReleaseKey(key_id=KEY, run_id=run_id, turn=turn)


def turn(run_id: UUID, number: int = 0) -> Turn:
    return Turn(run_id=run_id, number=number)


def taken(run_id: UUID, number: int = 0, *, waited: bool = False) -> RunKeyTaken:
    return RunKeyTaken(key="k", turn=turn(run_id, number), waited=waited)


def queued(run_id: UUID, holder: UUID, *replaced: UUID, number: int = 0) -> RunKeyQueued:
    return RunKeyQueued(key="k", turn=turn(run_id, number), holder=turn(holder), replaced=tuple(turn(each) for each in replaced))


# --- the key --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_busy", ["queue", "reject", "replace"])
def test_a_free_key_is_taken(on_busy: OnBusy) -> None:
    given(DECIDER).when(take(ONE, on_busy)).then(taken(ONE))
    given(DECIDER, taken(TWO), RunKeyReleased(key="k", turn=turn(TWO))).when(take(ONE, on_busy)).then(taken(ONE))


def test_a_busy_key_is_refused_with_the_run_that_holds_it() -> None:
    with pytest.raises(RunKeyBusy, match=f"^run {ONE} holds the key 'k'$") as refused:
        DECIDER.decide(RunKey("k", turn(ONE)), take(TWO, "reject"))
    assert (refused.value.run_id, refused.value.pointer) == (ONE, "/concurrency/key")


def test_runs_stand_in_line_in_order_of_arrival() -> None:
    given(DECIDER, taken(ONE)).when(take(TWO)).then(queued(TWO, ONE))
    waiting = given(DECIDER, taken(ONE), queued(TWO, ONE), queued(THREE, ONE))
    waiting.when(release(ONE)).then(RunKeyReleased(key="k", turn=turn(ONE)), taken(TWO, waited=True))
    waiting.when(release(TWO)).then(RunKeyLeft(key="k", turn=turn(TWO)))
    left = given(DECIDER, taken(ONE), queued(TWO, ONE), queued(THREE, ONE), RunKeyLeft(key="k", turn=turn(TWO)))
    left.when(release(ONE)).then(RunKeyReleased(key="k", turn=turn(ONE)), taken(THREE, waited=True))


def test_a_line_has_an_end() -> None:
    most = tuple(turn(UUID(int=100 + number)) for number in range(MOST_WAITING))
    with pytest.raises(RunKeyQueueFull) as refused:
        DECIDER.decide(RunKey("k", turn(ONE), most), take(TWO))
    assert refused.value.message == "1,000 runs wait for the key 'k', and no more may: try again when some have begun"
    assert len(DECIDER.decide(RunKey("k", turn(ONE), most[1:]), take(TWO))) == 1
    [replacing] = DECIDER.decide(RunKey("k", turn(ONE), most), take(TWO, "replace"))
    assert isinstance(replacing, RunKeyQueued)
    assert replacing.replaced == (turn(ONE), *most), "the newest run replaces all of them"


def test_a_run_that_replaces_is_the_only_one_in_line() -> None:
    state = given(DECIDER, taken(ONE), queued(TWO, ONE))
    state.when(take(THREE, "replace")).then(queued(THREE, ONE, ONE, TWO))
    replaced = given(DECIDER, taken(ONE), queued(TWO, ONE), queued(THREE, ONE, ONE, TWO))
    replaced.when(release(TWO)).then()
    replaced.when(release(ONE)).then(RunKeyReleased(key="k", turn=turn(ONE)), taken(THREE, waited=True))


def test_what_comes_late_or_twice_changes_nothing() -> None:
    held = given(DECIDER, taken(ONE, 2), queued(TWO, ONE))
    held.when(take(ONE, "reject", 2)).then()
    held.when(take(ONE, "reject", 1)).then()
    held.when(take(TWO, "reject")).then()
    held.when(release(ONE, 1)).then()
    held.when(release(THREE)).then()
    given(DECIDER).when(release(ONE)).then()


def test_a_retry_takes_the_key_again_unless_others_wait_for_it() -> None:
    """The end of the turn before may not have been heard of."""
    given(DECIDER, taken(ONE)).when(take(ONE, "reject", 1)).then(taken(ONE, 1))
    with pytest.raises(RunKeyBusy, match=f"run {TWO} holds"):
        DECIDER.decide(RunKey("k", turn(ONE), (turn(TWO),)), take(ONE, "reject", 1))
    again = given(DECIDER, taken(ONE), queued(TWO, ONE)).when(take(ONE, "queue", 1))
    again.then(queued(ONE, ONE, number=1))


def test_a_key_belongs_to_a_project() -> None:
    other = UUID(int=9)
    assert len({key_id_of(TENANT, PROJECT, "a"), key_id_of(TENANT, other, "a"), key_id_of(other, PROJECT, "a")}) == 3
    made = key_of_run(TENANT, PROJECT, Concurrency(key="a", on_busy="replace"), "ada")
    assert made == KeyOfRun(key="a", on_busy="replace", on_behalf_of="ada", key_id=key_id_of(TENANT, PROJECT, "a"))
    assert made.said == Concurrency(key="a", on_busy="replace")


@pytest.mark.parametrize("key", ["", "   ", "a\x00b", "k" * 201])
def test_some_texts_are_no_keys(key: str) -> None:
    with pytest.raises(ValueError, match=r"key|string"):
        Concurrency(key=key)


def test_whoever_may_start_a_run_may_cancel_one() -> None:
    """A start that replaces a run cancels it."""
    assert set(roles_that_may(Action.RUNS_START)) <= set(roles_that_may(Action.RUNS_CANCEL))


# --- runs -----------------------------------------------------------------------------------------------------------------


async def start(
    engine: Engine, on_busy: OnBusy = "queue", *, run_id: UUID | None = None, request: CommandRequest | None = None,
    plan: runs.Plan | None = None, deadline_s: float | None = None, key: str = "deploy",
) -> UUID:  # fmt: skip
    run_id = run_id or new_id()
    await start_run(
        engine.commands, request or request_of(TENANT), run_id=run_id, project_id=PROJECT, plan=plan or runs.sequential(("alpha",)),
        input=None, metadata={}, terms=Terms(deadline_s, Concurrency(key=key, on_busy=on_busy)),
        known=MemoryNames(engine.log, agents.AgentRegistered), admission=engine.admission,
    )  # fmt: skip
    return run_id


async def is_queued(engine: Engine, run_id: UUID) -> bool:
    run = await engine.run(run_id)
    return run.status == "running" and run.queued


async def holder(engine: Engine, key: str = "deploy") -> RunKey:
    await engine.settled()
    state: RunKey = (await engine.commands.load(DECIDER, TENANT, key_id_of(TENANT, PROJECT, key))).state
    return state


async def retry(engine: Engine, run_id: UUID) -> None:
    await retry_run(engine.commands, engine.feed, request_of(TENANT), RetryRun(run_id=run_id), lambda request: request)


async def test_a_run_with_a_free_key_begins_in_the_append_of_its_start(engine: Engine, worker: PlayedWorker) -> None:
    before = len(engine.log.events)
    run_id = await start(engine)
    told = [event.topic for event in engine.log.events[before:]]
    begun = told.index("run.begun")
    assert told[:2] == ["run.started", "run.queued"]
    assert "agent_run.requested" in told[begun:], "nothing was left to the saga manager"
    await (await worker.next("alpha")).complete()
    assert (await engine.run(run_id)).status == "completed"
    assert (await holder(engine)).holder is None


async def test_a_run_without_a_key_has_nothing_of_it(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    assert engine.of_stream(run_id) == ["run.started", "run.step_scheduled"]


async def test_the_next_run_begins_when_the_one_before_has_ended(engine: Engine, worker: PlayedWorker) -> None:
    first, second, third = [await start(engine) for _ in range(3)]
    other = await start(engine, key="another")
    assert [await is_queued(engine, each) for each in (first, second, third, other)] == [False, True, True, False]
    await engine.give(CancelRun(run_id=second))
    await (await worker.next("alpha")).complete()
    assert not await is_queued(engine, third), "the one that was cancelled has left the line"
    assert (await holder(engine)).holder == turn(third)


async def test_a_start_is_refused_while_the_key_is_held(engine: Engine, worker: PlayedWorker) -> None:
    first = await start(engine, "reject")
    assert "run.queued" not in engine.of_stream(first)
    before = engine.log.head
    with pytest.raises(RunKeyBusy) as refused:
        await start(engine, "reject")
    assert (refused.value.run_id, engine.log.head) == (first, before)


async def test_a_key_is_not_busy_with_a_run_that_has_ended(engine: Engine, worker: PlayedWorker) -> None:
    """The saga manager stands still here: the key has not heard of the end."""
    first = await start(engine, "reject")
    for task in engine.tasks:
        task.cancel()
    await engine.give(CancelRun(run_id=first))
    second = await start(engine, "reject")
    state: RunKey = (await engine.commands.load(DECIDER, TENANT, key_id_of(TENANT, PROJECT, "deploy"))).state
    assert state.holder == turn(second)
    engine.tasks.clear()


async def test_a_start_replaces_the_run_that_holds_the_key_and_those_that_wait(engine: Engine, worker: PlayedWorker) -> None:
    first, second = await start(engine), await start(engine)
    newest = await start(engine, "replace")
    assert not await is_queued(engine, newest)
    for each in (first, second):
        run = await engine.run(each)
        assert (run.status, run.cancel_reason) == ("cancelled", f"run {newest} has replaced it")
    assert (await holder(engine)).holder == turn(newest)


async def test_a_start_that_is_repeated_gets_its_first_answer(engine: Engine, worker: PlayedWorker) -> None:
    first, request = await start(engine), request_of(TENANT, repeatable=True)
    run_id = await start(engine, request=request)
    head = await engine.settled()
    assert await start(engine, run_id=run_id, request=request) == run_id
    with pytest.raises(StartedDifferently, match="with another plan, input, project, priority, compensation, key, budget"):
        await start(engine, "replace", run_id=run_id, request=request)
    assert await engine.settled() == head
    assert (await holder(engine)).waiting == (turn(run_id),)
    assert not await is_queued(engine, first)


async def test_a_queued_run_has_its_deadline_from_its_start(engine: Engine, worker: PlayedWorker) -> None:
    await start(engine)
    waiting = await start(engine, deadline_s=60)
    await engine.advance(61)
    assert (await engine.run(waiting)).status == "failed"
    assert (await holder(engine)).waiting == ()


async def test_a_queued_run_that_is_paused_gets_its_key_and_begins_at_its_resumption(engine: Engine, worker: PlayedWorker) -> None:
    await start(engine)
    waiting = await start(engine)
    await engine.give(PauseRun(run_id=waiting))
    await (await worker.next("alpha")).complete()
    assert (await holder(engine)).holder == turn(waiting)
    assert engine.of_stream(waiting)[-1] == "run.begun"
    await engine.give(ResumeRun(run_id=waiting))
    await (await worker.next("alpha")).complete()
    assert (await engine.run(waiting)).status == "completed"


async def test_a_queued_run_that_was_paused_and_resumed_still_waits(engine: Engine, worker: PlayedWorker) -> None:
    await start(engine)
    waiting = await start(engine)
    await engine.give(PauseRun(run_id=waiting))
    await engine.give(ResumeRun(run_id=waiting))
    assert engine.of_stream(waiting)[-1] == "run.resumed"
    assert await is_queued(engine, waiting)


async def test_what_people_say_of_the_steps_of_a_queued_run_counts_from_its_turn(engine: Engine, worker: PlayedWorker) -> None:
    await start(engine)
    forced, failed = [await start(engine, plan=runs.sequential(("gamma", "beta"))) for _ in range(2)]
    person = runs.ByPerson(by="key:ann", reason="known")
    await engine.give(ForceStep(run_id=forced, step="gamma", result=1, person=person))
    error = Failure(type="No", message="no", kind="permanent")
    await engine.give(ForceStep(run_id=failed, step="gamma", error=error, person=person))
    assert [await is_queued(engine, each) for each in (forced, failed)] == [True, True]
    await (await worker.next("alpha")).complete()
    await (await worker.next("beta")).complete()
    assert [(await engine.run(each)).status for each in (forced, failed)] == ["completed", "failed"]
    assert (await holder(engine)).holder is None


@pytest.mark.parametrize("reactions", [True, False])
async def test_a_run_begins_for_whom_it_was_started_whoever_was_before(reactions: bool) -> None:
    engine = Engine(reactions=reactions)
    async with engine.running():
        await engine.set_up()
        await engine.worker().register("alpha")
        first, second = [await start(engine, request=request_of(TENANT)._replace(on_behalf_of=who)) for who in ("ada", None)]
        third = await start(engine, request=request_of(TENANT)._replace(on_behalf_of="bob"))
        for run_id, who in ((first, "ada"), (second, None), (third, "bob")):
            await engine.settled()
            told = [event for event in engine.log.events if event.root_id == run_id]
            seen = {Metadata.model_validate_json(event.metadata).on_behalf_of for event in told}
            assert "agent_run.requested" in [event.topic for event in told] and seen == {who}
            begun = next(Metadata.model_validate_json(event.metadata) for event in told if event.topic == "run.begun")
            assert begun.correlation_id == run_id
            await engine.give(CancelRun(run_id=run_id))


async def test_a_retry_takes_the_key_again_and_is_refused_where_it_is_held(engine: Engine, worker: PlayedWorker) -> None:
    first = await start(engine)
    await (await worker.next("alpha")).fail(kind="permanent")
    assert (await engine.run(first)).status == "failed"
    second = await start(engine)
    with pytest.raises(RunKeyBusy, match=f"run {second} holds the key 'deploy'"):
        await retry(engine, first)
    await (await worker.next("alpha")).complete()
    await engine.settled()
    await retry(engine, first)
    assert (await holder(engine)).holder == turn(first, 1)
    await (await worker.next("alpha")).complete()
    assert (await engine.run(first)).status == "completed"
    assert (await holder(engine)).holder is None


async def test_a_run_that_was_cancelled_while_it_waited_begins_by_its_retry(engine: Engine, worker: PlayedWorker) -> None:
    await start(engine)
    waiting = await start(engine)
    await engine.give(CancelRun(run_id=waiting))
    await (await worker.next("alpha")).complete()
    await engine.settled()
    await retry(engine, waiting)
    await (await worker.next("alpha")).complete()
    assert (await engine.run(waiting)).status == "completed"


async def test_whether_a_retry_takes_the_key_must_fit_the_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await start(engine)
    await engine.give(CancelRun(run_id=run_id))
    await engine.settled()
    for takes in (None, 2):
        with pytest.raises(runs.KeyNotTaken, match="has ended, or gone on, since it was looked at"):
            await engine.give(RetryRun(run_id=run_id, takes_key=takes))


async def test_a_replacement_does_not_reach_a_later_turn_of_the_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await start(engine)
    await engine.give(runs.AbandonRun(run_id=run_id, turn=1))
    assert (await engine.run(run_id)).status == "running"
    await engine.give(runs.BeginRun(run_id=run_id))
    assert engine.of_stream(run_id).count("run.begun") == 1


# --- any order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_one_run_at_a_time_whatever_happens(seed: int) -> None:
    """Two processes, reactions in the append or by the manager: no two runs of a key go on at once, none is forgotten."""
    rng = Random(seed)
    engine = Engine(reactions=seed % 2 == 0)
    async with engine.running():
        await engine.set_up()
        other = engine.another()
        await engine.worker().register("alpha")
        started: list[UUID] = []
        for _ in range(40):
            process = rng.choice([engine, other])
            match rng.choice(["start", "start", "start", "cancel", "cancel", "pause", "resume", "retry", "deadline"]):
                case "start":
                    with contextlib.suppress(RunKeyBusy):
                        started.append(await start(process, rng.choice(["queue", "queue", "reject", "replace"])))
                case what if started:
                    await _try(process, what, rng.choice(started))
            if rng.random() < 0.4:
                await engine.settled()
        await engine.settled()
        for run_id in started:
            await _try(engine, "resume", run_id)
        while True:  # each run that holds the key is ended, until nobody waits
            state = await holder(engine)
            if state.holder is None:
                break
            going = [each for each in started if (run := await engine.run(each)).status == "running" and not run.queued]
            assert going == [state.holder.run_id]
            await engine.give(CancelRun(run_id=state.holder.run_id))
        assert [each for each in started if (await engine.run(each)).status == "running"] == []
        check_turns(engine, set(started))


async def _try(process: Engine, what: str, run_id: UUID) -> None:
    try:
        match what:
            case "cancel":
                await process.give(CancelRun(run_id=run_id))
            case "pause":
                await process.give(PauseRun(run_id=run_id))
            case "resume":
                await process.give(ResumeRun(run_id=run_id))
            case "deadline":
                await process.give(SetDeadline(run_id=run_id, deadline_s=1e6))
            case "retry":
                await retry(process, run_id)
    except (InvalidState, DomainError):
        pass


def check_turns(engine: Engine, started: set[UUID]) -> None:
    """By the order of the log: a run is under way from its first step, or that of its retry, to its end."""
    going: set[UUID] = set()
    for event in engine.log.events:
        if event.stream_id not in started:
            continue
        if event.topic == "run.step_scheduled":
            going.add(event.stream_id)
            assert len(going) == 1, "two runs of one key go on"
        elif event.topic in runs.ENDS:
            going.discard(event.stream_id)
