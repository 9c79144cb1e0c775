"""Entries of the journals of a run's agents, each from one event of the log."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from application.views.large import LARGE_BYTES, json_bytes, path_of_entry, place_of
from application.views.runs import JournalEntryView
from domain import agent_runs, runs
from domain.kernel import Json, RecordedEvent
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
            entry.kind = event.kind
            _keep_result(entry, recorded, event.result)
        case agent_runs.WaitStarted():
            entry.kind, entry.name = event.kind, event.name
        case agent_runs.WaitFinished():
            entry.kind, entry.succeeded, entry.error = "wait_finished", event.error is None, event.error
            _keep_result(entry, recorded, event.result)
        case agent_runs.CallStarted():
            entry.kind, entry.tool, entry.invocation_id = "call", event.tool, event.invocation_id
        case agent_runs.CallFinished():
            entry.kind, entry.invocation_id, entry.succeeded = "call_finished", event.invocation_id, event.succeeded
        case agent_runs.EntryTakenOver(kind="call"):
            entry.kind, entry.invocation_id, entry.succeeded = "call_finished", event.invocation_id, event.succeeded
            entry.taken_over = True
        case agent_runs.EntryTakenOver(kind="receive"):
            entry.kind, entry.message_id, entry.taken_over = "receive", event.result and UUID(event.result), True
        case agent_runs.EntryTakenOver():
            entry.kind, entry.result, entry.held_by, entry.taken_over = event.kind, event.result, event.held_by, True
        case agent_runs.MailReceived():
            entry.kind, entry.message_id = "receive", event.message_id
    return entry


def _keep_result(entry: JournalEntryView, recorded: RecordedEvent, result: Json) -> None:
    entry.result = result
    if len(recorded.state) > LARGE_BYTES and (size := json_bytes(result)) > LARGE_BYTES:
        path = path_of_entry(recorded.root_id, recorded.position)
        entry.put("result", None, place_of(path, "result", recorded.position, size))
