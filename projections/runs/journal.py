"""Entries of the journals of a run's agents, each from one event of the log."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from application.views.large import LARGE_BYTES, json_bytes, path_of_entry, place_of
from application.views.runs import JournalEntryView
from domain import agent_runs, runs
from domain.kernel import RecordedEvent
from projections.kernel import decoded


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
            entry.kind, entry.result = event.kind, event.result
            if len(recorded.state) > LARGE_BYTES and (size := json_bytes(event.result)) > LARGE_BYTES:
                path = path_of_entry(recorded.root_id, recorded.position)
                entry.put("result", None, place_of(path, "result", recorded.position, size))
        case agent_runs.CallStarted():
            entry.kind, entry.tool, entry.invocation_id = "call", event.tool, event.invocation_id
        case agent_runs.CallFinished():
            entry.kind, entry.invocation_id, entry.succeeded = "call_finished", event.invocation_id, event.succeeded
        case agent_runs.MailReceived():
            entry.kind, entry.message_id = "receive", event.message_id
    return entry
