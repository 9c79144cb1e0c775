"""What agent runs, sagas and people may ask of an allowance."""

from uuid import UUID

from domain.allowances.events import Opening, WaitingCall
from domain.amounts import AS_USUAL, NOTHING, Amounts, BudgetAsking, BudgetLimits, OnSpent, Why
from domain.kernel import Command


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
    call: WaitingCall | None = None
    """A call that is held, and waits here if less is left than it may cost. None: it is refused then."""
    question: int | None = None
    """The question for which it would wait, as far as is known."""


class DropPortion(Command):
    """A call that was held has ended before it was paid: it leaves the line, or what was set aside for it comes back."""

    allowance_id: UUID
    root_id: UUID
    holder: UUID
    invocation_id: UUID
    amounts: Amounts


class ServeLine(Command):
    """The next calls that wait go on."""

    allowance_id: UUID
    root_id: UUID


class DenyMore(Command):
    """The answer to a question is no."""

    allowance_id: UUID
    root_id: UUID
    question: int
    message: str


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
    asking: BudgetAsking = AS_USUAL


class LiftAllowance(Command):
    allowance_id: UUID
    root_id: UUID
    extra: Amounts
    by: str
    reason: Why
    on_behalf_of: str | None = None
    opening: Opening | None = None
    question: int | None = None
    """The question that is answered so."""


AllowanceCommand = (
    OpenAllowance | DrawPortion | SettlePortion | CountSpent | TightenAllowance | NoteSpent | EndTime | ChangeAllowance
    | LiftAllowance | DropPortion | ServeLine | DenyMore
)  # fmt: skip
