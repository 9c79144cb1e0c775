"""Events of allowances: what is drawn, spent and given back, what calls wait for, and what people gave."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.amounts import AS_USUAL, CURRENCY, NOTHING, Amounts, BudgetAsking, BudgetLimits, OnSpent, as_usual
from domain.kernel import Event, ShortText, Value, unsaid


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
    asking: BudgetAsking = AS_USUAL
    currency: str = CURRENCY
    on_behalf_of: str | None = None
    """For whom the run is."""


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
    asking: BudgetAsking = Field(default=AS_USUAL, exclude_if=as_usual)
    currency: str = CURRENCY
    on_behalf_of: str | None = Field(default=None, exclude_if=unsaid)
    """For whom the run is: the end of its time is for the same."""


class AllowanceDrawn(Event):
    """An agent run has a further portion."""

    TOPIC = "allowance.drawn"
    holder: UUID
    """The agent run."""
    amounts: Amounts
    exact: bool = Field(default=False, exclude_if=unsaid)
    """The portion is as large as one call."""
    call: UUID | None = Field(default=None, exclude_if=unsaid)
    """The call that is held, and that the portion is for. None: it is for calls to come."""
    key: str | None = Field(default=None, exclude_if=unsaid)
    """Under which its agent run knows the call."""
    more: bool = Field(default=False, exclude_if=unsaid)
    """Further calls that wait follow in an append of their own."""


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
    asking: BudgetAsking = Field(default=AS_USUAL, exclude_if=as_usual)


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
    question: int | None = Field(default=None, exclude_if=unsaid)
    """The question that was answered so. None: nobody was asked."""


class WaitingCall(BaseModel):
    """A call that is held until its budgets have enough."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    invocation_id: UUID
    key: str
    """Under which its agent run knows it."""
    hold: UUID
    """The question that it was held for first: `approval_id` of `invocation.held`."""
    tool: str
    tool_version: str | None = None
    arguments_hash: str
    project_id: UUID | None = None
    """Of its run."""
    on_behalf_of: str | None = Field(default=None, exclude_if=unsaid)


class AllowanceAwaited(Event):
    """A call is held: less is left than it may cost, and the budget asks."""

    TOPIC = "allowance.awaited"
    holder: UUID
    """The agent run."""
    call: WaitingCall
    amounts: Amounts


class AllowanceAsked(Event):
    """People are asked for more. One question for all calls that wait."""

    TOPIC = "allowance.asked"
    number: int
    """1, 2, 3 …: of the questions of this allowance."""
    budget: str
    day: str | None = None
    run_id: UUID | None = None
    currency: str
    kind: str
    """What there is too little of."""
    limits: BudgetLimits
    spent: Amounts
    held: Amounts
    add: Amounts
    """How much is given where nobody says how much."""
    asking: BudgetAsking
    holder: UUID
    call: WaitingCall
    """The first call that waits."""
    amounts: Amounts
    """What it may cost."""


class AllowanceUnasked(Event):
    """Nobody needs the answer any more: all calls went on, or were cancelled."""

    TOPIC = "allowance.unasked"
    number: int


class AllowanceDenied(Event):
    """Nobody gives more. Calls that wait are refused, and so are those that come, until the budget is changed."""

    TOPIC = "allowance.denied"
    number: int
    message: str


class AllowanceRefused(Event):
    """A call that waited gets nothing."""

    TOPIC = "allowance.refused"
    holder: UUID
    invocation_id: UUID
    key: str
    hold: UUID
    message: str
    more: bool = Field(default=False, exclude_if=unsaid)
    """Further calls follow in an append of their own."""


class AllowanceLeft(Event):
    """A call waits no more: it was cancelled, or its agent run has ended."""

    TOPIC = "allowance.left"
    invocation_id: UUID


AllowanceEvent = (
    AllowanceOpened | AllowanceDrawn | AllowanceSettled | AllowanceCounted | AllowanceTightened | AllowanceSpent | AllowanceChanged
    | AllowanceLifted | AllowanceAwaited | AllowanceAsked | AllowanceUnasked | AllowanceDenied | AllowanceRefused | AllowanceLeft
)  # fmt: skip
