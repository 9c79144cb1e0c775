"""Allowances: what a budget allows in one period, a run or a day, and who holds how much of it.

An agent run draws a portion and pays its calls from it; what a call may cost at most is set aside before the call begins. So the
amounts that are spent and the amounts that somebody holds are never more than the limit, whoever dies in between. The portions of
those that have ended come back; of the others, what they do not need is called back before anybody is told that nothing is left.
From then on (`tight`) each portion is as large as its call.

What waits where a budget asks people for more stands in `line`.

Nothing here knows the time: who gives a command says which day it is. A draw is in one append with the grant to its holder.
"""

from dataclasses import dataclass, field
from typing import assert_never
from uuid import UUID

from immutables import Map

from domain.allowances.commands import (
    AllowanceCommand,
    ChangeAllowance,
    CountSpent,
    DenyMore,
    DrawPortion,
    DropPortion,
    EndTime,
    LiftAllowance,
    NoteSpent,
    OpenAllowance,
    ServeLine,
    SettlePortion,
    TightenAllowance,
)
from domain.allowances.events import (
    AllowanceAsked,
    AllowanceAwaited,
    AllowanceChanged,
    AllowanceCounted,
    AllowanceDenied,
    AllowanceDrawn,
    AllowanceEvent,
    AllowanceLeft,
    AllowanceLifted,
    AllowanceOpened,
    AllowanceRefused,
    AllowanceSettled,
    AllowanceSpent,
    AllowanceTightened,
    AllowanceUnasked,
    Opening,
)
from domain.allowances.line import AT_ONCE, PlaceInLine, WaitingLine
from domain.amounts import AS_USUAL, NO_LIMITS, NOTHING, Amounts, BudgetAsking, BudgetLimits, OnSpent
from domain.errors import DomainError, InvalidState, NotFound
from domain.kernel import Decider, Event, Scheduled, derive_id, replace
from domain.maps import PersistentMap


class AllowanceShort(DomainError):
    """Less is left than is asked for. Others may hold more than they need."""

    code = "budget-short"

    def __init__(self, message: str, allowance_id: UUID, kind: str) -> None:
        super().__init__(message)
        self.allowance_id, self.kind = allowance_id, kind


@dataclass(frozen=True)
class Holding:
    amounts: Amounts
    exact: bool = False
    """Its holder has nothing that it does not need."""


@dataclass(frozen=True)
class Allowance:
    opened: AllowanceOpened | None = None
    limits: BudgetLimits = NO_LIMITS
    on_spent: OnSpent = "stop"
    asking: BudgetAsking = AS_USUAL
    line: WaitingLine = field(default_factory=WaitingLine)
    """Calls that wait for more."""
    spent: Amounts = NOTHING
    held: Amounts = NOTHING
    """Sum of what holders have."""
    holders: PersistentMap[UUID, Holding] = field(default_factory=Map)
    overrun: Amounts = NOTHING
    tight: bool = False
    told: bool = False
    """Somebody was told that nothing is left."""
    time_over: bool = False
    changes: int = 0
    """How often a person gave more, or other limits."""

    @property
    def used(self) -> Amounts:
        return self.spent + self.held

    @property
    def asks(self) -> bool:
        """Whether a call that it has too little for waits for people."""
        return self.on_spent == "ask" and self.line.denied is None

    @property
    def loose(self) -> tuple[UUID, ...]:
        """Holders that may have more than they need."""
        return tuple(holder for holder, holding in self.holders.items() if not holding.exact)


def allowance_of_run(run_id: UUID) -> UUID:
    """The allowance of a run."""
    return derive_id(run_id, "allowance")


