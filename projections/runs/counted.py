"""Events that change little of a run, in the fold of its events."""

from typing import Any

from application.views.runs import ProgressView
from domain import agent_runs
from domain.kernel import RecordedEvent
from projections.kernel import decoded


def on_message(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    """`run`, `parts`: as of the fold."""
    run.message_count += 1


def on_record(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    if (step := parts.step_of(recorded.stream_id)) is not None:
        step.recorded_steps += 1


def on_progress(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    if (step := parts.step_of(recorded.stream_id)) is None:
        return
    event, found = decoded(recorded), parts.part_of(recorded.stream_id)
    part = None if found is None else found[1].number
    parts.keep_progress(
        step,
        ProgressView(
            done=event.done, total=event.total, message=event.message, at=recorded.recorded_at, attempt=event.attempt, part=part
        ),
    )


COUNTED = {
    "message.sent": on_message,
    agent_runs.StepRecorded.TOPIC: on_record,
    agent_runs.AgentRunProgressed.TOPIC: on_progress,
}
