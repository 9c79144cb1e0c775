"""The parts of a run that have not ended, from the events under the run alone.

A part begins with one event and ends with one event, so counting is enough: scheduled steps and parts of steps up to the end of
their agent runs, tool calls up to their outcome, messages up to their delivery. An ambiguous call counts as ended, because a person
may need days. It counts again if it turns out that it had no effect, and goes on.

A compensation that goes on is a part, too, from the event that began or resumed it up to its end. One that waits for an ambiguous
call does not count: it waits for the same person.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from domain import agent_runs, compensations, invocations, messages, runs
from domain.kernel import RecordedEvent

_OUTCOMES = frozenset(
    kind.TOPIC
    for kind in (
        invocations.InvocationSucceeded,
        invocations.InvocationFailed,
        invocations.InvocationCancelled,
        invocations.InvocationBecameAmbiguous,
    )
)
_AGAIN = frozenset(
    kind.TOPIC for kind in (invocations.InvocationRequeued, invocations.InvocationRetryScheduled, invocations.InvocationFellBack)
)
_AFTER_AMBIGUOUS = (_OUTCOMES - {invocations.InvocationBecameAmbiguous.TOPIC}) | _AGAIN | {invocations.InvocationResolved.TOPIC}
_BEGIN = (runs.StepScheduled, invocations.InvocationRequested, messages.MessageSent)
_END = (
    agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled,
    agent_runs.MailDelivered, agent_runs.MailRefused,
)  # fmt: skip
_STEP = {kind.TOPIC: 1 for kind in _BEGIN} | {kind.TOPIC: -1 for kind in _END} | dict.fromkeys(_OUTCOMES, -1)
_COMPENSATING = {
    compensations.CompensationStarted.TOPIC: True,
    compensations.CompensationResumed.TOPIC: True,
    compensations.CompensationEnded.TOPIC: False,
}


def _is_agent_run(event: RecordedEvent) -> bool:
    """Whether a part of a step is an agent run. A child run has a stream of events of its own."""
    return json.loads(event.state)["agent_run_id"] is not None


class OpenParts(NamedTuple):
    """What of a run has not ended, up to an event of the run."""

    ended: bool = False
    """Whether the run itself has ended."""
    open: int = 0
    """Agent runs, tool calls and messages that have not ended."""
    attempts: frozenset[UUID] = frozenset()
    """Cancelled calls whose last attempt is under way. Its outcome is recorded, whenever it comes."""
    ambiguous: frozenset[UUID] = frozenset()
    """Calls that wait for a person, and count as ended."""
    compensating: bool = False
    """Whether the run's effects are being taken back."""

    @property
    def over(self) -> bool:
        """Whether the run gets no event any more, except what becomes of an ambiguous call or follows from a person's word."""
        return self.ended and not self.open and not self.goes_back

    @property
    def goes_back(self) -> bool:
        """Whether effects are being taken back, and nobody waits for a person in this."""
        return self.compensating and not self.ambiguous

    def after(self, events: Iterable[RecordedEvent]) -> "OpenParts":
        """The open parts after further events of the run."""
        ended, open_, attempts, ambiguous, compensating = self
        for event in events:
            topic = event.topic
            if ambiguous and event.stream_id in ambiguous and topic in _AFTER_AMBIGUOUS:
                ambiguous -= {event.stream_id}
                open_ += topic in _AGAIN
            else:
                if topic == invocations.InvocationBecameAmbiguous.TOPIC:
                    ambiguous |= {event.stream_id}
                open_ += _is_agent_run(event) if topic == runs.PartScheduled.TOPIC else _STEP.get(topic, 0)
            if topic in runs.ENDS:
                ended = True
            elif topic == runs.RunRetried.TOPIC:
                ended = False
            elif topic in _COMPENSATING:
                compensating = _COMPENSATING[topic]
            elif topic == invocations.InvocationCancelRequested.TOPIC:
                attempts |= {event.stream_id}
            elif topic in _OUTCOMES and attempts:
                attempts -= {event.stream_id}
        return OpenParts(ended, open_, attempts, ambiguous, compensating)
