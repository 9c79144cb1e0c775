"""What a fork takes over, in the fold of its run."""

from typing import Any

from domain import agent_runs, runs
from domain.kernel import RecordedEvent
from projections.kernel import decoded
from projections.runs.forms import began


def on_taken_over(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    """`run`, `parts`: as of the fold."""
    at, event = recorded.recorded_at, decoded(recorded)
    if isinstance(event, runs.PartTakenOver):
        counts = parts.counts(event.step)
        counts.started += parts.schedule_part(began(event), recorded)
        part = parts.part(event.step, event.part)
        part.status, part.finished_at = event.status, at
        if event.error is None:
            parts.keep_part_result(part, event, recorded)
            counts.completed += 1
        else:
            parts.keep_error(part, event.error, recorded)
            counts.failed += 1
        return
    step = parts.step(event.step, None)
    step.status, step.finished_at = event.status, at
    parts.take_over(step, event, recorded)
    parts.keep_why(step, event)
    if event.error is not None:
        parts.keep_error(step, event.error, recorded)
    if event.exhausted:
        parts.keep_exhausted(step)


def on_entry_taken_over(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    if decoded(recorded).kind not in ("call", "receive") and (step := parts.step_of(recorded.stream_id)) is not None:
        step.recorded_steps += 1


TAKEN_OVER = {
    runs.StepTakenOver.TOPIC: on_taken_over,
    runs.PartTakenOver.TOPIC: on_taken_over,
    agent_runs.EntryTakenOver.TOPIC: on_entry_taken_over,
}
