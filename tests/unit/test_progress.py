"""How far an agent is: the rules of its notes, what is left out, what is sent, and what people see."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from api.cli.progress import progress, progress_of
from application.workers.progress import AT_ONCE
from domain import agent_runs
from domain.agent_runs import MOST_PROGRESS, AgentRunProgressed, CompleteAgentRun, FailAgentRun, ReportProgress
from domain.errors import StaleAttempt, WorkOver
from domain.failures import Failure
from projections.runs.folded import replay
from tests.kit.engine import Engine, PlayedWorker, plan
from tests.kit.scripted_work import agent_work, answer
from tests.kit.scripted_work import running as worker_with
from tests.kit.session_server import scripted
from tests.unit.test_agent_waits import ID, running, sleep, suspend
from tidelog import Agent, Context, testing
from tidelog.progress import MAX_MESSAGE
from tidelog.progress import progress_of as noted

ONE = ReportProgress(agent_run_id=ID, attempt=1, done=3, total=10, message="page 3")
SAID = AgentRunProgressed(attempt=1, done=3.0, total=10.0, message="page 3")
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")

# --- the rules ------------------------------------------------------------------------------------------------------------


def test_a_note_is_recorded_once_and_only_by_the_newest_attempt() -> None:
    running.when(ONE).then(SAID)
    running.after(ONE).when(ONE).then()
    back = ONE.model_copy(update={"done": 2.0})
    running.after(ONE, back).when(ONE).then(SAID)
    running.when(ONE.model_copy(update={"attempt": 2})).refused(StaleAttempt)
    running.after(CompleteAgentRun(agent_run_id=ID, attempt=1)).when(ONE).refused(WorkOver)
    again = running.after(ONE, FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT))
    again.when(ONE).refused(StaleAttempt)


def test_a_note_is_no_news_for_the_worker() -> None:
    """An agent that has said how far it is, and then only waits, leaves its worker."""
    running.after(ONE, sleep()).when(suspend(2)).then(agent_runs.AgentRunSuspended(attempt=1))


@pytest.mark.parametrize(
    "said", [{"done": -1}, {"done": 2 * MOST_PROGRESS}, {"total": 0}, {"done": "many"}, {"message": "x" * 501}]
)
def test_nonsense_of_a_worker_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReportProgress(**{**ONE.model_dump(), **said})


# --- what is recorded and shown -------------------------------------------------------------------------------------------


async def test_notes_are_seen_at_the_step_and_too_many_are_left_out(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan())
    alpha = await worker.next("alpha")
    caller, notes = worker.caller, engine.workers.progress
    sent = [
        await notes.report(caller, ReportProgress(agent_run_id=alpha.work_id, attempt=1, done=done, total=9))
        for done in range(int(AT_ONCE) + 3)
    ]
    assert [each is not None for each in sent] == [True] * int(AT_ONCE) + [False] * 3
    await engine.settled()
    view = replay(sorted((e for e in engine.log.events if e.root_id == run_id), key=lambda e: e.position))
    assert view is not None and view.steps[0].progress is not None
    assert view.steps[0].progress.model_dump(exclude={"at"}) == {
        "done": AT_ONCE - 1, "total": 9.0, "message": None, "attempt": 1, "part": None,
    }  # fmt: skip
    other = await notes.report(caller, ReportProgress(agent_run_id=alpha.work_id, attempt=1, done=8))
    assert other is None, "of other agent runs there is room"


# --- the SDK --------------------------------------------------------------------------------------------------------------


class Reads(Agent):
    """Says more than anybody reads, in the loop and in threads, and nonsense."""

    async def execute(self, ctx: Context) -> int:
        for page in range(1_000):
            ctx.progress(page, 2_000, "in the loop")
        await asyncio.sleep(0)
        await ctx.step("thread", lambda: ctx.progress(1_500, 2_000, "in a thread"))
        for nonsense in ("many", float("nan"), -1, True, None):
            ctx.progress(nonsense)  # type: ignore[arg-type]
        ctx.progress(2_000, 2_000, "x" * 1_000)
        return 1


async def test_the_first_note_and_the_last_are_sent() -> None:
    async with scripted() as server, worker_with(server, Reads):
        peer = await server.welcomed(suspends=True, progress=True)
        await peer.say(agent_work(1, "reads"))
        first = await answer(peer, "progress")
        await answer(peer, "record")
        last = await answer(peer, "progress")
        await answer(peer, "complete")
    assert (first["done"], first["message"]) == (999.0, "in the loop")
    assert (last["done"], last["total"], len(last["message"])) == (2_000.0, 2_000.0, MAX_MESSAGE)


async def test_a_server_of_before_is_told_nothing() -> None:
    async with scripted() as server, worker_with(server, Reads):
        peer = await server.welcomed(suspends=True)
        await peer.say(agent_work(1, "reads"))
        await answer(peer, "record")
        await answer(peer, "complete")
        assert not [message for frame in peer.frames for message in frame if message["t"] == "progress"]


async def test_the_kit_knows_every_note() -> None:
    said = (await testing.run_agent(Reads)).progress
    assert len(said) == 1_002 and said[0] == noted(0, 2_000, "in the loop")
    assert said[-2] == noted(1_500, 2_000, "in a thread") and said[-1].message == "x" * (MAX_MESSAGE - 1) + "…"


@pytest.mark.parametrize(
    ("done", "total", "why"),
    [
        ("3", None, r"`done` is a number, not '3'"),
        (float("inf"), None, r"`done` is a number, not inf"),
        (-1, None, r"`done` is from 0 up to 1e\+15, not -1"),
        (1, 0, r"`total` is more than 0 and up to 1e\+15, not 0"),
        (1, False, r"`total` is a number, not False"),
    ],
)
def test_what_is_no_progress_is_said(done: Any, total: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        noted(done, total, None)
    assert noted(0, 1e15, "\x00\ud800").message == "\ufffd?"


# --- what people see ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"done": 3, "total": 10, "message": "page 3"}, "3 of 10 (30 %): page 3"),
        ({"done": 12, "total": 10}, "12 of 10 (100 %)"),
        ({"done": 1_024.5}, "1,024.50"),
        ({"done": 1, "message": "a\x1b[31mb"}, "1: a"),
    ],
)
def test_words(said: dict[str, Any], words: str) -> None:
    assert progress(said).startswith(words) and "\x1b" not in progress(said)
    assert progress_of({"status": "running", "progress": {**said, "part": 2}}).startswith(f"part 2: {words}")
    assert progress_of({"status": "completed", "progress": said}) == "" == progress_of({"status": "running"})
