"""Allowances and purses: every change, the words of refusals, and that no order of commands spends more than the limit."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st

from domain import agent_runs, allowances
from domain.agent_runs import (
    AgentRun,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    FinishCall,
    GrantPortion,
    PortionSettled,
    PortionShort,
    ReleasePortion,
    ReopenAgentRun,
    RequestAgentRun,
    SettleCancelled,
    StartCall,
    invocation_id_of,
)
from domain.allowances import (
    Allowance,
    AllowanceChanged,
    AllowanceDrawn,
    AllowanceLifted,
    AllowanceOpened,
    AllowanceShort,
    AllowanceSpent,
    AllowanceTightened,
    ChangeAllowance,
    DrawPortion,
    EndTime,
    LiftAllowance,
    NoteSpent,
    OpenAllowance,
    Opening,
    SettlePortion,
    TightenAllowance,
    scheduled_by,
)
from domain.amounts import NOTHING, AllowanceRef, Amounts, BudgetLimits, micros_of, money_text
from domain.errors import DomainError, InvalidState, NotFound
from tests.kit import given

ID, RUN, ONE, TWO, OTHER = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(5))
PLACE: dict[str, Any] = {"allowance_id": ID, "root_id": RUN}
TEN = Opening(budget="tenant", day="2026-11-30", limits=BudgetLimits(calls=10))
REF = AllowanceRef(allowance_id=ID, root_id=RUN)
NEW = given(allowances.DECIDER)


def calls(number: int) -> Amounts:
    return Amounts(calls=number)


def opened(**fields: Any) -> AllowanceOpened:
    return AllowanceOpened(**{**dict(TEN), **fields})


def draw(number: int, holder: UUID = ONE, **fields: Any) -> DrawPortion:
    return DrawPortion(**PLACE, holder=holder, amounts=calls(number), **fields)


def settle(spent: int, returned: int, holder: UUID = ONE, exact: bool = False) -> SettlePortion:
    return SettlePortion(**PLACE, holder=holder, spent=calls(spent), returned=calls(returned), exact=exact)


def folded(*commands: Any) -> Allowance:
    state = Allowance()
    for command in commands:
        state = allowances.DECIDER.fold(state, allowances.decide(state, command))
    return state


BEGIN = OpenAllowance(**PLACE, opening=TEN)


def test_an_allowance_is_opened_once() -> None:
    NEW.when(BEGIN).then(opened())
    given(allowances.DECIDER, opened()).when(BEGIN).then()


def test_the_first_draw_opens_it() -> None:
    NEW.when(draw(3, opening=TEN)).then(opened(), AllowanceDrawn(holder=ONE, amounts=calls(3)))
    with pytest.raises(NotFound, match=f"there is no allowance {ID}"):
        allowances.decide(Allowance(), draw(3))
    with pytest.raises(NotFound, match=f"there is no allowance {ID}"):
        allowances.decide(Allowance(), settle(1, 0))


def test_no_more_is_drawn_than_is_left() -> None:
    state = folded(BEGIN, draw(7))
    assert allowances.decide(state, draw(3, exact=True)) == [AllowanceDrawn(holder=ONE, amounts=calls(3), exact=True)]
    with pytest.raises(AllowanceShort, match="less calls is left of the budget 'tenant'") as refused:
        allowances.decide(state, draw(4))
    assert (refused.value.allowance_id, refused.value.kind) == (ID, "calls")
    with pytest.raises(InvalidState, match="a portion is more than nothing"):
        allowances.decide(state, draw(0))


def test_what_is_settled_is_spent_or_comes_back() -> None:
    state = folded(BEGIN, draw(7), settle(2, 3))
    assert (state.spent, state.held, state.used) == (calls(2), calls(2), calls(4))
    assert state.holders[ONE].amounts == calls(2)
    state = allowances.DECIDER.fold(state, allowances.decide(state, settle(2, 9)))
    assert (state.spent, state.held, dict(state.holders)) == (calls(4), NOTHING, {})
    assert allowances.decide(state, settle(0, 5)) == []


def test_a_holder_that_has_spent_more_than_it_had_overruns() -> None:
    state = folded(BEGIN, draw(2), SettlePortion(**PLACE, holder=ONE, spent=Amounts(calls=5, money=7), returned=NOTHING))
    assert (state.spent.calls, state.overrun, state.held) == (5, calls(3), NOTHING)
    with pytest.raises(AllowanceShort):
        allowances.decide(folded(BEGIN, draw(2), settle(12, 0)), draw(1))


def test_a_tight_allowance_knows_who_may_have_more_than_it_needs() -> None:
    state = folded(BEGIN, draw(6), draw(4, TWO, exact=True))
    assert state.loose == (ONE,)
    tighten = TightenAllowance(**PLACE, asked=calls(1))
    assert allowances.decide(state, tighten) == [AllowanceTightened(budget="tenant")]
    state = folded(BEGIN, draw(6), draw(4, TWO, exact=True), tighten)
    assert state.tight and allowances.decide(state, tighten) == []
    state = allowances.DECIDER.fold(state, allowances.decide(state, settle(0, 0, exact=True)))
    assert state.loose == () and state.holders[ONE].amounts == calls(6)
    assert allowances.decide(state, settle(0, 0, exact=True)) == []
    assert allowances.decide(folded(BEGIN, draw(6)), tighten) == []


def test_it_is_told_once_that_nothing_is_left() -> None:
    note = NoteSpent(**PLACE, holder=TWO, asked=calls(1))
    assert allowances.decide(folded(BEGIN, draw(9)), note) == []
    state = folded(BEGIN, draw(10))
    assert allowances.decide(state, note) == [AllowanceSpent(budget="tenant", kind="calls", holder=TWO, asked=calls(1))]
    assert allowances.decide(folded(BEGIN, draw(10), note), note) == []


def test_a_person_gives_more_and_it_counts_from_the_beginning_again() -> None:
    note = NoteSpent(**PLACE, holder=TWO, asked=calls(1))
    tighten = TightenAllowance(**PLACE, asked=calls(1))
    lift = LiftAllowance(**PLACE, extra=calls(5), by="key:a", reason="why", on_behalf_of="ada")
    lifted = AllowanceLifted(
        budget="tenant", extra=calls(5), limits=BudgetLimits(calls=15), by="key:a", reason="why", on_behalf_of="ada"
    )
    state = folded(BEGIN, draw(10), tighten, note, lift)
    assert (state.limits, state.tight, state.told, state.changes) == (BudgetLimits(calls=15), False, False, 1)
    assert allowances.decide(folded(BEGIN), lift) == [lifted]
    assert allowances.decide(Allowance(), lift.model_copy(update={"opening": TEN})) == [opened(), lifted]
    with pytest.raises(NotFound, match=f"there is no allowance {ID}"):
        allowances.decide(Allowance(), lift)
    with pytest.raises(InvalidState, match="the budget 'tenant' limits calls: give more of that") as refused:
        allowances.decide(folded(BEGIN), lift.model_copy(update={"extra": Amounts(money=1)}))
    assert refused.value.pointer == "/add"
    timed = OpenAllowance(**PLACE, opening=Opening(budget="run", run_id=RUN, limits=BudgetLimits(), wall_s=5))
    with pytest.raises(InvalidState, match="limits nothing but time"):
        allowances.decide(folded(timed), lift)


def test_other_limits_take_the_place_of_those_before() -> None:
    change = ChangeAllowance(**PLACE, limits=BudgetLimits(calls=3), on_spent="degrade")
    assert allowances.decide(folded(BEGIN), change) == [AllowanceChanged(limits=BudgetLimits(calls=3), on_spent="degrade")]
    state = folded(BEGIN, change)
    assert (state.limits, state.on_spent, state.changes) == (BudgetLimits(calls=3), "degrade", 1)
    assert allowances.decide(state, change) == []


def test_the_time_of_a_run_is_over_once() -> None:
    opening = Opening(budget="run", run_id=RUN, limits=BudgetLimits(), wall_s=5)
    begun = allowances.decide(Allowance(), OpenAllowance(**PLACE, opening=opening))
    found = scheduled_by(begun[0], ID)
    assert found is not None and (found.delay_s, found.command) == (5, EndTime(**PLACE))
    assert scheduled_by(opened(wall_s=5), ID) is None and scheduled_by(opened(run_id=RUN), ID) is None
    state = allowances.DECIDER.fold(Allowance(), begun)
    assert allowances.decide(state, EndTime(**PLACE)) == [AllowanceSpent(budget="run", kind="wall_s", run_id=RUN)]
    state = allowances.DECIDER.fold(state, allowances.decide(state, EndTime(**PLACE)))
    assert state.time_over and not state.told and allowances.decide(state, EndTime(**PLACE)) == []


# --- purses -------------------------------------------------------------------------------------------------------------------


def run_with(*commands: Any) -> AgentRun:
    state = AgentRun()
    for command in (
        RequestAgentRun(agent_run_id=ONE, run_id=RUN, step="s", agent="a", budgets=(RUN,)),
        ClaimAgentRun(agent_run_id=ONE, worker_id="w", dispatch=1),
        *commands,
    ):
        state = agent_runs.DECIDER.fold(state, agent_runs.decide(state, command))
    return state


def granted(number: int, ref: AllowanceRef = REF, *, exact: bool = False) -> GrantPortion:
    return GrantPortion(agent_run_id=ONE, attempt=1, allowances=(ref,), amounts=calls(number), exact=exact)


def start(key: str, reserve: int | None = 1, purse: int | None = 1, **more: Any) -> StartCall:
    amounts = None if reserve is None else calls(reserve)
    return StartCall(agent_run_id=ONE, attempt=1, key=key, tool="t", reserve=amounts, purse=purse, **more)


def finish(key: str, usage: Amounts | None = None) -> FinishCall:
    invocation_id = invocation_id_of(ONE, key)
    return FinishCall(agent_run_id=ONE, key=key, invocation_id=invocation_id, succeeded=True, usage=usage)


def told(events: list[Any]) -> list[tuple[int, int, bool]]:
    return [(e.spent.calls, e.returned.calls, e.exact) for e in events if isinstance(e, PortionSettled)]


def test_a_call_is_paid_before_it_begins() -> None:
    with pytest.raises(PortionShort, match="the run has a budget, and nothing was set aside for the call") as refused:
        agent_runs.decide(run_with(), start("a", None, None))
    assert refused.value.pointer == "/tool"
    why = "the agent run does not hold enough of its budgets for the call"
    for state, command in (
        (run_with(), start("a")),
        (run_with(granted(1)), start("a", 2)),
        (run_with(granted(1)), start("a", 1, 2)),
        (run_with(granted(1), start("a")), start("b")),
    ):
        with pytest.raises(PortionShort, match=why) as short:
            agent_runs.decide(state, command)
        assert short.value.pointer == "/tool"
    assert agent_runs.decide(run_with(granted(1), start("a")), start("a")) == []
    assert len(agent_runs.decide(run_with(), start("a", None, None, refused=True))) == 1


def test_what_a_call_did_not_use_pays_the_next_one() -> None:
    state = run_with(granted(2), start("a", 2), finish("a"))
    assert state.purse is not None and (state.purse.free, state.purse.spent, dict(state.reservations)) == (calls(1), calls(1), {})
    assert told(agent_runs.decide(state, CompleteAgentRun(agent_run_id=ONE, attempt=1))) == [(1, 1, True)]


def ended_with(*commands: Any) -> AgentRun:
    state = run_with(*commands)
    return agent_runs.DECIDER.fold(state, agent_runs.decide(state, CancelAgentRun(agent_run_id=ONE)))


def test_what_a_call_under_way_has_set_aside_is_settled_when_it_ends_after_its_agent_run() -> None:
    state = run_with(granted(6), start("a", 2), start("b", 1), start("c", 1))
    assert told(agent_runs.decide(state, CancelAgentRun(agent_run_id=ONE))) == [(0, 2, True)]
    ended = agent_runs.DECIDER.fold(state, agent_runs.decide(state, CancelAgentRun(agent_run_id=ONE)))
    assert ended.purse is not None and (ended.purse.granted, ended.purse.reserved, ended.purse.free) == (
        calls(4),
        calls(4),
        NOTHING,
    )
    assert agent_runs.decide(ended, ReleasePortion(agent_run_id=ONE, allowance_id=ID)) == []
    [settled] = agent_runs.decide(ended, finish("a", Amounts(money=3)))
    assert isinstance(settled, PortionSettled) and settled.allowances == (REF,)
    assert (settled.purse, settled.spent, settled.returned, settled.key, settled.exact) == (
        1, Amounts(money=3, calls=1), calls(1), "a", True,
    )  # fmt: skip
    ended = agent_runs.DECIDER.fold(ended, [settled])
    assert ended.purse is not None and ended.purse.reserved == calls(2) and "a" not in ended.reservations
    assert agent_runs.decide(ended, finish("a")) == []
    assert told(agent_runs.decide(ended, finish("c"))) == [(1, 0, True)]
    never = SettleCancelled(agent_run_id=ONE, key="b", cost=NOTHING)
    assert told(agent_runs.decide(ended, never)) == [(0, 1, True)]
    ended = agent_runs.DECIDER.fold(ended, agent_runs.decide(ended, never))
    assert agent_runs.decide(ended, never) == [] and ended.purse is not None and ended.purse.granted == calls(1)


def test_an_end_says_that_only_calls_under_way_hold_something() -> None:
    """Nobody asks an agent run for its rest that has ended. One whose portion is small has said so already."""
    assert told(agent_runs.decide(run_with(granted(1), start("a", 1)), CancelAgentRun(agent_run_id=ONE))) == [(0, 0, True)]
    state = run_with(granted(1, exact=True), start("a", 1))
    assert told(agent_runs.decide(state, CancelAgentRun(agent_run_id=ONE))) == []


def test_what_calls_of_before_have_set_aside_counts_where_the_agent_run_goes_on() -> None:
    ended = ended_with(granted(4), start("a", 2))
    again = ReopenAgentRun(agent_run_id=ONE, run_id=RUN, step="s", agent="a", number=1)
    events = agent_runs.decide(ended, again)
    assert told(events) == [(2, 0, True)] and len(events) == 2
    state = agent_runs.DECIDER.fold(ended, events)
    assert not state.purses and not state.reservations and agent_runs.decide(state, finish("a"))[0].cost is None  # type: ignore[attr-defined]
    assert len(agent_runs.decide(ended_with(granted(4)), again)) == 1


def test_what_is_called_back_is_what_no_call_needs() -> None:
    state = run_with(granted(4), start("a", 1))
    release = ReleasePortion(agent_run_id=ONE, allowance_id=ID)
    assert told(agent_runs.decide(state, release)) == [(0, 3, True)]
    state = agent_runs.DECIDER.fold(state, agent_runs.decide(state, release))
    assert state.purse is not None and state.purse.exact and state.purse.free == NOTHING
    assert told(agent_runs.decide(state, release)) == [(0, 0, True)], "somebody waits for the answer"
    assert told(agent_runs.decide(state, finish("a", Amounts(tokens=3)))) == [(1, 0, True)]
    assert agent_runs.decide(state, ReleasePortion(agent_run_id=ONE, allowance_id=OTHER)) == []


def test_a_call_that_costs_more_than_was_set_aside_is_told_at_once() -> None:
    state = run_with(granted(4), start("a", 1))
    [finished, settled] = agent_runs.decide(state, finish("a", Amounts(money=9)))
    assert finished.cost == Amounts(money=9, calls=1)  # type: ignore[attr-defined]
    assert isinstance(settled, PortionSettled) and (settled.spent.money, settled.returned.calls) == (9, 3)


def test_other_budgets_begin_another_purse() -> None:
    other = AllowanceRef(allowance_id=OTHER, root_id=RUN)
    state = run_with(granted(4), start("a", 1))
    events = agent_runs.decide(state, granted(2, other))
    assert told(events) == [(0, 3, True)]
    state = agent_runs.DECIDER.fold(state, events)
    assert (state.newest_purse, sorted(state.purses)) == (2, [1, 2])
    events = agent_runs.decide(state, finish("a"))
    assert told(events) == [(1, 0, True)]
    state = agent_runs.DECIDER.fold(state, events)
    assert sorted(state.purses) == [2]
    assert agent_runs.decide(run_with(granted(4)), granted(2))[0].purse == 1  # type: ignore[attr-defined]


def test_a_purse_is_known_before_its_portion_is_drawn() -> None:
    assert AgentRun().purse_for((REF,)) == 1 and AgentRun().shared_roots == ()
    state = run_with(granted(2))
    assert state.purse_for((REF,)) == 1 and state.purse_for((REF, REF)) == 2 and state.purse_for(()) == 2


def test_the_roots_that_hear_of_purses_are_those_outside_the_run() -> None:
    assert AgentRun().shared_roots == ()
    refs = [AllowanceRef(allowance_id=UUID(int=n), root_id=UUID(int=n)) for n in (61, 62)]
    own = AllowanceRef(allowance_id=UUID(int=63), root_id=run_with().requested.run_id)  # type: ignore[union-attr]
    state = run_with(granted(2).model_copy(update={"allowances": (own, refs[0])}))
    assert state.shared_roots == (UUID(int=61),)
    state = run_with(
        granted(2).model_copy(update={"allowances": (refs[0], own)}), start("a", 2),
        granted(2).model_copy(update={"allowances": (refs[1], refs[0])}),
    )  # fmt: skip
    assert sorted(state.purses) == [1, 2] and state.shared_roots == (UUID(int=62), UUID(int=61))


def test_what_is_called_back_is_of_each_purse_that_draws_from_the_allowance() -> None:
    both = granted(4).model_copy(update={"allowances": (*granted(1).allowances, AllowanceRef(allowance_id=OTHER, root_id=RUN))})
    state = run_with(granted(4), start("a", 1), both)
    assert sorted(state.purses) == [1, 2]
    assert told(agent_runs.decide(state, ReleasePortion(agent_run_id=ONE, allowance_id=ID))) == [(0, 0, True), (0, 4, True)]


def test_a_call_that_was_made_is_not_refused_later() -> None:
    with pytest.raises(PortionShort, match="the call 'a' was made before") as short:
        agent_runs.decide(run_with(granted(1), start("a")), start("a", None, None, refused=True))
    assert short.value.pointer == "/key"


# --- together -----------------------------------------------------------------------------------------------------------------


@dataclass
class Tenant:
    """An allowance and agent runs, as appends and sagas bring them together: a draw with its grant, settlements some time later."""

    limit: int
    allowance: Allowance = field(init=False)
    runs: dict[UUID, AgentRun] = field(default_factory=dict)
    open_calls: dict[UUID, list[str]] = field(default_factory=dict)
    letters: list[tuple[UUID, PortionSettled]] = field(default_factory=list)
    paid: int = 0

    def __post_init__(self) -> None:
        self.allowance = folded(OpenAllowance(**PLACE, opening=Opening(budget="tenant", limits=BudgetLimits(calls=self.limit))))

    def begin(self, holder: UUID) -> None:
        state = AgentRun()
        for command in (
            RequestAgentRun(agent_run_id=holder, run_id=RUN, step="s", agent="a"),
            ClaimAgentRun(agent_run_id=holder, worker_id="w", dispatch=1),
        ):
            state = agent_runs.DECIDER.fold(state, agent_runs.decide(state, command))
        self.runs[holder], self.open_calls[holder] = state, []

    def give(self, holder: UUID, command: Any) -> bool:
        state = self.runs[holder]
        try:
            events = agent_runs.decide(state, command)
        except DomainError:
            return False
        self.letters += [(holder, event) for event in events if isinstance(event, PortionSettled)]
        self.runs[holder] = agent_runs.DECIDER.fold(state, events)
        return True

    def draw(self, holder: UUID, number: int, *, exact: bool) -> None:
        """Both or neither, as an append does."""
        grant = GrantPortion(agent_run_id=holder, attempt=1, allowances=(REF,), amounts=calls(number), exact=exact)
        drawing = DrawPortion(**PLACE, holder=holder, amounts=calls(number), exact=exact)
        try:
            events = allowances.decide(self.allowance, drawing)
        except AllowanceShort:
            return
        if self.give(holder, grant):
            self.allowance = allowances.DECIDER.fold(self.allowance, events)

    def call(self, holder: UUID, key: str) -> None:
        start = StartCall(agent_run_id=holder, attempt=1, key=key, tool="t", reserve=calls(1), purse=self.runs[holder].newest_purse)
        if key not in self.runs[holder].journal and self.give(holder, start):
            self.paid += 1
            self.open_calls[holder].append(key)

    def finish(self, holder: UUID) -> None:
        if self.open_calls[holder]:
            key = self.open_calls[holder].pop()
            invocation_id = invocation_id_of(holder, key)
            self.give(holder, FinishCall(agent_run_id=holder, key=key, invocation_id=invocation_id, succeeded=True))

    def cancel(self, holder: UUID) -> None:
        """Calls of an agent run that has ended are cancelled. This one never began."""
        if self.runs[holder].status == "cancelled" and self.open_calls[holder]:
            self.give(holder, SettleCancelled(agent_run_id=holder, key=self.open_calls[holder].pop(), cost=NOTHING))
            self.paid -= 1

    def deliver(self, number: int) -> None:
        """In any order: reactions may take place out of the order of their events."""
        if self.letters:
            holder, event = self.letters.pop(number % len(self.letters))
            command = SettlePortion(**PLACE, holder=holder, spent=event.spent, returned=event.returned, exact=event.exact)
            self.allowance = allowances.DECIDER.fold(self.allowance, allowances.decide(self.allowance, command))


acts = st.lists(
    st.tuples(
        st.sampled_from(["draw", "exact", "call", "finish", "release", "end", "cancel", "deliver"]),
        st.integers(0, 2),
        st.integers(1, 4),
    ),
    max_size=60,
)


@any_of(st.integers(1, 8), acts)
def test_no_order_of_draws_calls_deaths_and_returns_overruns(limit: int, acts: list[tuple[str, int, int]]) -> None:
    tenant, holders = Tenant(limit), (ONE, TWO, OTHER)
    for holder in holders:
        tenant.begin(holder)
    for turn, (act, who, number) in enumerate(acts):
        holder = holders[who]
        match act:
            case "draw" | "exact":
                tenant.draw(holder, number, exact=act == "exact")
            case "call":
                tenant.call(holder, f"k{turn}")
            case "finish":
                tenant.finish(holder)
            case "release":
                tenant.give(holder, ReleasePortion(agent_run_id=holder, allowance_id=ID))
            case "end":
                tenant.give(holder, CancelAgentRun(agent_run_id=holder))
            case "cancel":
                tenant.cancel(holder)
            case "deliver":
                tenant.deliver(number)
        assert tenant.paid <= limit
        assert tenant.allowance.used.calls <= limit and not tenant.allowance.overrun
    for holder in holders:
        tenant.give(holder, CancelAgentRun(agent_run_id=holder))
        while tenant.open_calls[holder]:
            tenant.finish(holder)
    while tenant.letters:
        tenant.deliver(0)
    assert (tenant.allowance.spent.calls, tenant.allowance.held, dict(tenant.allowance.holders)) == (tenant.paid, NOTHING, {})


# --- amounts ------------------------------------------------------------------------------------------------------------------


def test_money_is_whole_millionths() -> None:
    assert [micros_of(text) for text in ("0.01", "0.000001", "25", "999999999.999999")] == [
        10_000,
        1,
        25_000_000,
        999_999_999_999_999,
    ]
    for text in ("0.0000001", "-1", "1e3", "", "1.", "1234567890", "0,01"):
        with pytest.raises(ValueError, match="not an amount of money with at most six places"):
            micros_of(text)
    assert [money_text(micros) for micros in (10_000, 1, 25_000_000, 0, -2_500)] == ["0.01", "0.000001", "25", "0", "-0.0025"]


def test_a_portion_is_the_smaller_of_a_sixteenth_and_four_calls_and_at_least_the_call() -> None:
    limits, asked = BudgetLimits(money=3_200, calls=1_000), Amounts(money=100, calls=1)
    assert limits.portion(NOTHING, asked) == Amounts(money=200, calls=4)
    assert limits.portion(Amounts(money=3_100), asked) == Amounts(money=100, calls=4)
    assert BudgetLimits().portion(NOTHING, Amounts(money=1, tokens=2, calls=1)) == Amounts(money=4, tokens=8, calls=4)


def test_what_is_short_is_named() -> None:
    limits = BudgetLimits(money=10, tokens=5, calls=2)
    assert limits.short(NOTHING, Amounts(money=10, tokens=5, calls=2)) is None
    assert limits.short(NOTHING, Amounts(money=11)) == "money"
    assert limits.short(Amounts(tokens=3), Amounts(tokens=3)) == "tokens"
    assert limits.short(Amounts(calls=3), Amounts(money=1)) == "calls", "what is overrun stops calls that ask for none of it"
    assert limits.raised(Amounts(money=5, calls=1)) == BudgetLimits(money=15, tokens=5, calls=3)
    assert BudgetLimits(calls=2).raised(Amounts(money=5)) == BudgetLimits(calls=2)
    assert BudgetLimits(calls=2).counted(Amounts(money=5, calls=1)) == Amounts(calls=1)
