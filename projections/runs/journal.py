"""Entries of the journals of a run's agents, each from one event of the log."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from application.views.runs import JournalEntryView, LargeValue
from domain import agent_runs, runs
from domain.kernel import RecordedEvent
from projections.kernel import decoded

LARGE_BYTES = 16 * 1024
"""An entry shows the result of an event up to this size. For a larger event the entry has a reference."""


def journal(started: RecordedEvent, events: Sequence[RecordedEvent]) -> list[JournalEntryView]:
    """`started`: the event that started the run. Raises ValueError, UnknownEvent."""
    plan: runs.Plan = decoded(started).plan
    steps = {runs.agent_run_id_of(started.stream_id, step.key): step.key for step in plan.steps}
    return [_entry(recorded, steps) for recorded in events]


def _entry(recorded: RecordedEvent, steps: Mapping[UUID, str]) -> JournalEntryView:
    event = decoded(recorded)
    entry = JournalEntryView(
        position=recorded.position, at=recorded.recorded_at, step=steps.get(recorded.stream_id), agent_run_id=recorded.stream_id,
        attempt=getattr(event, "attempt", None), key=event.key, kind="step",
    )  # fmt: skip
    match event:
        case agent_runs.StepRecorded():
            entry.kind = event.kind
            if len(recorded.state) > LARGE_BYTES:
                entry.large = LargeValue(ref=f"/v1/events/{recorded.position}", bytes=len(recorded.state))
            else:
                entry.result = event.result
        case agent_runs.CallStarted():
            entry.kind, entry.tool, entry.invocation_id = "call", event.tool, event.invocation_id
        case agent_runs.CallFinished():
            entry.kind, entry.invocation_id, entry.succeeded = "call_finished", event.invocation_id, event.succeeded
        case agent_runs.MailReceived():
            entry.kind, entry.message_id = "receive", event.message_id
    return entry
