"""Breakers: whether a tool is called at the moment, or left alone because the service behind it is down.

closed      calls go on, and their outcomes are counted
open        no call begins until the time is over
half-open   one process tries some calls: all must succeed, and then the breaker closes

A breaker has a stream of its own beside the tool's, and only what changes it is an event. Nothing here knows the time: who gives a
command says when it is, by the clock of its process. Each change has a number (`changes`), and a command that speaks of an older
one does nothing. So two processes that see the same at once change a breaker once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, assert_never
from uuid import UUID

from pydantic import Field

from domain import tool_policy
from domain.failures import Failure
from domain.kernel import Command, Decider, Event, Name, ShortText, Value, derive_id, replace, timestamp

Status = Literal["closed", "open", "half_open"]
Forced = Literal["open", "closed"]
Because = Literal["failures", "rate", "probe"]
"""Why a breaker opened: failures in a row, the share of failures in a window, or a call that was tried and failed."""

COUNTS_AS_FAILURE: frozenset[str] = frozenset({"transient", "timeout"})
"""Kinds of failures by which a service shows that it is down.

The others say nothing of that. `rate_limited`: it answers, and asks for fewer calls. `invalid`, `permanent`: it answered, and the
call was wrong. `lost`: a worker vanished. `upstream`, `ambiguous`: the tool was not called, or nobody knows.
"""
FORCED_WAIT_S = 30.0
"""Seconds until a call is tried again whose tool a person holds back: nobody knows for how long."""
LEAST_TURN_S = 1.0
"""A process that tries calls has at least so many seconds for them, before another one may."""


class BreakerOpened(Event):
    TOPIC = "breaker.opened"
    tool: str
    because: str
    at: datetime
    """By the clock of the process that opened it."""
    open_s: float
    probes: int
    failures: int
    """In a row, or of the window."""
    calls: int
    """Of the window."""
    error: str | None = None
    """The last failure."""


class BreakerHalfOpened(Event):
    """A process tries calls of the tool. The others wait."""

    TOPIC = "breaker.half_opened"
    tool: str
    prober: UUID
    """The process."""
    at: datetime
    probes: int
    turn_s: float
    """Seconds after which another process may try, if this one has said nothing."""


class BreakerClosed(Event):
    TOPIC = "breaker.closed"
    tool: str


class BreakerForced(Event):
    """A person holds the breaker open or closed, or lets it follow the outcomes again (`auto`): it is closed then."""

    TOPIC = "breaker.forced"
    tool: str
    state: str
    at: datetime
    by: str
    reason: str | None = None
    on_behalf_of: str | None = None


BreakerEvent = BreakerOpened | BreakerHalfOpened | BreakerClosed | BreakerForced


@dataclass(frozen=True)
class ToolBreaker:
    tool: str | None = None
    status: Status = "closed"
    """What follows from the outcomes of calls. It stays as it was while a person forces another one."""
    changes: int = 0
    """The number of the newest change."""
    opened: BreakerOpened | None = None
    """The newest opening, while it is not closed."""
    trying: BreakerHalfOpened | None = None
    """Who tries calls, while it is half-open."""
    forced: BreakerForced | None = None

    @property
    def in_force(self) -> Status:
        """What callers obey."""
        if self.forced is None:
            return self.status
        return "open" if self.forced.state == "open" else "closed"

    @property
    def since(self) -> datetime | None:
        """Since when it is as it is. None: it has never been otherwise."""
        newest = self.forced or self.trying or self.opened
        return None if newest is None else newest.at

    @property
    def tried_at(self) -> datetime | None:
        """When calls are tried, or another process may try them. None: it is closed, or a person says when."""
        if self.forced is not None or self.opened is None:
            return None
        if self.trying is not None:
            return self.trying.at + timedelta(seconds=self.trying.turn_s)
        return self.opened.at + timedelta(seconds=self.opened.open_s)

    def left_s(self, now: datetime) -> float:
        """Seconds until calls are tried. 0: they may be tried now. While it is closed: 0."""
        if self.in_force == "open" and self.forced is not None:
            return FORCED_WAIT_S
        return 0.0 if self.tried_at is None else max(0.0, (self.tried_at - now).total_seconds())


class TripBreaker(Command):
    """Calls have failed too often."""

    breaker_id: UUID
    tool: Name
    changes: int
    """The change after which the calls were counted."""
    because: Because
    at: datetime
    open_s: float
    probes: int
    failures: int
    calls: int
    error: ShortText | None = None


class TryTool(Command):
    """A process wants to try calls: the time is over, or another process said nothing in its turn."""

    breaker_id: UUID
    tool: Name
    changes: int
    prober: UUID
    at: datetime


class CloseBreaker(Command):
    """All calls that were tried have succeeded."""

    breaker_id: UUID
    tool: Name
    changes: int


class ReopenBreaker(Command):
    """A call that was tried has failed."""

    breaker_id: UUID
    tool: Name
    changes: int
    at: datetime
    error: ShortText | None = None


class ForceBreaker(Command):
    breaker_id: UUID
    tool: Name
    state: Literal["open", "closed", "auto"]
    at: datetime
    by: ShortText
    reason: ShortText | None = None
    on_behalf_of: ShortText | None = None


BreakerCommand = TripBreaker | TryTool | CloseBreaker | ReopenBreaker | ForceBreaker


def breaker_id_of(tool_id: UUID) -> UUID:
    """A stream beside the tool's: what happens to its breaker is no change of what the tool declares."""
    return derive_id(tool_id, "breaker")