def decide(allowance: Allowance, command: AllowanceCommand) -> list[Event]:
    if isinstance(command, OpenAllowance | DrawPortion | LiftAllowance | CountSpent):
        return _that_opens(allowance, command)
    if allowance.opened is None and isinstance(command, NoteSpent) and command.opening is not None:
        opened = _opened(command.opening)
        return [opened, *decide(evolve(allowance, opened), command)]
    if allowance.opened is None:
        raise NotFound(f"there is no allowance {command.allowance_id}")
    match command:
        case SettlePortion():
            return _with_line(allowance, _settle(allowance, command))
        case DropPortion() | ServeLine() | DenyMore():
            return _in_line(allowance, command)
        case TightenAllowance():
            if allowance.limits.short(allowance.used, command.asked) is None or (allowance.tight and not allowance.loose):
                return []
            return [] if allowance.tight else [AllowanceTightened(budget=allowance.opened.budget)]
        case NoteSpent():
            kind = allowance.limits.short(allowance.used, command.asked)
            if kind is None or allowance.told:
                return []
            return [AllowanceSpent(budget=allowance.opened.budget, kind=kind, holder=command.holder, asked=command.asked)]
        case EndTime():
            if allowance.time_over:
                return []
            return [AllowanceSpent(budget=allowance.opened.budget, kind="wall_s", run_id=allowance.opened.run_id)]
        case ChangeAllowance():
            now = (allowance.limits, allowance.on_spent, allowance.asking)
            if (command.limits, command.on_spent, command.asking) == now:
                return []
            changed = AllowanceChanged(limits=command.limits, on_spent=command.on_spent, asking=command.asking)
            return _with_line(allowance, [changed])
        case _:
            assert_never(command)


def _that_opens(allowance: Allowance, command: OpenAllowance | DrawPortion | LiftAllowance | CountSpent) -> list[Event]:
    """Commands that an allowance may begin with."""
    match command:
        case OpenAllowance():
            return [] if allowance.opened is not None else [_opened(command.opening)]
        case DrawPortion():
            return _draw(allowance, command)
        case LiftAllowance():
            return _with_line(allowance, _lift(allowance, command))
        case CountSpent():
            return _count(allowance, command)
        case _:
            assert_never(command)


def _opened(opening: Opening) -> AllowanceOpened:
    return AllowanceOpened(**dict(opening))


def _draw(allowance: Allowance, command: DrawPortion) -> list[Event]:
    events: list[Event] = []
    if allowance.opened is None:
        if command.opening is None:
            raise NotFound(f"there is no allowance {command.allowance_id}")
        events.append(_opened(command.opening))
        allowance = evolve(allowance, _opened(command.opening))
    if not command.amounts:
        raise InvalidState("a portion is more than nothing")
    kind, call = allowance.limits.short(allowance.used, command.amounts), command.call
    if kind is not None:
        assert allowance.opened is not None
        if call is None or not allowance.asks or command.question != allowance.line.question:
            raise AllowanceShort(f"less {kind} is left of the budget '{allowance.opened.budget}'", command.allowance_id, kind)
        events.append(AllowanceAwaited(holder=command.holder, call=call, amounts=command.amounts))
        return (
            events if allowance.line.is_open else [*events, _asked(allowance, PlaceInLine(command.holder, call, command.amounts))]
        )
    drawn = AllowanceDrawn(holder=command.holder, amounts=command.amounts, exact=command.exact)
    if call is not None:
        drawn = drawn.model_copy(update={"call": call.invocation_id, "key": call.key})
    return [*events, drawn]


def _asked(allowance: Allowance, first: PlaceInLine) -> AllowanceAsked:
    opened, used = allowance.opened, allowance.used
    assert opened is not None
    asking = allowance.asking
    return AllowanceAsked(
        number=allowance.line.asked + 1, budget=opened.budget, day=opened.day, run_id=opened.run_id, currency=opened.currency,
        kind=allowance.limits.short(used, first.amounts) or "", limits=allowance.limits, spent=allowance.spent, held=allowance.held,
        add=asking.add or allowance.limits.step(used, first.amounts, opened.limits), asking=asking, holder=first.holder,
        call=first.call, amounts=first.amounts,
    )  # fmt: skip


def _in_line(allowance: Allowance, command: DropPortion | ServeLine | DenyMore) -> list[Event]:
    match command:
        case DropPortion():
            return _with_line(allowance, _drop(allowance, command))
        case DenyMore():
            return _with_line(allowance, _deny(allowance, command))
        case ServeLine():
            return _served(allowance)
        case _:
            assert_never(command)


def _with_line(allowance: Allowance, events: list[Event]) -> list[Event]:
    """The events, and what becomes of the calls that wait."""
    if not events:
        return events
    for event in events:
        allowance = evolve(allowance, event)  # type: ignore[arg-type]  # they are events of this slice
    return [*events, *_served(allowance)]


