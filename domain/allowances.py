"""Allowances: what a budget allows in one period, a run or a day, and who holds how much of it.

An agent run draws a portion and pays its calls from it; what a call may cost at most is set aside before the call begins. So the
amounts that are spent and the amounts that somebody holds are never more than the limit, whoever dies in between. The portions of
those that have ended come back; of the others, what they do not need is called back before anybody is told that nothing is left.
From then on (`tight`) each portion is as large as its call.

Nothing here knows the time: who gives a command says which day it is. A draw is in one append with the grant to its holder.
"""

from dataclasses import dataclass, field
from typing import assert_never
from uuid import UUID

from immutables import Map
from pydantic import Field

from domain.amounts import CURRENCY, NO_LIMITS, NOTHING, Amounts, BudgetLimits, OnSpent, Why
from domain.errors import DomainError, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, Scheduled, ShortText, Value, derive_id, replace, unsaid
from domain.maps import PersistentMap


class Opening(Value):
    """What an allowance is of, and how much it is."""

    budget: ShortText
    """The budget's name: `run`, `tenant`, `project:…`, `agent:…`."""
    budget_id: UUID | None = None
    """None: it was given at the start of the run."""
    day: ShortText | None = None
    """`2026-11-30`, in the zone of the budget. None: it is of a run."""
    run_id: UUID | None = None
    project_id: UUID | None = None
    limits: BudgetLimits
    wall_s: float | None = None
    """Seconds from now after which the run is stopped."""
    on_spent: OnSpent = "stop"
    currency: str = CURRENCY


class AllowanceOpened(Event):
    TOPIC = "allowance.opened"
    budget: str
    budget_id: UUID | None = None
    day: str | None = None
    run_id: UUID | None = None
    project_id: UUID | None = None
    limits: BudgetLimits
    wall_s: float | None = Field(default=None, exclude_if=unsaid)
    on_spent: OnSpent = "stop"
    currency: str = CURRENCY


class AllowanceDrawn(Event):
    """An agent run has a further portion."""

    TOPIC = "allowance.drawn"
    holder: UUID
    """The agent run."""
    amounts: Amounts
    exact: bool = Field(default=False, exclude_if=unsaid)
    """The portion is as large as one call."""


class AllowanceSettled(Event):
    """An agent run says what it has spent of its portion, and gives back what it does not need."""

    TOPIC = "allowance.settled"
    holder: UUID
    spent: Amounts
    returned: Amounts
    exact: bool = Field(default=False, exclude_if=unsaid)
    """The holder has nothing more than its calls under way need."""
    overrun: Amounts = NOTHING
    """More than the holder had: a call cost more than its tool said was the most."""


class AllowanceCounted(Event):
    """Something was spent that no budget may stop: a call that has taken an effect back."""

    TOPIC = "allowance.counted"
    holder: UUID
    """The call."""
    spent: Amounts
    overrun: Amounts = NOTHING
    """What of it is more than was left."""


class AllowanceTightened(Event):
    """Less is left than somebody asks for. Holders give back what they do not need, and from now on portions are small."""

    TOPIC = "allowance.tightened"
    budget: str


class AllowanceSpent(Event):
    """A call was refused because nothing is left. Told once, until somebody changes the limits."""

    TOPIC = "allowance.spent"
    budget: str
    kind: str
    """What there is too little of: `money`, `tokens`, `calls`, or `wall_s`."""
    holder: UUID | None = None
    """The agent run that asked. None: the time of the run is over."""
    asked: Amounts = NOTHING
    run_id: UUID | None = None
    """The run that is stopped, where the time is over."""


class AllowanceChanged(Event):
    """The budget was changed while the allowance lasts."""

    TOPIC = "allowance.changed"
    limits: BudgetLimits
    on_spent: OnSpent


class AllowanceLifted(Event):
    """A person gave more."""

    TOPIC = "allowance.lifted"
    budget: str
    extra: Amounts
    limits: BudgetLimits
    """The limits from now on."""
    by: str
    reason: str
    on_behalf_of: str | None = None


AllowanceEvent = (
    AllowanceOpened | AllowanceDrawn | AllowanceSettled | AllowanceCounted | AllowanceTightened | AllowanceSpent | AllowanceChanged
    | AllowanceLifted
)  # fmt: skip


class AllowanceShort(DomainError):
    """Less is left than is asked for. Others may hold more than they need."""

    code = "budget-short"

    def __init__(self, message: str, allowance_id: UUID, kind: str) -> None:
        super().__init__(message)
        self.allowance_id, self.kind = allowance_id, kind


class OpenAllowance(Command):
    allowance_id: UUID
    root_id: UUID
    opening: Opening


class DrawPortion(Command):
    allowance_id: UUID
    root_id: UUID
    holder: UUID
    amounts: Amounts
    exact: bool = False
    opening: Opening | None = None
    """How it is opened, if nobody has done so."""


class SettlePortion(Command):
    allowance_id: UUID
    root_id: UUID
    holder: UUID
    spent: Amounts
    returned: Amounts = NOTHING
    exact: bool = False
    ends: bool = False
    """The holder is done: all that it has not spent goes back."""


