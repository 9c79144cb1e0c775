"""Calls that wait for more of a budget: their order, the question, and that no order of events begins one unpaid or twice."""

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st

from domain import agent_runs, allowances
from domain.agent_runs import (
    AgentRun,
    CallCovered,
    CallPaid,
    CallUnpaid,
    CancelAgentRun,
    ClaimAgentRun,
    FinishCall,
    PayCall,
    PortionGranted,
    PortionSettled,
    PortionShort,
    RefuseCall,
    RequestAgentRun,
    SettleCancelled,
    StartCall,
    invocation_id_of,
)
from domain.allowances import (
    AT_ONCE,
    Allowance,
    AllowanceAsked,
    AllowanceAwaited,
    AllowanceChanged,
    AllowanceDenied,
    AllowanceDrawn,
    AllowanceLeft,
    AllowanceLifted,
    AllowanceRefused,
    AllowanceSettled,
    AllowanceShort,
    AllowanceUnasked,
    ChangeAllowance,
    DenyMore,
    DrawPortion,
    DropPortion,
    LiftAllowance,
    OpenAllowance,
    Opening,
    ServeLine,
    SettlePortion,
    WaitingCall,
    question_id_of,
)
from domain.amounts import NOTHING, AllowanceRef, Amounts, BudgetAsking, BudgetLimits, Unpaid
from domain.errors import InvalidCommand
from domain.failures import Failure
from domain.written_budgets import fault_of_asking

ID, RUN, ONE, TWO, OTHER = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(5))
PLACE: dict[str, Any] = {"allowance_id": ID, "root_id": RUN}
OPENING = Opening(budget="tenant", day="2026-11-30", limits=BudgetLimits(calls=2), on_spent="ask")
QUESTION = question_id_of(ID, 1)


def calls(number: int) -> Amounts:
    return Amounts(calls=number)


def waiting(holder: UUID, key: str = "a", hold: UUID = QUESTION) -> WaitingCall:
    return WaitingCall(invocation_id=invocation_id_of(holder, key), key=key, hold=hold, tool="t", arguments_hash="h")


def wait(holder: UUID = ONE, number: int = 1, question: int = 1, key: str = "a") -> DrawPortion:
    return DrawPortion(
        **PLACE, holder=holder, amounts=calls(number), exact=True, call=waiting(holder, key), question=question, opening=OPENING
    )


def lift(number: int, **more: Any) -> LiftAllowance:
    return LiftAllowance(**PLACE, extra=calls(number), by="key:a", reason="r", **more)


def drawn(holder: UUID, number: int = 1, **more: Any) -> AllowanceDrawn:
    return AllowanceDrawn(holder=holder, amounts=calls(number), exact=True, call=invocation_id_of(holder, "a"), key="a", **more)


def folded(*commands: Any, opening: Opening = OPENING) -> Allowance:
    state = Allowance()
    for command in (OpenAllowance(**PLACE, opening=opening), *commands):
        state = allowances.DECIDER.fold(state, allowances.decide(state, command))
    return state


def plain(number: int, holder: UUID = OTHER) -> DrawPortion:
    return DrawPortion(**PLACE, holder=holder, amounts=calls(number))


def test_what_is_short_asks_once_and_stands_in_line() -> None:
    state = folded(plain(2))
    awaited, asked = allowances.decide(state, wait())
    assert awaited == AllowanceAwaited(holder=ONE, call=waiting(ONE), amounts=calls(1))
    assert asked == AllowanceAsked(
        number=1, budget="tenant", day="2026-11-30", currency="usd", kind="calls", limits=BudgetLimits(calls=2), spent=NOTHING,
        held=calls(2), add=calls(2), asking=BudgetAsking(), holder=ONE, call=waiting(ONE), amounts=calls(1),
    )  # fmt: skip
    state = folded(plain(2), wait())
    assert allowances.decide(state, wait(TWO)) == [AllowanceAwaited(holder=TWO, call=waiting(TWO), amounts=calls(1))]
    assert (state.line.question, state.line.wanted, state.line.is_open) == (1, calls(1), True)
    assert allowances.decide(folded(), wait()) == [drawn(ONE)], "there is enough"
    with pytest.raises(AllowanceShort, match="less calls is left of the budget 'tenant'"):
        allowances.decide(state, wait(TWO, question=2))
    with pytest.raises(AllowanceShort):
        allowances.decide(folded(plain(2), opening=OPENING.model_copy(update={"on_spent": "stop"})), wait())
    with pytest.raises(AllowanceShort):
        allowances.decide(folded(plain(2), wait(), DenyMore(**PLACE, question=1, message="no")), wait(TWO, question=2))


