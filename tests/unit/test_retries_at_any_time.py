"""Random plans of every form, with outcomes, cancellations and retries in any order: no order reaches an invalid state."""

from random import Random
from typing import Any
from uuid import UUID

from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from domain import runs
from domain.errors import InvalidState
from domain.kernel import Event
from domain.registry import REGISTRY
from domain.runs import DECIDER, Run
from tests.unit.test_plans_of_every_form import FUNCTIONS, INPUT, RUN, answer_of, command_of, open_in, plan_of

OVER = ("completed", "failed", "skipped")


class Retried:
    def __init__(self, seed: int, size: int) -> None:
        self.random = Random(seed)
        self.run = Run()
        self.stored: list[tuple[str, int, bytes]] = []
        self.begun: set[UUID] = set()
        self.looked_at: set[UUID] = set()
        """Executions that were found to have ended since they began last."""
        plan = plan_of(self.random, size, tolerated=0.7)
        self.do(runs.StartRun(run_id=RUN, project_id=RUN, plan=plan, input=INPUT))

    def do(self, command: runs.RunCommand) -> list[Event]:
        events = DECIDER.events(self.run, command, FUNCTIONS)
        self.run = DECIDER.fold(self.run, events)
        self.stored += [(event.TOPIC, event.stored_version, REGISTRY.encode(event)) for event in events]
        for event in events:
            if isinstance(event, runs.StepScheduled | runs.PartScheduled):
                one = event.agent_run_id or event.child_id  # type: ignore[union-attr]  # a step has the first
                assert one is not None and (one not in self.begun or one in self.looked_at), "it was not looked at before"
                assert (one in self.begun) <= bool(event.again)
                self.looked_at.discard(one)
                self.begun.add(one)
        self.check()
        return events

    def outcome(self, luck: float) -> None:
        key = self.random.choice(sorted(open_in(self.run)))
        self.do(command_of(self.run, key, self.random.random() < luck, answer_of(self.random, self.run, key)))

    def retry(self, **more: Any) -> bool:
        """Whether anything was there to retry."""
        before = self.run
        failed = [key for key, state in before.steps.items() if state.status == "failed"]
        chosen = self.random.sample(failed, self.random.randint(0, len(failed)))
        command = runs.RetryRun(run_id=RUN, steps=tuple(chosen), fresh=self.random.random() < 0.3, **more)
        try:
            agents, children = runs.executions_again(before, RUN, runs.to_retry(before, command.steps))
        except InvalidState:
            return False
        self.looked_at |= {*agents, *children}
        self.do(command)
        for key, state in before.steps.items():
            if state.status == "completed":
                assert self.run.steps[key] == state, "what was finished stays"
        return True

    def check(self) -> None:
        run = self.run
        assert run.ended == sum(state.status in OVER for state in run.steps.values())
        open_ = {key for key, state in run.steps.items() if state.status not in OVER}
        waiting = {key: len(open_ & set(step.after)) for key, step in run.graph.steps.items() if open_ & set(step.after)}
        assert dict(run.waiting.items()) == waiting, "each step waits for those before it that have not ended"
        if run.status == "running":
            assert open_in(run), "a run that goes on waits for something"


@settings(max_examples=200, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 12))
def test_no_order_of_outcomes_and_retries_reaches_an_invalid_state(seed: int, size: int) -> None:
    played, moves = Retried(seed, size), 0
    while moves < 60:
        moves += 1
        if played.run.status != "running":
            if played.random.random() < 0.2 or not played.retry():
                break
        elif (luck := played.random.random()) < 0.05:
            played.do(runs.CancelRun(run_id=RUN))
        elif luck < 0.15:
            played.retry()
        else:
            played.outcome(0.7)
    assert DECIDER.fold(Run(), [REGISTRY.decode(*one) for one in played.stored]) == played.run, "the events tell everything"


@settings(max_examples=100, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 12))
def test_with_luck_a_retried_run_fails_only_by_its_plan(seed: int, size: int) -> None:
    """Once nothing fails any more, each retry brings the run to its end again."""
    played = Retried(seed, size)
    while played.run.status == "running":
        played.outcome(0.5)
    for _ in range(3):
        if not played.retry():
            break
        for _ in range(2_000):
            if played.run.status != "running":
                break
            played.outcome(1.0)
        assert played.run.status != "running", "it came to its end"
    broken = [state.error for state in played.run.steps.values() if state.error is not None]
    assert played.run.status == "completed" or broken
