"""The content of the streams: nothing is scheduled, recorded, called, sent or ended twice, and no work is left undone."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from domain import agent_runs, context, invocations, messages, runs
from domain.failures import MAX_LOST_CLAIMS
from tests.chaos.checks.snapshot import Fact, Snapshot, Violation

ENDS_OF_RUNS = {runs.RunCompleted: "completed", runs.RunFailed: "failed", runs.RunCancelled: "cancelled"}
ENDS_OF_AGENT_RUNS = (agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled)
OUTCOMES = (invocations.InvocationSucceeded, invocations.InvocationFailed, invocations.InvocationResolved)
ENDS_OF_INVOCATIONS = (*OUTCOMES, invocations.InvocationCancelled)
JOURNAL = (agent_runs.StepRecorded, agent_runs.CallStarted, agent_runs.MailReceived)
PROGRESS = (*JOURNAL, agent_runs.CallFinished, agent_runs.AgentRunRetryScheduled)

Report = Callable[[str, str], Violation]


def check_slices(snapshot: Snapshot, *, settled: bool, expected: Mapping[UUID, str]) -> Iterator[Violation]:
    """`settled`: no work is under way any more. `expected`: the status with which each run must have ended, by run id."""
    told_runs = {i: _Run(i, facts) for i, facts in snapshot.streams("run.").items()}
    agents = {i: _AgentRun(i, facts) for i, facts in snapshot.streams("agent_run.").items()}
    calls = {i: _Invocation(i, facts) for i, facts in snapshot.streams("invocation.").items()}
    for run in told_runs.values():
        yield from run.check(agents, settled=settled, expected=expected.get(run.id))
    for missing in expected.keys() - told_runs.keys():
        yield Violation("run-is-there", f"run {missing}", "acknowledged, but not in the log")
    for agent_run in agents.values():
        yield from agent_run.check(calls, settled=settled)
    for invocation in calls.values():
        yield from invocation.check(agents, settled=settled)
    yield from _messages(snapshot, agents, settled=settled)
    yield from _context(snapshot, agents)


def _repeated(keys: list[Any]) -> list[Any]:
    return [key for key, count in Counter(keys).items() if count > 1]


GIVEN_BACK = {"left", "unsent"}
"""Reasons of a lapse in which no worker vanished."""


class _Stream:
    kind = ""

    def __init__(self, stream_id: UUID, facts: list[Fact]) -> None:
        self.id = stream_id
        self.facts = facts
        self.events: list[Any] = [fact.event for fact in facts]

    def violation(self, rule: str, detail: str) -> Violation:
        return Violation(rule, f"{self.kind} {self.id}", detail)

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def ends_once(self, ends: tuple[type[Any], ...], may_follow: tuple[type[Any], ...] = ()) -> Iterator[Violation]:
        places = [i for i, event in enumerate(self.events) if isinstance(event, ends)]
        if len(places) > 1:
            yield self.violation("ends-once", f"{[type(self.events[i]).__name__ for i in places]}")
        if places:
            late = [type(event).__name__ for event in self.events[places[0] + 1 :] if not isinstance(event, may_follow)]
            if late:
                yield self.violation("nothing-after-the-end", f"{late}")


class _Run(_Stream):
    kind = "run"

    @property
    def status(self) -> str:
        found = [status for event in self.events for kind, status in ENDS_OF_RUNS.items() if isinstance(event, kind)]
        return found[0] if found else "running"

    def check(self, agents: Mapping[UUID, "_AgentRun"], *, settled: bool, expected: str | None) -> Iterator[Violation]:
        yield from self.ends_once(tuple(ENDS_OF_RUNS))
        yield from self._steps()
        if not settled:
            return
        if self.status != (expected or self.status):
            yield self.violation("run-ended-as-expected", f"{self.status}, expected {expected}")
        if self.status == "running":
            yield self.violation("run-has-ended", "it is still running")
        for scheduled in self.of(runs.StepScheduled, runs.PartScheduled):
            if scheduled.agent_run_id is None:  # a child run
                continue
            agent_run = agents.get(scheduled.agent_run_id)
            if agent_run is None or not agent_run.of(agent_runs.AgentRunRequested):
                yield self.violation("step-has-its-agent-run", f"step {scheduled.step} was scheduled, nothing was requested")
            elif not agent_run.of(*ENDS_OF_AGENT_RUNS):
                yield self.violation("agent-run-has-ended", f"step {scheduled.step}: {agent_run.id} is still open")
        for done in self.of(runs.StepCompleted):
            if done.agent_run_id is None:
                continue
            results = [e.result for e in agents[done.agent_run_id].of(agent_runs.AgentRunCompleted)]
            if results != [done.result]:
                yield self.violation("result-is-handed-on", f"step {done.step}: {done.result!r}, the agent run said {results!r}")

    def _steps(self) -> Iterator[Violation]:
        started = self.of(runs.RunStarted)
        if len(started) != 1 or self.events[0] is not started[0]:
            yield self.violation("starts-once", f"{len(started)} times")
            return
        after = {step.key: step.after for step in started[0].plan.steps}
        scheduled: list[str] = []
        ended: dict[str, bool] = {}
        for event in self.events:
            match event:
                case runs.StepScheduled():
                    early = [key for key in after[event.step] if key not in ended]
                    if early:
                        yield self.violation("steps-in-order", f"{event.step} was scheduled before {early} ended")
                    scheduled.append(event.step)
                case runs.StepCompleted() | runs.StepFailed():
                    if event.step in ended:
                        yield self.violation("step-ends-once", event.step)
                    if event.step not in scheduled and event.agent_run_id is not None:
                        yield self.violation("steps-in-order", f"{event.step} ended without having been scheduled")
                    ended[event.step] = isinstance(event, runs.StepCompleted)
                case runs.StepSkipped():
                    if event.step in ended:
                        yield self.violation("step-ends-once", event.step)
                    ended[event.step] = True
                case runs.StepFellBack(part=None):
                    scheduled.remove(event.step)
                case runs.RunCompleted():
                    failed = sorted(key for key, ok in ended.items() if not ok)
                    if set(ended) != set(after) or (event.degraded, sorted(event.missing)) != (bool(failed), failed):
                        yield self.violation("completed-as-told", f"{event}, but steps ended as {ended}")
        for key in _repeated(scheduled):
            yield self.violation("step-scheduled-once", key)
        yield from self._parts()

    def _parts(self) -> Iterator[Violation]:
        """The executions of steps that have several."""
        scheduled: list[tuple[str, int]] = []
        ended: set[tuple[str, int]] = set()
        for event in self.events:
            if isinstance(event, runs.PartScheduled):
                scheduled.append((event.step, event.part))
            elif isinstance(event, runs.StepFellBack) and event.part is not None:
                scheduled.remove((event.step, event.part))
            elif isinstance(event, runs.PartCompleted | runs.PartFailed):
                part = event.step, event.part
                if part in ended or part not in scheduled:
                    yield self.violation("part-ends-once", f"{part}, scheduled {scheduled.count(part)} times")
                ended.add(part)
        for part in _repeated(scheduled):
            yield self.violation("part-scheduled-once", str(part))


class _AgentRun(_Stream):
    kind = "agent run"

    def check(self, calls: Mapping[UUID, "_Invocation"], *, settled: bool) -> Iterator[Violation]:
        yield from self.ends_once(ENDS_OF_AGENT_RUNS, may_follow=(agent_runs.MailRefused,))
        requested = self.of(agent_runs.AgentRunRequested)
        if len(requested) > 1 or (settled and not requested):
            yield self.violation("requested-once", f"{len(requested)} times")
        for key in _repeated([event.key for event in self.of(*JOURNAL)]):
            yield self.violation("journal-key-recorded-once", key)
        for key in _repeated([event.key for event in self.of(agent_runs.CallFinished)]):
            yield self.violation("call-finished-once", key)
        if requested and len(self.of(agent_runs.AgentRunRetryScheduled)) >= requested[0].retry.max_attempts:
            yield self.violation("attempts-within-limit", f"retried {len(self.of(agent_runs.AgentRunRetryScheduled))} times")
        yield from self._fencing()
        yield from self._mailbox()
        yield from self._calls(calls, settled=settled)

    def _fencing(self) -> Iterator[Violation]:
        """Each claim has the next number, and only the newest claim writes."""
        attempt = lost = 0
        of_sessions: dict[int, UUID] = {}
        for event in self.events:
            if isinstance(event, agent_runs.AgentRunClaimed):
                lost += 1
                attempt += 1
                if event.attempt != attempt:
                    yield self.violation("claims-numbered", f"attempt {event.attempt}, expected {attempt}")
                if lost > MAX_LOST_CLAIMS:
                    yield self.violation("attempts-within-limit", f"{lost} claims without progress")
                if event.dispatch in of_sessions:
                    yield self.violation("claimed-once", f"dispatch {event.dispatch} by {of_sessions[event.dispatch]}, then again")
                if event.session_id is not None:
                    of_sessions[event.dispatch] = event.session_id
            elif isinstance(event, agent_runs.AgentRunResumed) and event.reason in GIVEN_BACK:
                lost = max(0, lost - 1)
            elif isinstance(event, (*JOURNAL, agent_runs.AgentRunCompleted)) and event.attempt != attempt:
                yield self.violation("stale-attempts-refused", f"{type(event).__name__} of {event.attempt}, claimed by {attempt}")
            if isinstance(event, PROGRESS):
                lost = 0

    def _mailbox(self) -> Iterator[Violation]:
        delivered: list[UUID] = []
        received: list[UUID] = []
        for event in self.events:
            if isinstance(event, agent_runs.MailDelivered):
                delivered.append(event.message_id)
            elif isinstance(event, agent_runs.MailReceived) and event.message_id is not None:
                if event.message_id not in delivered:
                    yield self.violation("mail-delivered-before-received", str(event.message_id))
                received.append(event.message_id)
        for message_id in _repeated(delivered):
            yield self.violation("mail-delivered-once", str(message_id))
        for message_id in _repeated(received):
            yield self.violation("mail-received-once", str(message_id))

    def _calls(self, calls: Mapping[UUID, "_Invocation"], *, settled: bool) -> Iterator[Violation]:
        finished = {event.key: event for event in self.of(agent_runs.CallFinished)}
        over = bool(self.of(*ENDS_OF_AGENT_RUNS))
        started = self.of(agent_runs.CallStarted)
        for key in finished.keys() - {event.key for event in started}:
            yield self.violation("call-started-before-finished", key)
        for event in started:
            invocation = calls.get(event.invocation_id)
            outcome = finished.get(event.key)
            if invocation is None:
                yield self.violation("call-has-its-invocation", event.key)
            elif outcome is not None:
                by_hand = [e.outcome == "succeeded" for e in invocation.of(invocations.InvocationResolved)]
                succeeded = bool(invocation.of(invocations.InvocationSucceeded)) or any(by_hand)
                ended = invocation.of(*ENDS_OF_INVOCATIONS)
                if outcome.invocation_id != event.invocation_id or not ended or succeeded != outcome.succeeded:
                    yield self.violation("call-finished-as-invocation", f"{event.key}: {outcome}")
            elif settled and not over:
                yield self.violation("call-has-finished", event.key)


class _Invocation(_Stream):
    kind = "invocation"

    def check(self, agents: Mapping[UUID, _AgentRun], *, settled: bool) -> Iterator[Violation]:
        requested = self.of(invocations.InvocationRequested)
        if len(requested) != 1 or self.events[0] is not requested[0]:
            yield self.violation("requested-once", f"{len(requested)} times")
            return
        yield from self.ends_once(ENDS_OF_INVOCATIONS)
        yield from self._attempts(requested[0])
        yield from self._over_when_cancelled()
        caller, is_agent = agents.get(requested[0].agent_run_id), requested[0].asked_by == "agent_run"
        if requested[0].asked_by == "client" and {requested[0].run_id, requested[0].agent_run_id} != {self.id}:
            yield self.violation("call-without-run-is-its-own-root", f"{requested[0].run_id}, {requested[0].agent_run_id}")
        if is_agent and (caller is None or self.id not in [event.invocation_id for event in caller.of(agent_runs.CallStarted)]):
            yield self.violation("invocation-has-its-call", f"{requested[0].agent_run_id} {requested[0].key}")
        if settled and not self.of(*ENDS_OF_INVOCATIONS, invocations.InvocationBecameAmbiguous):
            yield self.violation("invocation-has-ended", f"the last event is {type(self.events[-1]).__name__}")

    def _over_when_cancelled(self) -> Iterator[Violation]:
        asked = [i for i, event in enumerate(self.events) if isinstance(event, invocations.InvocationCancelRequested)]
        if len(asked) > 1:
            yield self.violation("cancelled-once", f"{len(asked)} times")
        again = (invocations.AttemptStarted, invocations.InvocationRetryScheduled, invocations.InvocationRequeued)
        later = [type(e).__name__ for e in self.events[asked[0] :] if isinstance(e, again)] if asked else []
        if later:
            yield self.violation("nothing-again-after-a-cancel", f"{later}")

    def _attempts(self, requested: invocations.InvocationRequested) -> Iterator[Violation]:
        attempt = lost = retries = unsent = 0
        of_sessions: dict[int, UUID] = {}
        said_not = asked = called = 0
        for event in self.events:
            if isinstance(event, invocations.InvocationReconcileStarted):
                attempt, asked = attempt + 1, asked + 1
                if event.attempt != attempt:
                    yield self.violation("claims-numbered", f"attempt {event.attempt}, expected {attempt}")
            elif isinstance(event, invocations.InvocationNotHappened):
                said_not, lost = said_not + 1, 0
            elif isinstance(event, invocations.InvocationReconciled):
                said_not += event.outcome == "not_happened"
            elif isinstance(event, invocations.AttemptStarted):
                attempt, lost = attempt + 1, lost + 1
                called = attempt
                if event.dispatch in of_sessions:
                    yield self.violation("claimed-once", f"dispatch {event.dispatch} by {of_sessions[event.dispatch]}, then again")
                if event.session_id is not None:
                    of_sessions[event.dispatch] = event.session_id
                if event.attempt != attempt:
                    yield self.violation("claims-numbered", f"attempt {event.attempt}, expected {attempt}")
            elif isinstance(event, invocations.InvocationRetryScheduled):
                retries, lost = retries + 1, 0
            elif isinstance(event, invocations.InvocationRequeued) and event.reason in GIVEN_BACK:
                lost, unsent = max(0, lost - 1), unsent + (event.reason == "unsent")
            elif isinstance(event, OUTCOMES) and event.attempt != called:
                yield self.violation("stale-attempts-refused", f"{type(event).__name__} of {event.attempt}, started {called}")
            if lost > MAX_LOST_CLAIMS:
                yield self.violation("attempts-within-limit", f"{lost} attempts in a row were lost")
        if not requested.idempotent and attempt - asked - unsent > 1 + said_not:
            yield self.violation("one-attempt-unless-idempotent", f"{requested.tool} was started {attempt - asked} times")
        if retries >= requested.retry.max_attempts:
            yield self.violation("attempts-within-limit", f"{requested.tool} was retried {retries} times")


def _messages(snapshot: Snapshot, agents: Mapping[UUID, _AgentRun], *, settled: bool) -> Iterator[Violation]:
    """Each message was recorded by its sender, and reached its recipient's mailbox or was refused there, once."""
    arrived = Counter(
        event.message_id
        for agent_run in agents.values()
        for event in agent_run.of(agent_runs.MailDelivered, agent_runs.MailRefused)
    )
    for message_id, facts in snapshot.streams("message.").items():
        subject = f"message {message_id}"
        sent = facts[0].event
        assert isinstance(sent, messages.MessageSent)
        if len(facts) > 1:
            yield Violation("message-sent-once", subject, f"{len(facts)} times")
        sender = agents.get(sent.sender_id)
        notes = sender.of(agent_runs.StepRecorded) if sender else []
        if [note.kind for note in notes if note.result == str(message_id)] != ["send"]:
            yield Violation("message-in-senders-journal", subject, f"not in the journal of {sent.sender_id}")
        if arrived[message_id] > 1 or (settled and not arrived[message_id]):
            yield Violation("message-arrives-once", subject, f"{arrived[message_id]} times")


def _context(snapshot: Snapshot, agents: Mapping[UUID, _AgentRun]) -> Iterator[Violation]:
    """Values have versions without gaps, and each write was recorded by an agent run."""
    written: defaultdict[UUID, list[tuple[int, Any]]] = defaultdict(list)
    for stream_id, facts in snapshot.streams("context.").items():
        versions: Counter[str] = Counter()
        for fact in facts:
            event = fact.event
            assert isinstance(event, context.ContextValueSet)
            versions[event.name] += 1
            if event.value_version != versions[event.name]:
                detail = f"{event.name} at version {event.value_version}, expected {versions[event.name]}"
                yield Violation("values-numbered", f"context {stream_id}", detail)
            written[event.agent_run_id].append((event.value_version, event.value))
    for agent_run in agents.values():
        noted = [
            (note.result["value_version"], note.result["value"])
            for note in agent_run.of(agent_runs.StepRecorded)
            if note.kind == "state_set"
        ]
        if noted != written[agent_run.id]:
            yield agent_run.violation("writes-in-journal", f"noted {noted}, written {written[agent_run.id]}")
