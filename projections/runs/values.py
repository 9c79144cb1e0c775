"""The values of a run's events in its document: the value itself, or a reference to a large one.

The replay and the rows get the same document, because both go through here with the events' positions and sizes.
"""

import sys
from datetime import datetime
from uuid import UUID

from application.views.large import (
    LARGE_BYTES,
    Field,
    HasLarge,
    Held,
    json_bytes,
    most_of_results,
    path_of_call,
    path_of_part,
    path_of_run,
    path_of_step,
    place_of,
    put_error,
    put_value,
)
from application.views.runs import CallView, PartView, RunView, StepView
from domain import agent_runs, invocations, messages, runs
from domain.failures import Failure
from domain.kernel import Json, RecordedEvent
from domain.plans import MOST_FALLBACKS
from domain.registry import REGISTRY
from projections.invocations import resolution_of
from projections.kernel import decoded

ROOM = 1024
"""More bytes than the event of a result has beside the result."""
NULL = len("null")
ANY_ID = UUID(int=0)
UNKNOWN = sys.maxsize
"""In place of the bytes of an event: each value is measured."""


HOLDERS: dict[Field, frozenset[str]] = {
    "input": frozenset({runs.RunStarted.TOPIC, runs.StepScheduled.TOPIC, runs.PartScheduled.TOPIC}),
    "metadata": frozenset({runs.RunStarted.TOPIC}),
    "result": frozenset(
        kind.TOPIC for kind in (runs.StepCompleted, runs.RunCompleted, runs.PartCompleted, runs.StepTakenOver, runs.PartTakenOver)
    ),
    "error": frozenset(
        kind.TOPIC
        for kind in (
            runs.StepFailed,
            runs.RunFailed,
            runs.StepFellBack,
            runs.PartFailed,
            agent_runs.AgentRunRetryScheduled,
            runs.StepTakenOver,
            runs.PartTakenOver,
        )
    ),
    "entry": frozenset({agent_runs.StepRecorded.TOPIC}),
    "body": frozenset({messages.MessageSent.TOPIC}),
}
"""The events that hold a value."""


class Values:
    """Puts values into the document of one run. `position` and `size`: of the event that holds a value, with its bytes."""

    __slots__ = ("_most_of_results", "_run_id")

    def __init__(self, run_id: UUID, steps: int) -> None:
        self._run_id = run_id
        self._most_of_results = most_of_results(steps)

    def start(self, view: RunView, event: runs.RunStarted | RunView, position: int, size: int) -> None:
        """The input, the metadata, and the inputs of steps in the plan."""
        if size <= LARGE_BYTES:
            view.input, view.metadata, view.plan = event.input, event.metadata, event.plan
            return
        path = path_of_run(self._run_id)
        put_value(view, "input", event.input, path, position)
        put_value(view, "metadata", event.metadata, path, position, empty={})
        planned = [self._planned(*pair, position) for pair in zip(event.plan.steps, view.steps, strict=True)]
        view.plan = event.plan.model_copy(update={"steps": tuple(planned)})

    def _planned(self, planned: runs.Step, shown: StepView, position: int) -> runs.Step:
        if planned.input is None or (size := json_bytes(planned.input)) <= LARGE_BYTES:
            return planned
        place = place_of(path_of_step(self._run_id, shown.key), "input", position, size)
        shown.large = {**(shown.large or {}), "input": place}
        return planned.model_copy(update={"input": None})

    def input(self, step: StepView, value: Json, position: int, size: int) -> None:
        """What `input_from` gave. The value is not read if the event is larger than `LARGE_BYTES` and `ROOM`."""
        _put(step, "input", value, path_of_step(self._run_id, step.key), position, size)

    def of_part(self, part: PartView, step: str, field: Field, value: Json, position: int, size: int) -> None:
        """The input or the result of a part."""
        _put(part, field, value, path_of_part(self._run_id, step, part.number), position, size)

    def error_of_part(self, part: PartView, step: str, error: Failure, position: int, size: int) -> None:
        _put_error(part, error, path_of_part(self._run_id, step, part.number), position, size)

    def result_of_run(self, view: RunView, value: Json, position: int, size: int) -> None:
        """What the plan's own `result` gave."""
        large = size > LARGE_BYTES and json_bytes(value) > LARGE_BYTES
        place = place_of(path_of_run(self._run_id), "result", position, json_bytes(value)) if large else None
        view.put_result(None if large else value, place)

    def result(self, step: StepView, result: Json, position: int, size: int) -> None:
        """`result`: not read if the event is larger than a result that stands in the document, and `ROOM`."""
        if size > self._most_of_results and (bytes_ := size - _beside(step.key)) > self._most_of_results:
            step.put("result", None, place_of(path_of_step(self._run_id, step.key), "result", position, bytes_))
        else:
            step.put("result", result)

    def measured_result(self, step: StepView, result: Json, position: int) -> None:
        """As `result`, of a value in an event that is always read."""
        if (size := json_bytes(result)) > self._most_of_results:
            step.put("result", None, place_of(path_of_step(self._run_id, step.key), "result", position, size))
        else:
            step.put("result", result)

    def error_of_run(self, view: RunView, error: Failure | None, position: int, size: int) -> None:
        _put_error(view, error, path_of_run(self._run_id), position, size)

    def error_of_step(self, step: StepView, error: Failure | None, position: int, size: int) -> None:
        _put_error(step, error, path_of_step(self._run_id, step.key), position, size)


