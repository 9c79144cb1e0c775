"""Work that a worker lost: only the end of the worker's process, or a time in which it was frozen, explains a loss."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from domain import agent_runs, invocations
from tests.chaos.checks.snapshot import Fact, Snapshot, Violation

CLAIMS = agent_runs.AgentRunClaimed | invocations.AttemptStarted
CLOCKS_S = 0.5
"""Between a blow and what is recorded at the same time."""


@dataclass(frozen=True, slots=True)
class Blow:
    """A part was killed at `began`, or frozen from `began` to `ended`; seconds since 1970."""

    part: str
    began: float
    ended: float
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that lapsed though its work had begun. `ambiguous`: nobody knows whether the call took effect."""

    work: str
    attempt: int
    claimed_at: float
    lapsed_at: float
    ambiguous: bool


def losses(snapshot: Snapshot) -> Iterator[Loss]:
    """The attempts that lapsed, but for those that never reached their worker."""
    for prefix in ("agent_run.", "invocation."):
        for work_id, facts in snapshot.streams(prefix).items():
            claimed = {fact.event.attempt: _at(fact) for fact in facts if isinstance(fact.event, CLAIMS)}
            for fact in facts:
                attempt = _lapsed(fact)
                if attempt is not None:
                    ambiguous = isinstance(fact.event, invocations.InvocationBecameAmbiguous)
                    yield Loss(f"{prefix}{work_id}", attempt, claimed[attempt], _at(fact), ambiguous)


def claimed_again(snapshot: Snapshot) -> Iterator[float]:
    """When the next attempt after a loss was claimed, of the work whose attempt was lost."""
    for loss in losses(snapshot):
        prefix, _, work_id = loss.work.partition(".")
        for fact in snapshot.streams(f"{prefix}.")[UUID(work_id)]:
            event = fact.event
            if isinstance(event, CLAIMS) and event.attempt == loss.attempt + 1:
                yield _at(fact)


def check_losses(snapshot: Snapshot, blows: Sequence[Blow]) -> Iterator[Violation]:
    """`blows`: all blows against workers."""
    for loss in losses(snapshot):
        if not any(blow.began - CLOCKS_S < loss.lapsed_at and loss.claimed_at < blow.ended + CLOCKS_S for blow in blows):
            what = "became ambiguous" if loss.ambiguous else "was lost"
            detail = f"attempt {loss.attempt} {what} after {loss.lapsed_at - loss.claimed_at:.1f} s, and its worker lived"
            yield Violation("lost-with-its-worker", loss.work, detail)


def told(snapshot: Snapshot) -> str:
    found = Counter(loss.ambiguous for loss in losses(snapshot))
    return f"{found[False]} attempts lost, {found[True]} calls ambiguous"


def _at(fact: Fact) -> float:
    return fact.recorded.recorded_at.timestamp()


def _lapsed(fact: Fact) -> int | None:
    match fact.event:
        case invocations.InvocationBecameAmbiguous(attempt=attempt):
            return attempt
        case agent_runs.AgentRunResumed() | invocations.InvocationRequeued() as event:
            return None if event.reason == "unsent" else event.lapsed
    return None
