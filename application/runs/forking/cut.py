"""What of a run's own events counts at the point of a fork.

The events are folded by the rules of runs, without those of the steps that run again. So what is taken over is what the other run
was, by construction.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from domain import runs
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import RecordedEvent
from domain.plans import Graph, Plan
from domain.runs import BegunStep, OpenExecution, PartTakenOver, StepTakenOver, TakenOver, evolve, part_key

OVER = ("completed", "failed", "skipped")
ENDS = (runs.RunCompleted, runs.RunFailed, runs.RunCancelled)


@dataclass(frozen=True, slots=True)
class Point:
    """Where a fork begins."""

    position: int
    """The last one that counts."""
    step: str | None = None
    """The step that runs again, with all that come after it."""
    anew: bool = False
    """Whether `step` begins without what it had finished."""
    failed: bool = False
    """The steps that failed, and that the plan does not tolerate, run again."""


@dataclass(slots=True)
class UnderWay:
    """An agent run that goes on in the fork, or a child run."""

    execution_id: UUID
    key: str
    fallback: int = 0
    is_run: bool = False
    step: str = ""
    part: int | None = None
    had_failed: bool = False


@dataclass(slots=True)
class Cut:
    """A run at a point."""

    started: runs.RunStarted
    run: runs.Run
    ended: dict[str, StepTakenOver] = field(default_factory=dict)
    """In the order in which they ended."""
    early: list[str] = field(default_factory=list)
    """Those that ended before a step before them."""
    begun: list[BegunStep] = field(default_factory=list)
    under_way: list[UnderWay] = field(default_factory=list)
    again: frozenset[str] = frozenset()
    """Steps that run again, without what they had finished."""
    gone: set[UUID] = field(default_factory=set)
    """The agent runs of `again`: what they wrote and sent does not count."""
    was_complete: bool = False
    """The run had completed by then."""

    @property
    def taken(self) -> TakenOver:
        return TakenOver(ended=tuple(self.ended.values()), early=tuple(self.early), begun=tuple(self.begun))


Recorded = Sequence[tuple[RecordedEvent, Any]]
"""Events of a run's stream, decoded."""


def up_to(recorded: Sequence[RecordedEvent], position: int) -> Sequence[RecordedEvent]:
    """The events up to a position. A decision counts as a whole."""
    number = sum(event.position <= position for event in recorded)
    while 0 < number < len(recorded) and _command(recorded[number]) == _command(recorded[number - 1]):
        number += 1
    return recorded[:number]


def _command(recorded: RecordedEvent) -> object:
    return json.loads(recorded.metadata).get("command_id")


def cut_at(run_id: UUID, recorded: Recorded, point: Point, plan: Plan | None = None, *, as_it_was: bool = True) -> Cut:
    """A run at a point. `plan`: of the fork, if it is another one. `as_it_was`: neither plan nor input change.

    Raises NotFound: the run had not begun. InvalidCommand: it has no such step. InvalidState: there is nothing to begin with.
    """
    if not recorded:
        raise NotFound(f"there was no run {run_id} at position {point.position}")
    started: runs.RunStarted = recorded[0][1]
    graphs = [started.plan.graph] if plan is None else [started.plan.graph, plan.graph]
    first = _first(started, recorded, point, graphs)
    again = _with_what_follows(graphs, recorded, first)
    waits = {key for graph in graphs for key in first if key in graph.steps and again.intersection(graph.steps[key].after)}
    goes_on = frozenset() if point.anew else frozenset(first) - waits
    folding = _Folding(Cut(started, runs.Run(), again=frozenset(again - goes_on)), again, goes_on)
    for event in recorded:
        folding.add(event[1])
    return folding.finished(started.plan if plan is None else plan, as_it_was)


def _first(started: runs.RunStarted, recorded: Recorded, point: Point, graphs: Sequence[Graph]) -> list[str]:
    """The steps that run again because the caller says so, or because they failed."""
    if point.step is not None:
        if point.step not in started.plan.graph.steps:
            known = ", ".join(list(started.plan.graph.steps)[:20])
            raise InvalidCommand(f"the run has no step '{point.step}'; it has: {known}", pointer="/at")
        return [point.step]
    if not point.failed:
        return []
    failed: set[str] = set()
    for _, event in recorded:
        if isinstance(event, runs.StepFailed) and not event.tolerated:
            failed.add(event.step)
        elif isinstance(event, runs.StepScheduled | runs.StepStarted | runs.StepCompleted | runs.StepSkipped):
            failed.discard(event.step)  # it was begun again
    if failed:
        tolerated = {key for graph in graphs[1:] for key, step in graph.steps.items() if step.on_failure == "continue"}
        return sorted(failed - tolerated)
    if any(isinstance(event, runs.RunFailed) for _, event in recorded):  # the plan tolerates each failure, but no step completed
        return sorted({event.step for _, event in recorded if isinstance(event, runs.StepFailed)})
    return []