def test_how_much_is_asked_for() -> None:
    small = OPENING.model_copy(update={"limits": BudgetLimits(calls=2, money=10), "asking": BudgetAsking(add=calls(7))})
    assert allowances.decide(folded(plain(2), opening=small), wait())[1].add == calls(7)  # type: ignore[attr-defined]
    assert allowances.decide(folded(plain(2)), wait(number=9))[1].add == calls(9)  # type: ignore[attr-defined]
    limits = BudgetLimits(money=10, calls=3)
    assert limits.step(Amounts(money=10, calls=1), Amounts(money=4, calls=1), limits) == Amounts(money=10)
    assert limits.step(Amounts(money=25, calls=3), Amounts(money=4, calls=1), BudgetLimits(calls=1)) == Amounts(money=19, calls=1)


def test_who_came_first_goes_first() -> None:
    state = folded(plain(2), wait(), wait(TWO, 2))
    lifted = AllowanceLifted(budget="tenant", extra=calls(1), limits=BudgetLimits(calls=3), by="key:a", reason="r", question=1)
    events = allowances.decide(state, lift(1, question=1))
    assert events[:2] == [lifted, drawn(ONE)]
    again = events[2]
    assert isinstance(again, AllowanceAsked) and (again.number, again.holder, again.held, again.add) == (2, TWO, calls(3), calls(2))
    state = folded(plain(2), wait(), wait(TWO, 2), lift(1, question=1))
    assert (state.held, state.line.asked, len(state.line.places)) == (calls(3), 2, 1)
    settled = SettlePortion(**PLACE, holder=OTHER, spent=NOTHING, returned=calls(1))
    assert allowances.decide(state, settled) == [AllowanceSettled(holder=OTHER, spent=NOTHING, returned=calls(1))], "too little"
    settled = SettlePortion(**PLACE, holder=OTHER, spent=NOTHING, returned=calls(2))
    assert allowances.decide(state, settled)[1:] == [drawn(TWO, 2), AllowanceUnasked(number=2)]
    assert allowances.decide(state, ServeLine(**PLACE)) == []


def test_more_without_a_question_serves_the_line_and_leaves_the_question_to_the_rest() -> None:
    state = folded(plain(2), wait(), wait(TWO, 2))
    assert allowances.decide(state, lift(1))[1:] == [drawn(ONE)]
    assert allowances.decide(state, lift(3))[1:] == [drawn(ONE), drawn(TWO, 2), AllowanceUnasked(number=1)]
    state = folded(plain(2), wait(), lift(1))
    assert not state.line.is_open and state.line.question == 2
    changed = ChangeAllowance(**PLACE, limits=BudgetLimits(calls=9), on_spent="ask", asking=BudgetAsking(deadline_s=5))
    begun = allowances.decide(folded(plain(2), wait()), changed)
    assert begun == [
        AllowanceChanged(limits=BudgetLimits(calls=9), on_spent="ask", asking=BudgetAsking(deadline_s=5)), drawn(ONE),
        AllowanceUnasked(number=1),
    ]  # fmt: skip
    assert folded(changed).asking == BudgetAsking(deadline_s=5) and allowances.decide(folded(changed), changed) == []


def test_an_answer_that_fits_no_more_gives_nothing() -> None:
    money = lift(0, question=1).model_copy(update={"extra": Amounts(money=5)})
    assert allowances.decide(folded(plain(2), wait()), money) == []


def test_a_denial_refuses_all_that_wait_and_what_comes_until_there_is_more() -> None:
    state = folded(plain(2), wait(), wait(TWO))
    deny = DenyMore(**PLACE, question=1, message="no more")
    refused = [
        AllowanceRefused(holder=who, invocation_id=invocation_id_of(who, "a"), key="a", hold=QUESTION, message="no more")
        for who in (ONE, TWO)
    ]
    assert allowances.decide(state, deny) == [AllowanceDenied(number=1, message="no more"), *refused]
    assert allowances.decide(state, deny.model_copy(update={"question": 2})) == []
    denied = folded(plain(2), wait(), wait(TWO), deny)
    assert (denied.asks, denied.line.is_open, len(denied.line.refused), len(denied.line.places)) == (False, False, 2, 0)
    assert allowances.decide(denied, deny) == []
    drop = DropPortion(**PLACE, holder=ONE, invocation_id=invocation_id_of(ONE, "a"), amounts=calls(1))
    assert allowances.decide(denied, drop) == [AllowanceLeft(invocation_id=invocation_id_of(ONE, "a"))]
    known = allowances.DECIDER.fold(denied, allowances.decide(denied, drop))
    assert list(known.line.refused) == [invocation_id_of(TWO, "a")]
    assert allowances.DECIDER.fold(denied, allowances.decide(denied, lift(1))).asks
    stop = ChangeAllowance(**PLACE, limits=BudgetLimits(calls=2), on_spent="stop")
    message = "the budget 'tenant' is spent, and does not ask any more"
    told = allowances.decide(state, stop)
    assert told[1:] == [*(each.model_copy(update={"message": message}) for each in refused), AllowanceUnasked(number=1)]


