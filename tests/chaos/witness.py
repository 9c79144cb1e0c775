"""The executions that agents and tools noted in a file, compared with the executions in the log."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from domain import agent_runs, invocations
from tests.chaos.checks.snapshot import Fact, Snapshot, Violation


@dataclass(frozen=True, slots=True)
class Line:
    """One execution. `work`: the agent run of a local step, or the invocation. `at`: its begin, in seconds since 1970."""

    kind: str
    work: str
    key: str
    attempt: int
    word: str
    at: float
    pid: int


def read_lines(path: Path) -> list[Line]:
    return [Line(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def check_witness(lines: list[Line], snapshot: Snapshot) -> Iterator[Violation]:
    """An execution is repeated only if the execution before was not recorded, and each recorded result comes from an execution."""
    by_work: defaultdict[tuple[str, UUID], list[Line]] = defaultdict(list)
    for line in lines:
        by_work[line.kind, UUID(line.work)].append(line)
    for agent_run_id, facts in snapshot.streams("agent_run.").items():
        yield from _steps(agent_run_id, facts, by_work.pop(("step", agent_run_id), []))
    for invocation_id, facts in snapshot.streams("invocation.").items():
        yield from _calls(invocation_id, facts, by_work.pop(("tool", invocation_id), []))
    for (kind, work), surplus in by_work.items():
        yield Violation("executed-as-recorded", f"{kind} of {work}", f"the log knows nothing of it: {surplus}")


def _steps(agent_run_id: UUID, facts: list[Fact], lines: list[Line]) -> Iterator[Violation]:
    records = {f.event.key: f for f in facts if isinstance(f.event, agent_runs.StepRecorded) and f.event.kind == "step"}
    for key in records.keys() | {line.key for line in lines}:
        executed = [line for line in lines if line.key == key]
        fact = records.get(key)
        subject = f"step {key} of agent run {agent_run_id}"
        if fact is None:
            yield from _once_for_each_attempt(subject, executed)
        else:
            assert isinstance(fact.event, agent_runs.StepRecorded)
            yield from _recorded(subject, executed, fact, fact.event.attempt, fact.event.result)


def _calls(invocation_id: UUID, facts: list[Fact], executed: list[Line]) -> Iterator[Violation]:
    [requested, *_] = (fact.event for fact in facts)
    assert isinstance(requested, invocations.InvocationRequested)
    subject = f"{requested.tool}, invocation {invocation_id}"
    if not requested.idempotent and len(executed) > 1:
        yield Violation("effect-at-most-once", subject, f"{executed}")
    intents = {f.event.attempt: f for f in facts if isinstance(f.event, invocations.AttemptStarted)}
    for line in executed:
        intent = intents.get(line.attempt)
        if intent is None or intent.recorded.recorded_at.timestamp() > line.at:
            yield Violation("intent-before-effect", subject, f"{line}, intent: {intent}")
    success = next((f for f in facts if isinstance(f.event, invocations.InvocationSucceeded)), None)
    by_hand = any(isinstance(f.event, invocations.InvocationBecameAmbiguous) for f in facts)
    if success is not None and not by_hand:
        assert isinstance(success.event, invocations.InvocationSucceeded)
        yield from _recorded(subject, executed, success, success.event.attempt, success.event.result)
    else:
        yield from _once_for_each_attempt(subject, executed)


def _recorded(subject: str, executed: list[Line], fact: Fact, attempt: int, result: object) -> Iterator[Violation]:
    yield from _once_for_each_attempt(subject, executed)
    if [line.word for line in executed if line.attempt == attempt] != [result]:
        yield Violation("recorded-as-executed", subject, f"attempt {attempt} recorded {result!r}; executed: {executed}")
    recorded_at = fact.recorded.recorded_at.timestamp()
    late = [line for line in executed if line.attempt > attempt or line.at > recorded_at]
    if late:
        yield Violation(
            "finished-work-not-repeated", subject, f"attempt {attempt} recorded at {recorded_at}; executed after: {late}"
        )


def _once_for_each_attempt(subject: str, executed: list[Line]) -> Iterator[Violation]:
    for attempt, count in Counter(line.attempt for line in executed).items():
        if count > 1:
            yield Violation("executed-once-for-each-attempt", subject, f"attempt {attempt}: {count} times")