class Counts(Value):
    """Outcomes of calls since the newest change."""

    calls: int = Field(default=0, ge=0)
    """Of the present window, without those that do not count."""
    failures: int = Field(default=0, ge=0)
    """Of those."""
    in_a_row: int = Field(default=0, ge=0)
    """Failures since the last success, of any window."""


def because_of(policy: tool_policy.Breaker, counts: Counts) -> Because | None:
    """Why a breaker with this policy opens. None: it stays closed."""
    if policy.failures is not None and counts.in_a_row >= policy.failures:
        return "failures"
    if policy.rate is not None and counts.calls >= policy.calls and counts.failures >= policy.rate * counts.calls:
        return "rate"
    return None


def is_open(tool: str, breaker: ToolBreaker, now: datetime) -> Failure:
    """The failure of a call that is not made."""
    left = breaker.left_s(now)
    if breaker.forced is not None:
        why = f" ({breaker.forced.reason})" if breaker.forced.reason else ""
        told = f"{breaker.forced.by} holds it open since {timestamp(breaker.forced.at)}{why}"
    else:
        assert breaker.opened is not None
        last = f"; the last failure was {breaker.opened.error}" if breaker.opened.error else ""
        again = timestamp(now + timedelta(seconds=left))
        told = f"it is open since {timestamp(breaker.opened.at)} and is tried again at {again}{last}"
    message = f"the breaker keeps the tool '{tool}' from being called: {told}"
    return Failure(type="BreakerOpen", message=message, kind="transient", retry_after_s=left)


def decide(breaker: ToolBreaker, command: BreakerCommand) -> list[Event]:
    if isinstance(command, ForceBreaker):
        return _force(breaker, command)
    if breaker.forced is not None or command.changes != breaker.changes:
        return []
    match command:
        case TripBreaker():
            if breaker.status != "closed":
                return []
            return [BreakerOpened(**command.model_dump(exclude={"breaker_id", "changes"}))]
        case TryTool():
            if breaker.opened is None:
                return []
            turn_s = max(LEAST_TURN_S, breaker.opened.open_s)
            probes = breaker.opened.probes
            return [BreakerHalfOpened(tool=command.tool, prober=command.prober, at=command.at, probes=probes, turn_s=turn_s)]
        case CloseBreaker():
            return [BreakerClosed(tool=command.tool)] if breaker.status == "half_open" else []
        case ReopenBreaker():
            if breaker.opened is None or breaker.status != "half_open":
                return []
            again = {"because": "probe", "at": command.at, "failures": 1, "calls": 1, "error": command.error}
            return [breaker.opened.model_copy(update=again)]
        case _:
            assert_never(command)


def _force(breaker: ToolBreaker, command: ForceBreaker) -> list[Event]:
    before = breaker.forced
    if (before is None and command.state == "auto" and breaker.status == "closed") or (
        before is not None and (before.state, before.reason) == (command.state, command.reason)
    ):
        return []
    return [BreakerForced(**command.model_dump(exclude={"breaker_id"}))]


def evolve(breaker: ToolBreaker, event: BreakerEvent) -> ToolBreaker:
    changed = replace(breaker, tool=event.tool, changes=breaker.changes + 1)
    match event:
        case BreakerOpened():
            return replace(changed, status="open", opened=event, trying=None)
        case BreakerHalfOpened():
            return replace(changed, status="half_open", trying=event)
        case BreakerClosed():
            return replace(changed, status="closed", opened=None, trying=None)
        case BreakerForced(state="auto"):
            return replace(changed, status="closed", opened=None, trying=None, forced=None)
        case BreakerForced():
            return replace(changed, forced=event)
        case _:
            assert_never(event)


DECIDER: Decider[ToolBreaker] = Decider("breakers", ToolBreaker, decide, evolve)