def _served(allowance: Allowance) -> list[Event]:
    """Calls that wait go on, as far as there is enough, or are refused. The question is taken back when none waits any more."""
    line, limits, used = allowance.line, allowance.limits, allowance.used
    events: list[AllowanceDrawn | AllowanceRefused] = []
    left = list(line.in_order())
    while left and len(events) < AT_ONCE:
        holder, call, amounts = left[0]
        if not allowance.asks:
            assert allowance.opened is not None
            message = line.denied or f"the budget '{allowance.opened.budget}' is spent, and does not ask any more"
            events.append(
                AllowanceRefused(holder=holder, invocation_id=call.invocation_id, key=call.key, hold=call.hold, message=message)
            )
        elif limits.short(used, amounts) is None:
            used = used + amounts
            events.append(AllowanceDrawn(holder=holder, amounts=amounts, exact=True, call=call.invocation_id, key=call.key))
        else:
            break
        del left[0]
    if left and len(events) == AT_ONCE:
        return [*events[:-1], events[-1].model_copy(update={"more": True})]
    if not left:
        return [*events, AllowanceUnasked(number=line.asked)] if line.is_open else list(events)
    if line.is_open:
        return list(events)
    for event in events:
        allowance = evolve(allowance, event)
    return [*events, _asked(allowance, left[0])]


def _deny(allowance: Allowance, command: DenyMore) -> list[Event]:
    """Nothing, for a question that was answered or taken back meanwhile."""
    line = allowance.line
    if not line.is_open or command.question != line.asked:
        return []
    return [AllowanceDenied(number=command.question, message=command.message)]


def _drop(allowance: Allowance, command: DropPortion) -> list[Event]:
    """A call that waits, or was refused, has nothing to give back."""
    line, invocation_id = allowance.line, command.invocation_id
    if invocation_id in line.numbers or invocation_id in line.refused:
        return [AllowanceLeft(invocation_id=invocation_id)]
    back = SettlePortion(
        allowance_id=command.allowance_id, root_id=command.root_id, holder=command.holder, spent=NOTHING, returned=command.amounts
    )
    return _settle(allowance, back)


def _settle(allowance: Allowance, command: SettlePortion) -> list[Event]:
    holding = allowance.holders.get(command.holder)
    had = NOTHING if holding is None else holding.amounts
    was_exact = holding is None or holding.exact
    spent, left = command.spent, had - command.spent
    returned = left if command.ends else command.returned.at_most(left)
    if not spent and not returned and (was_exact or not command.exact):
        return []
    return [
        AllowanceSettled(
            holder=command.holder, spent=spent, returned=returned, exact=command.exact,
            overrun=allowance.limits.counted(spent - had),
        )
    ]  # fmt: skip


def _count(allowance: Allowance, command: CountSpent) -> list[Event]:
    events: list[Event] = []
    if allowance.opened is None:
        events.append(_opened(command.opening))
        allowance = evolve(allowance, _opened(command.opening))
    left = Amounts(**{kind: max(0, limit - getattr(allowance.used, kind)) for kind, limit in allowance.limits.kinds()})
    overrun = allowance.limits.counted(command.spent - left)
    return [*events, AllowanceCounted(holder=command.holder, spent=command.spent, overrun=overrun)]


def _lift(allowance: Allowance, command: LiftAllowance) -> list[Event]:
    events: list[Event] = []
    if allowance.opened is None:
        if command.opening is None:
            raise NotFound(f"there is no allowance {command.allowance_id}")
        events.append(_opened(command.opening))
        allowance = evolve(allowance, _opened(command.opening))
    assert allowance.opened is not None
    extra = command.extra
    if not any(getattr(extra, kind) for kind, _ in allowance.limits.kinds()):
        if command.question is not None:  # the budget was changed since
            return events
        kinds = ", ".join(kind for kind, _ in allowance.limits.kinds()) or "nothing but time"
        raise InvalidState(f"the budget '{allowance.opened.budget}' limits {kinds}: give more of that", pointer="/add")
    lifted = AllowanceLifted(
        budget=allowance.opened.budget, extra=extra, limits=allowance.limits.raised(extra), by=command.by,
        reason=command.reason, on_behalf_of=command.on_behalf_of, question=command.question,
    )  # fmt: skip
    return [*events, lifted]


