"""The history of a run: the change of each event, folded from CloudEvents."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from api.cli.history import RunHistory, recorded
from application.engine.reading.cloudevents import CloudEventEncoder
from domain import runs
from domain.agent_runs import AgentRunClaimed, AgentRunCompleted, CallStarted, StepRecorded
from domain.context import ContextValueSet
from domain.failures import Failure, Retry
from domain.invocations import (
    AttemptStarted,
    InvocationBecameAmbiguous,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationRequested,
    InvocationResolved,
    InvocationSucceeded,
)
from domain.kernel import Event, RecordedEvent
from domain.messages import MessageSent
from domain.registry import REGISTRY
from projections.runs import replay

TENANT, RUN, PROJECT, CALL = (uuid7() for _ in range(4))
AGENT_RUN = runs.agent_run_id_of(RUN, "writer")
METADATA = json.dumps({"actor": "key:k", "correlation_id": str(RUN), "causation_id": "c", "command_id": str(RUN)})


def log(*events: tuple[UUID, Event]) -> list[RecordedEvent]:
    versions: dict[UUID, int] = {}
    found = []
    for position, (stream_id, event) in enumerate(events, 10):
        versions[stream_id] = versions.get(stream_id, 0) + 1
        found.append(
            RecordedEvent(
                position, TENANT, stream_id, versions[stream_id], RUN, event.TOPIC, event.VERSION, REGISTRY.encode(event), METADATA,
                datetime(2026, 1, 31, 12, 0, position, 123_000, tzinfo=UTC),
            )
        )  # fmt: skip
    return found


EVENTS = log(
    (RUN, runs.RunStarted(project_id=PROJECT, plan=runs.sequential(("writer",)), input={"topic": "tides ≈"})),
    (RUN, runs.StepScheduled(step="writer", agent="writer", agent_version="1", agent_run_id=AGENT_RUN)),
    (AGENT_RUN, AgentRunClaimed(attempt=1, worker_id="worker-12345678", dispatch=1)),
    (AGENT_RUN, CallStarted(attempt=1, key="search", tool="web.search", invocation_id=CALL)),
    (CALL, InvocationFailed(agent_run_id=AGENT_RUN, key="search", attempt=1, error=Failure(type="E", message="no"))),
    (uuid7(), ContextValueSet(run_id=RUN, agent_run_id=AGENT_RUN, name="mood", value="calm", value_version=1)),
    (RUN, runs.StepCompleted(step="writer", agent_run_id=AGENT_RUN, result={"text": "done"})),
    (RUN, runs.RunCompleted()),
)


SAID = log(
    *[(event.stream_id, REGISTRY.decode(event.topic, event.schema_version, event.state)) for event in EVENTS[:4]],
    (CALL, AttemptStarted(attempt=1, worker_id="w", dispatch=1)),
    (CALL, InvocationCancelRequested(attempt=1)),
    (CALL, InvocationBecameAmbiguous(attempt=1, worker_id="w")),
    (
        CALL,
        InvocationResolved(
            agent_run_id=AGENT_RUN, key="search", attempt=1, outcome="succeeded", result=1, by="key:ann", reason="I looked"
        ),
    ),
)  # fmt: skip


def as_sent(event: RecordedEvent) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(CloudEventEncoder(REGISTRY.events).encode(event))
    return document


def test_an_event_survives_the_way_over_the_wire() -> None:
    for event in EVENTS:
        back = recorded(as_sent(event))
        assert orjson.loads(back.state) == orjson.loads(event.state)
        assert back._replace(state=event.state, metadata=event.metadata) == event


def test_every_state_is_that_of_the_read_model() -> None:
    history = RunHistory()
    for number, event in enumerate(EVENTS, 1):
        moment = history.feed(as_sent(event), keep_state=True)
        expected = replay(EVENTS[:number])
        assert expected is not None
        assert moment.state == {**expected.model_dump(mode="json"), "result": expected.result}


def test_what_a_person_said_is_a_change() -> None:
    history = RunHistory()
    told = [{c.path: (c.before, c.after) for c in history.feed(as_sent(event)).changes} for event in SAID][4:]
    assert told == [
        {"writer.search": ("requested", "running")},
        {"writer.search.cancel": ("", "requested")},
        {"writer.search": ("running", "ambiguous")},
        {
            "writer.search": ("ambiguous", "succeeded"),
            "writer.search.resolved": ("", "by key:ann because: I looked"),
            "writer.search.result": ("", "1"),
        },
    ]


def test_each_event_says_what_it_changed() -> None:
    history = RunHistory()
    told = [{c.path: (c.before, c.after) for c in history.feed(as_sent(event)).changes} for event in EVENTS]
    assert told == [
        {"run": ("", "running"), "writer": ("", "pending")},
        {"writer": ("pending", "scheduled")},
        {"writer": ("scheduled", "running"), "writer.attempt": ("", "1"), "writer.worker": ("", "…12345678")},
        {"writer.search": ("", "requested")},
        {"writer.search": ("requested", "failed"), "writer.search.error": ("", "E: no")},
        {"context.mood": ("", "calm (version 1)")},
        {"writer": ("running", "completed"), "writer.result": ("", "text: done")},
        {"run": ("running", "completed")},
    ]


LONG = "x" * 500
VALUES = log(
    *[(event.stream_id, REGISTRY.decode(event.topic, event.schema_version, event.state)) for event in EVENTS[:4]],
    (
        CALL,
        InvocationRequested(
            run_id=RUN, agent_run_id=AGENT_RUN, key="search", tool="web.search", arguments={"for": LONG}, idempotent=True,
            timeout_s=1, retry=Retry(),
        ),
    ),
    (CALL, InvocationSucceeded(agent_run_id=AGENT_RUN, key="search", attempt=1, result=[LONG])),
    (AGENT_RUN, StepRecorded(attempt=1, key="draft", kind="step", result={"text": LONG})),
    (
        uuid7(),
        MessageSent(
            run_id=RUN, sender="writer", sender_id=AGENT_RUN, recipient="critic", recipient_id=uuid7(), body={"note": LONG}
        ),
    ),
    (AGENT_RUN, AgentRunCompleted(run_id=RUN, step="writer", attempt=1, unused_keys=("s0", "s1"))),
)  # fmt: skip


def test_values_of_calls_steps_and_messages_are_shown_uncut_if_wanted() -> None:
    for full in (False, True):
        history = RunHistory(full=full)
        told = [{c.path: c.after for c in history.feed(as_sent(event)).changes} for event in VALUES][4:]
        assert [set(changes) for changes in told] == [
            {"writer.search.arguments"},
            {"writer.search", "writer.search.result"},
            {"writer.recorded_steps", "writer.draft.recorded"},
            {"run.messages", "message"},
            {"writer.unused_keys"},
        ]
        for place, path in ((0, "writer.search.arguments"), (2, "writer.draft.recorded"), (3, "message")):
            assert (LONG in told[place][path]) is full
        assert (LONG in told[1]["writer.search.result"]) is full
        assert told[3]["message"].startswith("writer → critic: ")
        assert told[4] == {"writer.unused_keys": "s0, s1"}


def test_calls_that_no_agent_asked_for_are_named_by_their_tools() -> None:
    """Two effects are taken back by the same tool. Their keys are the ids of the effects, which say little to a person."""
    history, undo, again, asker = RunHistory(), uuid7(), uuid7(), uuid7()
    effects = log(
        (RUN, runs.RunStarted(project_id=PROJECT, plan=runs.sequential(("writer",)), input=None)),
        *((call, InvocationRequested(
            run_id=RUN, agent_run_id=asker, key=str(uuid7()), tool="room.release", arguments={"room": room}, idempotent=True,
            timeout_s=9, retry=Retry(), asked_by="compensation",
        )) for call, room in ((undo, 1), (again, 2))),
        (undo, InvocationSucceeded(agent_run_id=asker, key="k", attempt=1, result="free", asked_by="compensation")),
        (uuid7(), InvocationSucceeded(agent_run_id=asker, key="k", attempt=1, result="who?", asked_by="chain")),
    )  # fmt: skip
    told = [{c.path: c.after for c in history.feed(as_sent(event)).changes} for event in effects][1:]
    assert told == [
        {"compensation.room.release#1.arguments": '{"room": 1}'},
        {"compensation.room.release#2.arguments": '{"room": 2}'},
        {"compensation.room.release#1.result": "free"},
        {"chain.k.result": "who?"},
    ]