def error_of_call(call: CallView, error: Failure | None, position: int, size: int) -> None:
    _put_error(call, error, path_of_call(call.invocation_id), position, size)


def resolution_of_call(call: CallView, event: invocations.InvocationResolved, at: datetime, position: int, size: int) -> None:
    call.resolution = resolution_of(event, at)
    if size > LARGE_BYTES:
        put_value(call.resolution, "evidence", event.evidence, path_of_call(call.invocation_id), position)


def _put_error(part: HasLarge, error: Failure | None, path: str, position: int, size: int) -> None:
    if error is None or size <= LARGE_BYTES:
        part.put("error", error)
    else:
        put_error(part, error, path, position)


def _put(part: HasLarge, field: Field, value: Json, path: str, position: int, size: int) -> None:
    """By the size of the event alone, because the event of a large value is not read."""
    if size <= LARGE_BYTES + ROOM:
        part.put(field, value)
    else:
        part.put(field, None, place_of(path, field, position, size))


def _beside(key: str) -> int:
    """Bytes of the event of an agent run's result, without the result. All ids have as many bytes."""
    return len(REGISTRY.encode(runs.StepCompleted(step=key, agent_run_id=ANY_ID))) - NULL


# --- single values ------------------------------------------------------------------------------------------------------


def held(recorded: RecordedEvent, field: Field, step: str | None = None, part: int | None = None) -> Held | None:
    """A value of the run (`step`: None), of a step or of a part of it, if the event holds it. Raises ValueError, UnknownEvent."""
    if recorded.topic not in HOLDERS[field]:
        return None
    if part is not None:
        return None if step is None else _held_of_part(recorded, field, step, part)
    match decoded(recorded):
        case runs.RunStarted() as started if step is None:
            return Held(started.input if field == "input" else started.metadata)
        case runs.RunStarted(plan=plan) if field == "input":
            return next((Held(planned.input) for planned in plan.steps if planned.key == step and planned.input is not None), None)
        case runs.StepScheduled() as scheduled if scheduled.step == step and scheduled.mapped:
            return Held(scheduled.input)
        case runs.StepCompleted() as completed if completed.step == step:
            return Held(completed.result)
        case runs.RunCompleted(result=result) if step is None and result is not None:
            return Held(result)
        case runs.StepTakenOver() as taken if taken.step == step:
            return Held(taken.result) if field == "result" else None if taken.error is None else Held(_plain(taken.error))
        case runs.StepFellBack(part=None) as back if back.step == step:
            return Held(_plain(back.error))
        case runs.StepFailed() as failed if failed.step == step:
            return Held(_plain(failed.error))
        case runs.RunFailed(error=error) if step is None:
            return Held(_plain(error))
        case agent_runs.AgentRunRetryScheduled() as retry if step is not None:
            mine = recorded.stream_id == runs.agent_run_id_of(recorded.root_id, step)
            return Held(_plain(retry.error)) if mine else None
        case agent_runs.StepRecorded(result=result):
            return Held(result)
        case messages.MessageSent(body=body):
            return Held(body)
    return None


def _held_of_part(recorded: RecordedEvent, field: Field, step: str, part: int) -> Held | None:
    match event := decoded(recorded):
        case runs.PartTakenOver() if (event.step, event.part) == (step, part):
            return Held(event.result) if field == "result" else None if event.error is None else Held(_plain(event.error))
        case runs.PartScheduled() if (event.step, event.part) == (step, part):
            return Held(event.input)
        case runs.PartCompleted() if (event.step, event.part) == (step, part):
            return Held(event.result)
        case runs.PartFailed() | runs.StepFellBack() if (event.step, event.part) == (step, part):
            return Held(_plain(event.error))
        case agent_runs.AgentRunRetryScheduled():
            key, root = runs.part_key(step, part), recorded.root_id
            mine = {runs.agent_run_id_of(root, key, fallback) for fallback in range(MOST_FALLBACKS + 1)}
            return Held(_plain(event.error)) if recorded.stream_id in mine else None
    return None


def _plain(error: Failure) -> Json:
    return error.model_dump(mode="json")
