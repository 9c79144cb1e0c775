"""A run, and how each event changes it."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, assert_never
from uuid import UUID

from immutables import Map

from domain.kernel import Json, Priority, replace
from domain.maps import PersistentMap
from domain.plans import NO_STEPS, Graph, Plan, Step, StepState
from domain.runs.events import (
    Compensate,
    PartCompleted,
    PartFailed,
    PartScheduled,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunStarted,
    StepCompleted,
    StepFailed,
    StepFellBack,
    StepScheduled,
    StepSkipped,
    StepStarted,
)

RunStatus = Literal["absent", "running", "completed", "failed", "cancelled"]

OVER: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Statuses of runs that have ended."""


@dataclass(frozen=True)
class Run:
    status: RunStatus = "absent"
    plan: Plan | None = None
    input: Json = None
    steps: PersistentMap[str, StepState] = field(default_factory=Map)
    waiting: PersistentMap[str, int] = field(default_factory=Map)
    """Step → how many of the steps before it have not ended. Without the steps that wait for none."""
    ended: int = 0
    """Number of the steps that have ended."""
    cancel_reason: str | None = None
    versions_asked: tuple[str, ...] = ()
    priority: Priority = "normal"
    compensate: Compensate = "never"

    @property
    def graph(self) -> Graph:
        return NO_STEPS if self.plan is None else self.plan.graph

    @cached_property
    def asked(self) -> AbstractSet[str]:
        """`versions_asked`, to look up. The states that follow from this one take it over (`replace`)."""
        return frozenset(self.versions_asked)

    def step(self, key: str) -> Step:
        return self.graph.steps[key]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(key for key in self.graph.steps if self.steps[key].status == "failed")

    @property
    def under_way(self) -> tuple[UUID, ...]:
        states = (self.steps[key] for key in self.graph.steps)
        return tuple(state.agent_run_id for state in states if state.status == "scheduled" and state.agent_run_id)

    def recipient(self, name: str) -> str | None:
        """The step that a message to `name` goes to: the step of that key, or else the first one of that agent."""
        return name if name in self.steps else self.graph.of_agent.get(name)


def evolve(run: Run, event: RunEvent) -> Run:
    match event:
        case RunStarted():
            return _started(event)
        case StepScheduled():
            return replace(run, steps=run.steps.set(event.step, StepState("scheduled", event.agent_run_id)))
        case StepCompleted():
            return _ended(run, event.step, StepState("completed", event.agent_run_id, event.result))
        case StepFailed():
            return _ended(run, event.step, StepState("failed", event.agent_run_id))
        case StepSkipped():
            return _ended(run, event.step, StepState("skipped"))
        case StepStarted() | PartScheduled() | PartCompleted() | PartFailed() | StepFellBack():
            return run
        case RunCompleted():
            return replace(run, status="completed")
        case RunFailed():
            return replace(run, status="failed")
        case RunCancelled():
            return replace(run, status="cancelled", cancel_reason=event.reason)
        case _:
            assert_never(event)


def _started(event: RunStarted) -> Run:
    graph = event.plan.graph
    return Run(
        "running", event.plan, event.input, graph.pending, graph.waiting,
        versions_asked=event.versions_asked, priority=event.priority, compensate=event.compensate,
    )  # fmt: skip


def _ended(run: Run, key: str, state: StepState) -> Run:
    """The run after a step has ended: the steps after it wait for one less."""
    waiting = run.waiting.mutate()
    for later in run.graph.after.get(key, ()):
        left = waiting[later] - 1
        if left:
            waiting[later] = left
        else:
            del waiting[later]
    return replace(run, steps=run.steps.set(key, state), waiting=waiting.finish(), ended=run.ended + 1)
