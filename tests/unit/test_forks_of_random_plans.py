"""Forks of random plans at any position: what is taken over is as it was, nothing of it runs again, and the rest goes on alike."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from application.runs.forking.cut import Cut, Point, Recorded, cut_at, up_to
from domain import runs
from domain.errors import InvalidState
from domain.kernel import Event, RecordedEvent
from domain.registry import REGISTRY
from domain.runs import DECIDER, ForkedFrom, Run
from tests.unit.test_plans_of_every_form import FUNCTIONS, INPUT, RUN, answer_of, command_of, open_in, plan_of

FORK = UUID("01900000-0000-7000-8000-0000000000cc")
NOW = datetime(2026, 11, 30, tzinfo=UTC)
OVER = ("completed", "failed", "skipped")


class History:
    """A run by the rules, with its events as the log has them, and its state after each decision."""

    def __init__(self, random: Random, size: int, tolerated: float = 0.93) -> None:
        self.random, self.run = random, Run()
        self.recorded: list[RecordedEvent] = []
        self.events: list[Event] = []
        self.states: list[tuple[int, Run]] = []
        """The position of the last event of each decision, and the run then."""
        self.outcomes: list[runs.RunCommand] = []
        self.do(runs.StartRun(run_id=RUN, project_id=RUN, plan=plan_of(random, size, tolerated=tolerated), input=INPUT))
        while self.run.status == "running":
            key = random.choice(sorted(open_in(self.run)))
            self.do(command_of(self.run, key, random.random() < 0.8, answer_of(random, self.run, key)))

    def do(self, command: runs.RunCommand) -> None:
        decided = DECIDER.events(self.run, command, FUNCTIONS)
        self.run = DECIDER.fold(self.run, decided)
        said = json.dumps({"command_id": len(self.states)})
        for event in decided:
            number = len(self.recorded) + 1
            at = RecordedEvent(10 * number, RUN, RUN, number, RUN, event.TOPIC, event.stored_version, b"", said, NOW)
            self.recorded.append(at)
            self.events.append(event)
        self.states.append((10 * len(self.recorded), self.run))
        self.outcomes.append(command)

    def until(self, position: int) -> Recorded:
        return list(zip(up_to(self.recorded, position), self.events, strict=False))

    def at(self, position: int) -> tuple[int, Run]:
        """The number of the decision that counts as a whole at a position, and the run after it."""
        return next((number, run) for number, (last, run) in enumerate(self.states) if position < last + 10)


def fork_of(history: History, cut: Cut, position: int = 1) -> tuple[list[Event], Run]:
    assert history.run.plan is not None
    command = runs.StartRun(
        run_id=FORK, project_id=RUN, plan=history.run.plan, input=INPUT, forked_from=ForkedFrom(run_id=RUN, position=position),
        taken=cut.taken,
    )  # fmt: skip
    events = DECIDER.events(Run(), command, FUNCTIONS)
    stored = [REGISTRY.decode(event.TOPIC, event.stored_version, REGISTRY.encode(event)) for event in events]
    return events, DECIDER.fold(Run(), stored)


def told(run: Run) -> dict[str, Any]:
    """What does not depend on the ids of executions."""
    progress = {
        key: replace(one, open=tuple(sorted((part, each.is_run) for part, each in one.open.items())))  # type: ignore[arg-type]
        for key, one in run.progress.items()
        if run.steps[key].status == "scheduled"  # a failed step keeps its own, for a retry
    }
    open_ = open_in(run)
    return {
        "steps": {key: (step.status, step.result, step.error) for key, step in run.steps.items()}, "progress": progress,
        "tallies": dict(run.tallies),
        "inputs": {key: value for key, value in run.inputs.items() if key in open_},
        "ended": run.ended, "waiting": dict(run.waiting), "open": open_,
        "fell_back": {key: number for key, number in run.fell_back.items() if key in open_},
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 12))
def test_a_fork_at_a_position_is_what_the_run_was_and_goes_on_as_it_did(seed: int, size: int) -> None:
    random = Random(seed)
    history = History(random, size)
    position = 10 * random.randint(1, len(history.recorded)) + random.randint(0, 9)
    number, then = history.at(position)
    if then.status != "running":
        return
    cut = cut_at(RUN, history.until(position), Point(position))
    events, fork = fork_of(history, cut)
    assert told(fork) == told(then)
    ended = {key for key, step in then.steps.items() if step.status in OVER}
    begun = {event.step for event in events if isinstance(event, runs.StepScheduled | runs.StepStarted)}
    assert not ended & begun
    taken = [(event.step, event.part) for event in events if isinstance(event, runs.PartTakenOver)]
    again = [(event.step, event.part) for event in events if isinstance(event, runs.PartScheduled)]
    assert not set(taken) & set(again) and len(set(taken)) == len(taken)
    for event in events:  # what ended elsewhere is named as it was there
        if isinstance(event, runs.StepTakenOver):
            assert event.agent_run_id == then.steps[event.step].agent_run_id
    for outcome in history.outcomes[number + 1 :]:  # the same outcomes have the same end
        fork = DECIDER.fold(fork, DECIDER.events(fork, as_of_fork(outcome, fork), FUNCTIONS))
    assert told(fork) == told(history.run) and fork.status == history.run.status


def as_of_fork(outcome: Any, fork: Run) -> runs.RunCommand:
    """An outcome of the first run, of the execution that the fork has in its place."""
    key = outcome.step if not isinstance(outcome, runs.FinishChild) else runs.part_key(outcome.step, outcome.part)
    ok = getattr(outcome, "error", None) is None
    return command_of(fork, key, ok, getattr(outcome, "result", None)).model_copy(update={"run_id": FORK})


@settings(max_examples=150, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 12), st.booleans())
def test_a_fork_at_a_step_keeps_all_that_does_not_come_after_it(seed: int, size: int, anew: bool) -> None:
    random = Random(seed)
    history = History(random, size)
    assert history.run.plan is not None
    graph = history.run.plan.graph
    step = random.choice(list(graph.steps))
    cut = cut_at(RUN, history.until(10**9), Point(10**9, step=step, anew=anew))
    after, todo = {step}, [step]
    while todo:
        for key in graph.after.get(todo.pop(), ()):
            if key not in after:
                after.add(key)
                todo.append(key)
    not_needed = {event.step for event in history.events if isinstance(event, runs.StepSkipped) and event.by in after}
    try:
        _, fork = fork_of(history, cut)
    except InvalidState:
        left = {
            key for key, one in history.run.steps.items() if one.status == "failed" and graph.steps[key].on_failure != "continue"
        }
        assert left - after
        return
    for key, before in history.run.steps.items():
        if key in after:
            assert key not in cut.ended
        elif before.status in OVER and not not_needed:
            now = fork.steps[key]
            assert (now.status, now.result, now.agent_run_id) == (before.status, before.result, before.agent_run_id), key
    for one in cut.under_way:
        assert one.step not in after or not anew


@settings(max_examples=100, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 12))
def test_a_fork_of_what_failed_can_end(seed: int, size: int) -> None:
    random = Random(seed)
    history = History(random, size, tolerated=0.2)
    if history.run.status != "failed":
        return
    cut = cut_at(RUN, history.until(10**9), Point(10**9, failed=True))
    _, fork = fork_of(history, cut)
    for _ in range(1_000):
        if fork.status != "running":
            break
        key = random.choice(sorted(open_in(fork)))
        command = command_of(fork, key, True, answer_of(random, fork, key)).model_copy(update={"run_id": FORK})
        fork = DECIDER.fold(fork, DECIDER.events(fork, command, FUNCTIONS))
    assert fork.status in ("completed", "failed")