def test_what_has_ended_leaves_the_line_or_gives_back() -> None:
    drop = DropPortion(**PLACE, holder=ONE, invocation_id=invocation_id_of(ONE, "a"), amounts=calls(1))
    left = AllowanceLeft(invocation_id=invocation_id_of(ONE, "a"))
    assert allowances.decide(folded(plain(2), wait()), drop) == [left, AllowanceUnasked(number=1)]
    assert allowances.decide(folded(plain(2), wait(), wait(TWO)), drop) == [left]
    begun = folded(wait(), plain(1), wait(TWO))
    back = AllowanceSettled(holder=ONE, spent=NOTHING, returned=calls(1))
    assert allowances.decide(begun, drop) == [back, drawn(TWO), AllowanceUnasked(number=1)]


def test_a_long_line_is_served_in_appends_of_a_few() -> None:
    holders = [UUID(int=number + 1) for number in range(2 * AT_ONCE + 1)]
    state = folded(plain(2), *(wait(holder) for holder in holders))
    events = allowances.decide(state, lift(100, question=1))
    assert [event.more for event in events if isinstance(event, AllowanceDrawn)] == [False] * (AT_ONCE - 1) + [True]
    state = allowances.DECIDER.fold(state, events)
    state = allowances.DECIDER.fold(state, allowances.decide(state, ServeLine(**PLACE)))
    last = allowances.decide(state, ServeLine(**PLACE))
    assert last == [drawn(holders[-1])], "the question was answered"
    refusing = folded(plain(2), *(wait(holder) for holder in holders), DenyMore(**PLACE, question=1, message="no"))
    assert len(refusing.line.places) == AT_ONCE + 1
    exactly = [drawn(holder) for holder in holders[:AT_ONCE]]
    state = folded(plain(2), *(wait(holder) for holder in holders[:AT_ONCE]))
    assert allowances.decide(state, lift(100, question=1))[1:] == exactly


# --- agent runs ---------------------------------------------------------------------------------------------------------------

REFS = tuple(AllowanceRef(allowance_id=id, root_id=RUN) for id in (ID, OTHER))


def start(key: str = "a", refs: tuple[AllowanceRef, ...] = REFS) -> StartCall:
    unpaid = Unpaid(allowances=refs, amounts=calls(1), hold=QUESTION)
    return StartCall(agent_run_id=ONE, attempt=1, key=key, tool="t", unpaid=unpaid)


def pay(allowance_id: UUID, key: str = "a") -> PayCall:
    return PayCall(agent_run_id=ONE, key=key, invocation_id=invocation_id_of(ONE, key), allowance_id=allowance_id)


def run_with(*commands: Any, holder: UUID = ONE) -> AgentRun:
    state = AgentRun()
    begin = RequestAgentRun(agent_run_id=holder, run_id=RUN, step="s", agent="a", budgets=(RUN,))
    for command in (begin, ClaimAgentRun(agent_run_id=holder, worker_id="w", dispatch=1), *commands):
        state = agent_runs.DECIDER.fold(state, agent_runs.decide(state, command))
    return state


def test_a_held_call_begins_when_all_its_budgets_have_enough() -> None:
    state = run_with(start())
    assert (state.unpaid["a"].missing, state.purse, dict(state.reservations)) == ((ID, OTHER), None, {})
    assert agent_runs.decide(state, pay(ID)) == [CallCovered(key="a", allowance_id=ID)]
    assert agent_runs.decide(replace(state, status="cancelled"), pay(ID)) == [], "nothing begins after the end"
    state = run_with(start(), pay(ID))
    assert agent_runs.decide(state, pay(ID)) == []
    paid = CallPaid(key="a", invocation_id=invocation_id_of(ONE, "a"), hold=QUESTION, purse=1, reserved=calls(1))
    granted = PortionGranted(purse=1, allowances=REFS, amounts=calls(1), exact=True)
    assert agent_runs.decide(state, pay(OTHER)) == [granted, paid]
    state = run_with(start(), pay(ID), pay(OTHER))
    assert state.purse is not None and (state.purse.free, state.purse.reserved, dict(state.unpaid)) == (NOTHING, calls(1), {})
    assert agent_runs.decide(state, pay(OTHER)) == []
    other = pay(ID).model_copy(update={"invocation_id": OTHER})
    assert agent_runs.decide(run_with(start()), other) == []
    with pytest.raises(PortionShort, match="the call 'a' was made before"):
        agent_runs.decide(run_with(start()), start())