def evolve(allowance: Allowance, event: AllowanceEvent) -> Allowance:
    match event:
        case AllowanceDrawn():
            before = allowance.holders.get(event.holder, Holding(NOTHING, event.exact))
            holding = Holding(before.amounts + event.amounts, before.exact and event.exact)
            allowance = replace(
                allowance, held=allowance.held + event.amounts, holders=allowance.holders.set(event.holder, holding)
            )
            if event.call is None or event.call not in allowance.line.numbers:
                return allowance
            return replace(allowance, line=_gone(allowance.line, event.call))
        case AllowanceSettled():
            return _settled(allowance, event)
        case AllowanceCounted():
            return replace(allowance, spent=allowance.spent + event.spent, overrun=allowance.overrun + event.overrun)
        case AllowanceOpened():
            return replace(allowance, opened=event, limits=event.limits, on_spent=event.on_spent, asking=event.asking)
        case AllowanceTightened():
            return replace(allowance, tight=True)
        case AllowanceSpent():
            return replace(allowance, told=True) if event.kind != "wall_s" else replace(allowance, time_over=True)
        case AllowanceChanged():
            changed = replace(allowance, on_spent=event.on_spent, asking=event.asking)
            return _given(changed, event.limits, None)
        case AllowanceLifted():
            return _given(allowance, event.limits, event.question)
        case AllowanceAwaited() | AllowanceAsked() | AllowanceUnasked() | AllowanceDenied() | AllowanceRefused() | AllowanceLeft():
            return replace(allowance, line=_moved(allowance.line, event))
        case _:
            assert_never(event)


def _given(allowance: Allowance, limits: BudgetLimits, question: int | None) -> Allowance:
    line = replace(allowance.line, denied=None)
    if question is not None and question == line.asked:
        line = replace(line, is_open=False)
    changes = allowance.changes + 1
    return replace(allowance, limits=limits, line=line, tight=False, told=False, changes=changes)


def _moved(
    line: WaitingLine,
    event: AllowanceAwaited | AllowanceAsked | AllowanceUnasked | AllowanceDenied | AllowanceRefused | AllowanceLeft,
) -> WaitingLine:
    match event:
        case AllowanceAwaited():
            number, place = line.came + 1, PlaceInLine(event.holder, event.call, event.amounts)
            numbers = line.numbers.set(event.call.invocation_id, number)
            return replace(line, came=number, places=line.places.set(number, place), numbers=numbers)
        case AllowanceAsked():
            return replace(line, asked=event.number, is_open=True)
        case AllowanceUnasked():
            return replace(line, is_open=False)
        case AllowanceDenied():
            return replace(line, is_open=False, denied=event.message)
        case AllowanceRefused():
            return replace(_gone(line, event.invocation_id), refused=line.refused.set(event.invocation_id, event.key))
        case AllowanceLeft():
            if event.invocation_id in line.refused:
                return replace(line, refused=line.refused.delete(event.invocation_id))
            return _gone(line, event.invocation_id)
        case _:
            assert_never(event)


def _gone(line: WaitingLine, invocation_id: UUID) -> WaitingLine:
    if invocation_id not in line.numbers:
        return line
    places = line.places.delete(line.numbers[invocation_id])
    return replace(line, places=places, numbers=line.numbers.delete(invocation_id))


def _settled(allowance: Allowance, event: AllowanceSettled) -> Allowance:
    holders, before = allowance.holders, allowance.holders.get(event.holder)
    gone = NOTHING
    if before is not None:
        gone = (event.spent + event.returned).at_most(before.amounts)
        left = before.amounts - gone
        exact = before.exact or event.exact
        holders = holders.set(event.holder, Holding(left, exact)) if left else holders.delete(event.holder)
    return replace(
        allowance, spent=allowance.spent + event.spent, held=allowance.held - gone, holders=holders,
        overrun=allowance.overrun + event.overrun,
    )  # fmt: skip


def scheduled_by(event: Event, allowance_id: UUID) -> Scheduled | None:
    """The command that an event of an allowance schedules: the end of a run's time."""
    if isinstance(event, AllowanceOpened) and event.wall_s is not None and event.run_id is not None:
        return Scheduled(event.wall_s, EndTime(allowance_id=allowance_id, root_id=event.run_id))
    return None


DECIDER: Decider[Allowance] = Decider("allowances", Allowance, decide, evolve)