class CountSpent(Command):
    """What was spent counts, whatever is left."""

    allowance_id: UUID
    root_id: UUID
    holder: UUID
    spent: Amounts
    opening: Opening


class TightenAllowance(Command):
    allowance_id: UUID
    root_id: UUID
    asked: Amounts


class NoteSpent(Command):
    """A call is refused."""

    allowance_id: UUID
    root_id: UUID
    holder: UUID
    asked: Amounts
    opening: Opening | None = None
    """How it is opened, if nobody has drawn of it: it allows less than one call."""


class EndTime(Command):
    """The wall time of a run is over."""

    allowance_id: UUID
    root_id: UUID


class ChangeAllowance(Command):
    allowance_id: UUID
    root_id: UUID
    limits: BudgetLimits
    on_spent: OnSpent


class LiftAllowance(Command):
    allowance_id: UUID
    root_id: UUID
    extra: Amounts
    by: str
    reason: Why
    on_behalf_of: str | None = None
    opening: Opening | None = None


AllowanceCommand = (
    OpenAllowance | DrawPortion | SettlePortion | CountSpent | TightenAllowance | NoteSpent | EndTime | ChangeAllowance
    | LiftAllowance
)  # fmt: skip


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
    def loose(self) -> tuple[UUID, ...]:
        """Holders that may have more than they need."""
        return tuple(holder for holder, holding in self.holders.items() if not holding.exact)


def allowance_of_run(run_id: UUID) -> UUID:
    """The allowance of a run."""
    return derive_id(run_id, "allowance")


def decide(allowance: Allowance, command: AllowanceCommand) -> list[Event]:
    match command:
        case OpenAllowance():
            return [] if allowance.opened is not None else [_opened(command.opening)]
        case DrawPortion():
            return _draw(allowance, command)
        case LiftAllowance():
            return _lift(allowance, command)
        case CountSpent():
            return _count(allowance, command)
        case _:
            pass
    if allowance.opened is None and isinstance(command, NoteSpent) and command.opening is not None:
        opened = _opened(command.opening)
        return [opened, *decide(evolve(allowance, opened), command)]
    if allowance.opened is None:
        raise NotFound(f"there is no allowance {command.allowance_id}")
    match command:
        case SettlePortion():
            return _settle(allowance, command)
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
            if (command.limits, command.on_spent) == (allowance.limits, allowance.on_spent):
                return []
            return [AllowanceChanged(limits=command.limits, on_spent=command.on_spent)]
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
    kind = allowance.limits.short(allowance.used, command.amounts)
    if kind is not None:
        assert allowance.opened is not None
        raise AllowanceShort(f"less {kind} is left of the budget '{allowance.opened.budget}'", command.allowance_id, kind)
    return [*events, AllowanceDrawn(holder=command.holder, amounts=command.amounts, exact=command.exact)]


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
    if not any(getattr(command.extra, kind) for kind, _ in allowance.limits.kinds()):
        kinds = ", ".join(kind for kind, _ in allowance.limits.kinds()) or "nothing but time"
        raise InvalidState(f"the budget '{allowance.opened.budget}' limits {kinds}: give more of that", pointer="/add")
    lifted = AllowanceLifted(
        budget=allowance.opened.budget, extra=command.extra, limits=allowance.limits.raised(command.extra), by=command.by,
        reason=command.reason, on_behalf_of=command.on_behalf_of,
    )  # fmt: skip
    return [*events, lifted]


def evolve(allowance: Allowance, event: AllowanceEvent) -> Allowance:
    match event:
        case AllowanceDrawn():
            before = allowance.holders.get(event.holder, Holding(NOTHING, event.exact))
            holding = Holding(before.amounts + event.amounts, before.exact and event.exact)
            return replace(allowance, held=allowance.held + event.amounts, holders=allowance.holders.set(event.holder, holding))
        case AllowanceSettled():
            return _settled(allowance, event)
        case AllowanceCounted():
            return replace(allowance, spent=allowance.spent + event.spent, overrun=allowance.overrun + event.overrun)
        case AllowanceOpened():
            return replace(allowance, opened=event, limits=event.limits, on_spent=event.on_spent)
        case AllowanceTightened():
            return replace(allowance, tight=True)
        case AllowanceSpent():
            return replace(allowance, told=True) if event.kind != "wall_s" else replace(allowance, time_over=True)
        case AllowanceChanged():
            changes = allowance.changes + 1
            return replace(
                allowance, limits=event.limits, on_spent=event.on_spent, tight=False, told=False, changes=changes
            )  # fmt: skip
        case AllowanceLifted():
            return replace(allowance, limits=event.limits, tight=False, told=False, changes=allowance.changes + 1)
        case _:
            assert_never(event)


def _settled(allowance: Allowance, event: AllowanceSettled) -> Allowance:
    before = allowance.holders.get(event.holder, Holding(NOTHING, True))
    gone = (event.spent + event.returned).at_most(before.amounts)
    left = before.amounts - gone
    holders = allowance.holders
    if left:
        holders = holders.set(event.holder, Holding(left, before.exact or event.exact))
    elif event.holder in holders:
        holders = holders.delete(event.holder)
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