def test_a_held_call_that_ends_tells_its_budgets() -> None:
    told = CallUnpaid(key="a", invocation_id=invocation_id_of(ONE, "a"), allowances=REFS, amounts=calls(1))
    finish = FinishCall(agent_run_id=ONE, key="a", invocation_id=invocation_id_of(ONE, "a"), succeeded=False, usage=NOTHING)
    assert agent_runs.decide(run_with(start(), pay(ID)), finish)[1:] == [told]
    assert agent_runs.decide(run_with(start(), finish), finish) == []
    ended = agent_runs.decide(run_with(start()), CancelAgentRun(agent_run_id=ONE))
    assert ended[0] == told and len(ended) == 2
    assert agent_runs.decide(run_with(start(), CancelAgentRun(agent_run_id=ONE)), pay(ID)) == []


def test_a_refused_call_ends_its_agent_run() -> None:
    error = Failure(type="BudgetExceeded", message="no more")
    refuse = RefuseCall(agent_run_id=ONE, key="a", invocation_id=invocation_id_of(ONE, "a"), error=error)
    events = agent_runs.decide(run_with(start(), start("b")), refuse)
    assert [type(event).__name__ for event in events] == ["CallFinished", "CallUnpaid", "CallUnpaid", "AgentRunFailed"]
    assert events[-1].error == error and events[-1].abandoned == (invocation_id_of(ONE, "b"),)  # type: ignore[attr-defined]
    assert agent_runs.decide(run_with(start(), CancelAgentRun(agent_run_id=ONE)), refuse) == []
    assert agent_runs.decide(run_with(start()), refuse.model_copy(update={"invocation_id": OTHER})) == []
    assert agent_runs.decide(run_with(), refuse) == []


# --- together -----------------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Two allowances, and agent runs that wait for both, as appends and sagas bring them together in any order."""

    limit: int
    books: dict[UUID, Allowance] = field(init=False)
    runs: dict[UUID, AgentRun] = field(default_factory=dict)
    letters: list[tuple[UUID, Any]] = field(default_factory=list)
    begun: list[UUID] = field(default_factory=list)
    refused: list[UUID] = field(default_factory=list)

    def __post_init__(self) -> None:
        opening = Opening(budget="b", limits=BudgetLimits(calls=self.limit), on_spent="ask")
        self.books = {ID: folded(opening=opening), OTHER: folded(opening=opening)}
        self.runs = {holder: run_with(holder=holder) for holder in (ONE, TWO)}

    def tell(self, book: UUID, command: Any) -> None:
        events = allowances.decide(self.books[book], command)
        self.books[book] = allowances.DECIDER.fold(self.books[book], events)
        for event in events:
            if isinstance(event, AllowanceDrawn) and event.call is not None and event.key is not None:
                pay = PayCall(agent_run_id=event.holder, key=event.key, invocation_id=event.call, allowance_id=book)
                self.letters.append((event.holder, pay))
            if isinstance(event, AllowanceRefused):
                error = Failure(type="BudgetExceeded", message=event.message)
                refuse = RefuseCall(agent_run_id=event.holder, key=event.key, invocation_id=event.invocation_id, error=error)
                self.letters.append((event.holder, refuse))
            if getattr(event, "more", False):
                self.letters.append((book, ServeLine(allowance_id=book, root_id=RUN)))

    def give(self, holder: UUID, command: Any) -> None:
        events = agent_runs.decide(self.runs[holder], command)
        self.runs[holder] = agent_runs.DECIDER.fold(self.runs[holder], events)
        for event in events:
            match event:
                case CallPaid():
                    self.begun.append(event.invocation_id)
                case CallUnpaid():
                    for ref in event.allowances:
                        drop = DropPortion(
                            allowance_id=ref.allowance_id, root_id=RUN, holder=holder, invocation_id=event.invocation_id,
                            amounts=event.amounts,
                        )  # fmt: skip
                        self.letters.append((ref.allowance_id, drop))
                case PortionSettled():
                    for ref in event.allowances:
                        settle = SettlePortion(
                            allowance_id=ref.allowance_id, root_id=RUN, holder=holder, spent=event.spent, returned=event.returned,
                            exact=event.exact,
                        )  # fmt: skip
                        self.letters.append((ref.allowance_id, settle))

    def ask(self, holder: UUID, key: str) -> None:
        """In one append: all of it, or none."""
        draws = {
            book: DrawPortion(
                allowance_id=book, root_id=RUN, holder=holder, amounts=calls(1), exact=True, call=waiting(holder, key),
                question=state.line.question,
            )
            for book, state in self.books.items()
        }  # fmt: skip
        started = StartCall(
            agent_run_id=holder, attempt=1, key=key, tool="t", unpaid=Unpaid(allowances=REFS, amounts=calls(1), hold=QUESTION)
        )
        if self.runs[holder].status != "running":
            return
        try:
            for book, draw in draws.items():
                allowances.decide(self.books[book], draw)
        except AllowanceShort:
            return
        self.give(holder, started)
        for book, draw in draws.items():
            self.tell(book, draw)

    def deliver(self, number: int) -> None:
        if self.letters:
            to, command = self.letters.pop(number % len(self.letters))
            self.tell(to, command) if to in self.books else self.give(to, command)

    def finish(self, holder: UUID) -> None:
        for key in list(self.runs[holder].reservations)[:1]:
            done = FinishCall(agent_run_id=holder, key=key, invocation_id=invocation_id_of(holder, key), succeeded=True)
            self.give(holder, done)


