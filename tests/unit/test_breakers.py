"""Breakers: every change of their states, the property of a breaker against a model, and what callers are told."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st

from domain import breakers
from domain.breakers import (
    COUNTS_AS_FAILURE,
    BreakerClosed,
    BreakerForced,
    BreakerHalfOpened,
    BreakerOpened,
    CloseBreaker,
    Counts,
    ForceBreaker,
    ReopenBreaker,
    ToolBreaker,
    TripBreaker,
    TryTool,
    because_of,
    breaker_id_of,
    is_open,
)
from domain.failures import Failure
from domain.kernel import Command, Event
from domain.tool_policy import Breaker as Policy
from domain.tools import tool_id_of
from tests.kit import given

ID, ONE, TWO = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(3))
AT = datetime(2026, 11, 30, 1, 0, tzinfo=UTC)
NEW = given(breakers.DECIDER)


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def trip(changes: int = 0, **fields: Any) -> TripBreaker:
    said = {"because": "failures", "at": AT, "open_s": 30, "probes": 2, "failures": 5, "calls": 7, "error": "E: down", **fields}
    return TripBreaker(breaker_id=ID, tool="t", changes=changes, **said)


def tries(changes: int = 1, prober: UUID = ONE, at: datetime = AT) -> TryTool:
    return TryTool(breaker_id=ID, tool="t", changes=changes, prober=prober, at=at)


def closes(changes: int = 2) -> CloseBreaker:
    return CloseBreaker(breaker_id=ID, tool="t", changes=changes)


def reopens(changes: int = 2, at: datetime = AT) -> ReopenBreaker:
    return ReopenBreaker(breaker_id=ID, tool="t", changes=changes, at=at, error="E: still")


def forces(state: Any, reason: str | None = "r", at: datetime = AT) -> ForceBreaker:
    return ForceBreaker(breaker_id=ID, tool="t", state=state, at=at, by="key:ann", reason=reason, on_behalf_of="ada")


OPENED = BreakerOpened(tool="t", because="failures", at=AT, open_s=30, probes=2, failures=5, calls=7, error="E: down")
HALF_OPENED = BreakerHalfOpened(tool="t", prober=ONE, at=AT, probes=2, turn_s=30)
OPEN, HALF_OPEN = NEW.after(trip()), NEW.after(trip(), tries())


def forced(state: str, reason: str | None = "r") -> BreakerForced:
    return BreakerForced(tool="t", state=state, at=AT, by="key:ann", reason=reason, on_behalf_of="ada")


@pytest.mark.parametrize(
    ("before", "command", "events"),
    [
        (NEW, trip(), [OPENED]),
        (NEW, trip(changes=1), []),
        (NEW, tries(changes=0), []),
        (NEW, closes(changes=0), []),
        (NEW, reopens(changes=0), []),
        (OPEN, trip(changes=1), []),
        (OPEN, tries(), [HALF_OPENED]),
        (OPEN, tries(changes=0), []),
        (OPEN, closes(changes=1), []),
        (OPEN, reopens(changes=1), []),
        (HALF_OPEN, trip(changes=2), []),
        (HALF_OPEN, tries(changes=2, prober=TWO), [HALF_OPENED.model_copy(update={"prober": TWO})]),
        (HALF_OPEN, closes(), [BreakerClosed(tool="t")]),
        (HALF_OPEN, closes(changes=1), []),
        (
            HALF_OPEN,
            reopens(at=after(40)),
            [BreakerOpened(tool="t", because="probe", at=after(40), open_s=30, probes=2, failures=1, calls=1, error="E: still")],
        ),
        (HALF_OPEN, reopens(changes=1), []),
        (NEW, forces("open"), [forced("open")]),
        (NEW, forces("auto"), []),
        (NEW.after(forces("open")), forces("open"), []),
        (NEW.after(forces("open")), forces("open", "another"), [forced("open", "another")]),
        (NEW.after(forces("open")), forces("closed"), [forced("closed")]),
        (NEW.after(forces("open")), forces("auto"), [forced("auto")]),
        (OPEN, forces("auto"), [forced("auto")]),
        (HALF_OPEN, forces("auto"), [forced("auto")]),
        (NEW.after(forces("open")), trip(changes=1), []),
        (OPEN.after(forces("closed")), tries(changes=2), []),
        (HALF_OPEN.after(forces("closed")), closes(changes=3), []),
        (HALF_OPEN.after(forces("closed")), reopens(changes=3), []),
    ],
)
def test_each_command_in_each_state(before: Any, command: Command, events: list[Event]) -> None:
    before.when(command).then(*events)


def test_the_state_after_each_event() -> None:
    half = HALF_OPEN.state
    assert OPEN.state == ToolBreaker("t", "open", 1, OPENED)
    assert half == ToolBreaker("t", "half_open", 2, OPENED, HALF_OPENED)
    assert HALF_OPEN.after(closes()).state == ToolBreaker("t", "closed", 3)
    again = HALF_OPEN.after(reopens(at=after(40))).state
    assert (again.status, again.changes, again.trying, again.opened.because) == ("open", 3, None, "probe")
    held = HALF_OPEN.after(forces("closed")).state
    assert held == ToolBreaker("t", "half_open", 3, OPENED, HALF_OPENED, forced("closed")) and held.in_force == "closed"
    assert HALF_OPEN.after(forces("open")).state.in_force == "open"
    assert HALF_OPEN.after(forces("open"), forces("auto")).state == ToolBreaker("t", "closed", 4)
    assert OPEN.after(forces("auto")).state == ToolBreaker("t", "closed", 2)
    assert [one.in_force for one in (ToolBreaker(), OPEN.state, half)] == ["closed", "open", "half_open"]


def test_a_turn_lasts_at_least_a_second() -> None:
    [event] = NEW.after(trip(open_s=0.05)).when(tries()).events()
    assert event.turn_s == 1.0  # type: ignore[attr-defined]
    [event] = NEW.after(trip(open_s=1.5)).when(tries()).events()
    assert event.turn_s == 1.5  # type: ignore[attr-defined]


def test_since_when_and_until_when() -> None:
    half, held = NEW.after(trip(), tries(at=after(31))).state, NEW.after(trip(), forces("open", at=after(3))).state
    assert (ToolBreaker().since, OPEN.state.since, half.since, held.since) == (None, AT, after(31), after(3))
    assert (ToolBreaker().tried_at, OPEN.state.tried_at, half.tried_at, held.tried_at) == (None, after(30), after(61), None)
    assert [OPEN.state.left_s(after(s)) for s in (0, 12, 30, 31)] == [30, 18, 0, 0]
    assert [half.left_s(after(s)) for s in (31, 60, 62)] == [30, 1, 0]
    assert (ToolBreaker().left_s(AT), held.left_s(after(1000))) == (0, breakers.FORCED_WAIT_S) == (0, 30)
    assert NEW.after(trip(), forces("closed")).state.left_s(AT) == 0


def test_what_a_caller_is_told() -> None:
    told = is_open("t", OPEN.state, after(12))
    assert told == Failure(
        type="BreakerOpen", kind="transient", retry_after_s=18,
        message="the breaker keeps the tool 't' from being called: it is open since 2026-11-30T01:00:00.000Z and is tried again at "
        "2026-11-30T01:00:30.000Z; the last failure was E: down",
    )  # fmt: skip
    assert is_open("t", NEW.after(trip(error=None)).state, after(12)).message.endswith("tried again at 2026-11-30T01:00:30.000Z")
    held = is_open("t", NEW.after(forces("open")).state, after(12))
    assert held == Failure(
        type="BreakerOpen", kind="transient", retry_after_s=30,
        message="the breaker keeps the tool 't' from being called: key:ann holds it open since 2026-11-30T01:00:00.000Z (r)",
    )  # fmt: skip
    assert is_open("t", NEW.after(forces("open", None)).state, AT).message.endswith("since 2026-11-30T01:00:00.000Z")


@pytest.mark.parametrize(
    ("policy", "counts", "because"),
    [
        (Policy(failures=3), (3, 3, 2), None),
        (Policy(failures=3), (3, 3, 3), "failures"),
        (Policy(failures=3), (9, 9, 4), "failures"),
        (Policy(failures=None, rate=0.5, calls=4), (3, 3, 3), None),
        (Policy(failures=None, rate=0.5, calls=4), (4, 1, 1), None),
        (Policy(failures=None, rate=0.5, calls=4), (4, 2, 0), "rate"),
        (Policy(failures=None, rate=0.5, calls=4), (5, 2, 0), None),
        (Policy(failures=None, rate=0.5, calls=4), (10, 9, 0), "rate"),
        (Policy(failures=2, rate=0.5, calls=2), (2, 2, 2), "failures"),
        (Policy(failures=None), (99, 99, 99), None),
    ],
)
def test_when_a_breaker_opens(policy: Policy, counts: tuple[int, int, int], because: str | None) -> None:
    calls, failures, in_a_row = counts
    assert because_of(policy, Counts(calls=calls, failures=failures, in_a_row=in_a_row)) == because


def test_which_failures_show_that_a_service_is_down() -> None:
    assert {"transient", "timeout"} == COUNTS_AS_FAILURE


def test_a_breaker_has_a_stream_beside_the_tools() -> None:
    tool_id = tool_id_of(ONE, "t")
    assert breaker_id_of(tool_id) not in (tool_id, breaker_id_of(tool_id_of(TWO, "t")), breaker_id_of(tool_id_of(ONE, "u")))


# --- the property -----------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """A breaker in other words: what one says aloud at a switch."""

    is_open: bool = False
    trying: UUID | None = None
    held: str | None = None
    held_for: str | None = None
    changes: int = 0

    @property
    def word(self) -> str:
        if self.held:
            return self.held
        return "half_open" if self.trying else "open" if self.is_open else "closed"

    def follow(self, command: Command) -> None:
        before = (self.is_open, self.trying, self.held, self.held_for)
        changed = True
        match command:
            case ForceBreaker(state="auto"):
                changed = self.held is not None or self.is_open
                if changed:
                    self.held, self.held_for, self.is_open, self.trying = None, None, False, None
            case ForceBreaker():
                changed = (self.held, self.held_for) != (command.state, command.reason)
                self.held, self.held_for = command.state, command.reason
            case _ if self.held or command.changes != self.changes:  # type: ignore[attr-defined]
                return
            case TripBreaker() if not self.is_open:
                self.is_open = True
            case TryTool() if self.is_open:
                self.trying = command.prober
            case CloseBreaker() if self.trying:
                self.is_open, self.trying = False, None
            case ReopenBreaker() if self.trying:
                self.trying = None
            case _:
                assert before == (self.is_open, self.trying, self.held, self.held_for)
                return
        self.changes += changed


@any_of(
    st.lists(
        st.tuples(
            st.sampled_from(["trip", "try", "close", "reopen", "open", "closed", "auto"]), st.integers(0, 1), st.integers(0, 4)
        ),
        max_size=30,
    )
)
def test_a_breaker_is_what_a_model_of_it_is(acts: list[tuple[str, int, int]]) -> None:
    """Commands that speak of an older change, as of a slow process, come among the others."""
    state, model = ToolBreaker(), Model()
    for act, late, who in acts:
        changes = max(0, model.changes - late)
        command: Command = {
            "trip": trip(changes=changes), "try": tries(changes=changes, prober=UUID(int=who + 1)),
            "close": closes(changes=changes),
            "reopen": reopens(changes=changes),
        }.get(act) or forces(act, f"r{who}")  # fmt: skip
        events = breakers.decide(state, command)
        assert len(events) <= 1
        for event in events:
            state = breakers.evolve(state, event)  # type: ignore[arg-type]
        model.follow(command)
        assert (state.in_force, state.changes) == (model.word, model.changes)
        assert (state.trying.prober if state.trying else None) == model.trying
        assert (state.opened is None) == (not model.is_open)
