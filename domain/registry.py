"""The closed list of events: what every stored topic and version means, for ever.

An old version of an event stays readable by an upcast: a function from the JSON object of version n to that of version n + 1, run
in a chain before the class is built. Beside it stands the shape that version n had, for its JSON Schema: strangers read what was
stored, not what we make of it. Golden files in tests/golden hold one example and the schema of every version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydantic

from domain import agent_runs, agents, context, invocations, messages, projects, runs, tenants, tools, values
from domain.kernel import Event

SLICES: dict[str, tuple[type[Event], ...]] = {
    "tenants": (tenants.TenantCreated, tenants.ApiKeyIssued, tenants.ApiKeyRevoked),
    "projects": (projects.ProjectCreated,),
    "agents": (agents.AgentRegistered,),
    "tools": (tools.ToolRegistered,),
    "runs": (
        runs.RunStarted, runs.StepScheduled, runs.StepCompleted, runs.StepFailed, runs.RunCompleted, runs.RunFailed,
        runs.RunCancelled,
    ),
    "agent_runs": (
        agent_runs.AgentRunRequested, agent_runs.AgentRunClaimed, agent_runs.StepRecorded, agent_runs.CallStarted,
        agent_runs.CallFinished, agent_runs.MailDelivered, agent_runs.MailRefused, agent_runs.MailReceived,
        agent_runs.AgentRunRetryScheduled, agent_runs.AgentRunResumed, agent_runs.AgentRunCompleted,
        agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled,
    ),
    "invocations": (
        invocations.InvocationRequested, invocations.AttemptStarted, invocations.InvocationRetryScheduled,
        invocations.InvocationRequeued, invocations.InvocationSucceeded, invocations.InvocationFailed,
        invocations.InvocationBecameAmbiguous, invocations.InvocationResolved, invocations.InvocationCancelRequested,
        invocations.InvocationCancelled,
    ),
    "messages": (messages.MessageSent,),
    "context": (context.ContextValueSet,),
}  # fmt: skip

EVENTS: dict[str, type[Event]] = {event.TOPIC: event for events in SLICES.values() for event in events}
"""Topic → the class of its newest version."""


@dataclass(frozen=True, slots=True)
class Upcast:
    """An older version of an event. The shape is its class of then, with a name of its own (`RunStartedV1`) and its `VERSION`."""

    shape: type[Event]
    to_next: Callable[[dict[str, Any]], dict[str, Any]]
    """From this version's JSON object to the next version's."""


UPCASTS: dict[tuple[str, int], Upcast] = {}
"""(topic, version) → what became of an older version."""


class UnknownEvent(Exception):
    """A stored topic or version that this release does not know: it was written by a newer one."""


def shapes() -> dict[tuple[str, int], type[Event]]:
    """(topic, version) → the class that has the fields of that version, oldest first; of every version that the log can hold."""
    newest = {(topic, event.VERSION): event for topic, event in EVENTS.items()}
    found = newest | {key: upcast.shape for key, upcast in UPCASTS.items()}
    topics = list(EVENTS)
    return dict(sorted(found.items(), key=lambda item: (topics.index(item[0][0]), item[0][1])))


def schema(topic: str, version: int) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one version of an event: everything that was ever stored as it fits.

    So a field with a default is not required: it may have been added after the first events of the version.

    Raises:
        UnknownEvent: there is no such event or version.
    """
    shape = shapes().get((topic, version))
    if shape is None:
        raise UnknownEvent(f"there is no event {topic} of version {version}")
    return shape.model_json_schema(mode="validation")


def encode(event: Event) -> bytes:
    """The canonical JSON of an event: what is stored, and what hashes are taken of."""
    return event.__pydantic_serializer__.to_json(event)


_READ_NEWEST: dict[tuple[str, int], Callable[[bytes], Event]] = {
    (topic, event.VERSION): event.__pydantic_validator__.validate_json for topic, event in EVENTS.items()
}
"""Nearly all that is ever read; found in one step, because each fold does little else."""


def decode(topic: str, version: int, state: bytes) -> Event:
    """The event of a stored JSON object, upcast to the newest version. Its values may be as deep as `values.read` takes.

    Raises:
        UnknownEvent: this release does not know the topic, or only older versions of it.
    """
    read = _READ_NEWEST.get((topic, version))
    try:
        if read is not None:
            try:
                return read(state)
            except pydantic.ValidationError as error:
                if not values.is_beyond_parser(error):
                    raise
        event_class = EVENTS.get(topic)
        if event_class is None or version > event_class.VERSION:
            raise UnknownEvent(f"event {topic} version {version} is not known to this release")
        value = values.read(state)
        for old in range(version, event_class.VERSION):
            value = UPCASTS[topic, old].to_next(value)
        return event_class.model_validate(value)
    except pydantic.ValidationError as error:
        raise ValueError(f"a stored {topic} version {version} does not fit its class: {error}") from error