acts = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "finish", "end", "deliver", "deliver", "lift", "deny", "cancel"]),
        st.integers(0, 1),
        st.integers(0, 5),
    ),
    max_size=60,
)


@any_of(st.integers(0, 3), acts)
def test_no_order_of_calls_answers_deaths_and_letters_begins_a_call_unpaid_or_twice(
    limit: int, acts: list[tuple[str, int, int]]
) -> None:
    world, ended = World(limit), set()
    for turn, (act, who, number) in enumerate(acts):
        holder, book = (ONE, TWO)[who], (ID, OTHER)[who]
        match act:
            case "ask":
                world.ask(holder, f"k{turn}")
            case "finish":
                world.finish(holder)
            case "end":
                world.give(holder, CancelAgentRun(agent_run_id=holder))
                ended.add(holder)
            case "cancel":
                for key in list(world.runs[holder].unpaid)[:1]:
                    gone = FinishCall(
                        agent_run_id=holder, key=key, invocation_id=invocation_id_of(holder, key), succeeded=False, usage=NOTHING
                    )
                    world.give(holder, gone)
            case "deliver":
                world.deliver(number)
            case "lift" | "deny":
                line = world.books[book].line
                place = {"allowance_id": book, "root_id": RUN}
                if act == "deny":
                    world.tell(book, DenyMore(**place, question=line.asked, message="no"))
                else:
                    extra = calls(number or 1)
                    world.tell(book, LiftAllowance(**place, extra=extra, by="a", reason="r", question=line.asked or None))
        for state in world.books.values():
            assert state.used.calls <= (state.limits.calls or 0) and not state.overrun
            assert len(world.begun) <= (state.limits.calls or 0)
            assert state.line.is_open == (bool(state.line.places) and state.asks)
        assert len(set(world.begun)) == len(world.begun)
    for holder in (ONE, TWO):
        world.give(holder, CancelAgentRun(agent_run_id=holder))
        for key in list(world.runs[holder].reservations):  # calls under way are settled when they end
            world.give(holder, SettleCancelled(agent_run_id=holder, key=key, cost=calls(1)))
    while world.letters:
        world.deliver(0)
    for state in world.books.values():
        assert (state.held, dict(state.holders), dict(state.line.places), dict(state.line.refused)) == (NOTHING, {}, {}, {})
        assert state.spent.calls == len(world.begun) and not state.line.is_open


def test_what_a_budget_says_of_asking_fits() -> None:
    limits = BudgetLimits(money=1)
    for on_spent, asking, given, pointer in (
        ("stop", BudgetAsking(deadline_s=5), limits, "/ask"),
        ("ask", BudgetAsking(), BudgetLimits(), "/on_spent"),
        ("ask", BudgetAsking(default="approve"), limits, "/ask/default"),
        ("ask", BudgetAsking(add=calls(1)), limits, "/ask/add"),
    ):
        with pytest.raises(InvalidCommand) as refused:
            fault_of_asking(given, on_spent, asking)  # type: ignore[arg-type]
        assert refused.value.pointer == pointer
    fault_of_asking(limits, "ask", BudgetAsking(add=Amounts(money=1), deadline_s=5, default="approve"))
    fault_of_asking(limits, "stop", BudgetAsking())