def _with_what_follows(graphs: Sequence[Graph], recorded: Recorded, first: Iterable[str]) -> set[str]:
    not_needed: dict[str | None, list[str]] = {}
    for _, event in recorded:
        if isinstance(event, runs.StepSkipped) and event.by is not None:
            not_needed.setdefault(event.by, []).append(event.step)
    found: set[str] = set()
    todo = list(first)
    while todo:
        key = todo.pop()
        if key in found:
            continue
        found.add(key)
        for graph in graphs:
            todo += graph.after.get(key, ())
            for skipped in not_needed.get(key, ()):  # goes on, so what came after its end runs again
                todo += graph.after.get(skipped, ())
    return found


class _Folding:
    def __init__(self, cut: Cut, again: set[str], goes_on: frozenset[str]) -> None:
        self.cut = cut
        self._again, self._goes_on = again, goes_on
        self._fell_back: dict[str, list[runs.StepFellBack]] = {}
        self._scheduled: dict[str, Any] = {}
        """Key of a step or a part → the event that began its newest execution."""
        self._parts: dict[str, list[PartTakenOver]] = {}
        self._items: dict[str, tuple[Any, ...] | None] = {}
        self._taken_before: dict[str, StepTakenOver] = {}
        self._failed: set[str] = set()

    def add(self, event: Any) -> None:
        if isinstance(event, ENDS):
            self.cut.was_complete = isinstance(event, runs.RunCompleted)
            return
        if getattr(event, "step", None) is None or self._counts(event):
            self._note(event)
            self.cut.run = evolve(self.cut.run, event)

    def _counts(self, event: Any) -> bool:
        key = event.step
        if key not in self._again:
            return not (isinstance(event, runs.StepSkipped) and event.by in self._again)
        if key not in self._goes_on:
            self._begins_again(event)
            return False
        match event:
            case runs.StepTakenOver():
                self._taken_before[key] = event
                return False
            case runs.StepCompleted() | runs.StepFailed() | runs.StepSkipped():
                if isinstance(event, runs.StepFailed):
                    self._failed.add(key)
                return False
            case runs.PartFailed() if not event.tolerated:
                self._failed.add(part_key(key, event.part))
                return False
        return True

    def _begins_again(self, event: Any) -> None:
        agent_run_id = getattr(event, "agent_run_id", None)
        if agent_run_id is not None:
            self.cut.gone.add(agent_run_id)

    def _note(self, event: Any) -> None:
        cut = self.cut
        match event:
            case runs.StepScheduled():
                self._scheduled[event.step] = event
            case runs.StepStarted():
                self._items[event.step] = event.items
            case runs.PartScheduled():
                key = part_key(event.step, event.part)
                if event.plan is None and event.child_id is not None and (before := self._scheduled.get(key)) is not None:
                    event = event.model_copy(update={"plan": before.plan, "versions_asked": before.versions_asked})
                self._scheduled[key] = event  # a child run that goes on is told without its plan
            case runs.StepFellBack():
                key = event.step if event.part is None else part_key(event.step, event.part)
                self._fell_back.setdefault(key, []).append(event)
            case runs.PartTakenOver():
                self._parts.setdefault(event.step, []).append(event)
            case runs.PartCompleted():
                self._parts.setdefault(event.step, []).append(self._part(event, status="completed", result=event.result))
            case runs.PartFailed():
                self._parts.setdefault(event.step, []).append(self._part(event, status="failed", error=event.error))
            case runs.StepTakenOver():
                self._end(event)
            case runs.StepCompleted():
                self._end(
                    StepTakenOver(
                        step=event.step, status="completed", agent_run_id=event.agent_run_id, result=event.result,
                        judged=event.judged, exhausted=event.exhausted, without=event.without,
                    )
                )  # fmt: skip
            case runs.StepFailed():
                self._end(StepTakenOver(step=event.step, status="failed", agent_run_id=event.agent_run_id, error=event.error))
            case runs.StepSkipped():
                agent_run_id = cut.run.steps[event.step].agent_run_id
                self._end(StepTakenOver(step=event.step, status="skipped", agent_run_id=agent_run_id, reason=event.reason))

    def _end(self, event: StepTakenOver) -> None:
        states = self.cut.run.steps
        if any(states[key].status not in OVER for key in self.cut.run.graph.steps[event.step].after):
            self.cut.early.append(event.step)
        self.cut.ended[event.step] = event

    def _part(self, event: Any, **said: Any) -> PartTakenOver:
        scheduled: runs.PartScheduled = self._scheduled[part_key(event.step, event.part)]
        if self.cut.run.progress[event.step].form == "adaptive":
            if event.part == 0:
                said["input"] = {"input": scheduled.input["input"]}
            if scheduled.child_id is not None:
                graph = Plan.model_validate(scheduled.plan).graph
                named = tuple({"key": step.key, "agent": step.agent} for step in graph.steps.values())
                said |= {"steps": named, "only": graph.last[0] if len(graph.last) == 1 else None}
        is_run = scheduled.child_id is not None
        return PartTakenOver(step=event.step, part=event.part, execution_id=event.execution_id, is_run=is_run, **said)

    # --- what was under way ---------------------------------------------------------------------------------------------------

    def finished(self, plan: Plan, as_it_was: bool) -> Cut:
        cut = self.cut
        cut.ended = {key: event for key, event in cut.ended.items() if cut.run.steps[key].status in OVER}  # not what a retry began
        for key, state in cut.run.steps.items():
            if state.status in OVER and key not in cut.ended:  # by an event that says no more than the state
                over: Any = state.status
                self._end(
                    StepTakenOver(step=key, status=over, agent_run_id=state.agent_run_id, result=state.result, error=state.error)
                )
        for key in cut.run.graph.steps:
            if key in self._taken_before and (agent_run_id := self._taken_before[key].agent_run_id) is not None:
                cut.under_way.append(UnderWay(agent_run_id, key, step=key))
            elif cut.run.steps[key].status == "scheduled" and not cut.run.waits(key):  # a wait begins again
                progress = cut.run.progress.get(key)
                begun = self._single(key, plan, as_it_was) if progress is None else self._of_parts(key, progress, plan)
                if begun is not None:
                    cut.begun.append(begun)
        return cut

    def _single(self, key: str, plan: Plan, as_it_was: bool) -> BegunStep:
        scheduled: runs.StepScheduled = self._scheduled[key]
        fell_back = self._fallbacks(key, key, plan)
        self.cut.under_way.append(
            UnderWay(
                self.cut.run.steps[key].agent_run_id or scheduled.agent_run_id,
                key,
                len(fell_back),
                step=key,
                had_failed=key in self._failed,
            )
        )
        given = as_it_was or bool(fell_back)
        one = OpenExecution(
            given=given, mapped=given and scheduled.mapped, input=scheduled.input if given else None, fell_back=fell_back
        )
        return BegunStep(step=key, open=(one,))

    def _of_parts(self, key: str, progress: Any, plan: Plan) -> BegunStep | None:
        """None: nothing of it had begun."""
        parts, open_ = self._parts.get(key, []), []
        for part in sorted(progress.open):
            of_part = part_key(key, part)
            scheduled: runs.PartScheduled = self._scheduled[of_part]
            is_run = scheduled.child_id is not None
            fell_back = self._fallbacks(of_part, key, plan)
            self.cut.under_way.append(
                UnderWay(progress.open[part].execution_id, of_part, len(fell_back), is_run, key, part, of_part in self._failed)
            )
            named = {"plan": scheduled.plan, "versions_asked": scheduled.versions_asked} if is_run and part % 2 else {}
            if progress.form != "adaptive":
                named = {}
            open_.append(OpenExecution(part=part, given=True, input=scheduled.input, fell_back=fell_back, **named))
        if not parts and not open_:
            return None
        return BegunStep(step=key, form=progress.form, items=self._items[key], parts=tuple(parts), open=tuple(open_))

    def _fallbacks(self, key: str, step: str, plan: Plan) -> tuple[runs.StepFellBack, ...]:
        """Those that the plan has."""
        planned = plan.graph.steps.get(step)
        return tuple(self._fell_back.get(key, ())[: 0 if planned is None else len(planned.fallbacks)])


def must_have_work(cut: Cut, keys: Mapping[str, object]) -> None:
    """Raises InvalidState: the run had completed, and nothing of it runs again."""
    if cut.was_complete and all(key in cut.ended for key in keys):
        raise InvalidState("the run had completed by then: name the step at which the fork begins", pointer="/at")
