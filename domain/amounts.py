"""What budgets count: money, tokens and calls. Money is a whole number of millionths of a unit, so sums are exact."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from domain.kernel import unsaid

MICROS = 1_000_000
MOST = 10**15
"""The largest amount: of money a thousand million units."""
MONEY_PATTERN = r"^\d{1,9}(\.\d{1,6})?$"
MoneyText = Annotated[str, StringConstraints(pattern=MONEY_PATTERN)]
"""Money as people write it: `0.01`. At most six places."""
CURRENCY = "usd"
"""The unit of a tenant that has chosen none."""
Currency = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,10}$")]
"""The unit of a tenant's money, in lower case: `usd`, `eur`, `credits`."""

Why = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True, pattern=r"^[^\x00]+$")]
"""Why a person changes a budget, in the person's own words."""

OnSpent = Literal["stop", "degrade", "ask"]
"""What follows when a budget is spent. `stop`: the call fails, and its agent run with it. `degrade`: a cheaper fallback tool is
called, or the call fails alone. `ask`: the call is held until a person gives more."""


def micros_of(text: str) -> int:
    """`0.01` → 10,000 millionths. Raises ValueError."""
    if re.match(MONEY_PATTERN, text) is None:
        raise ValueError(f"not an amount of money with at most six places: {text[:40]!r}")
    return int(Decimal(text) * MICROS)


def money_text(micros: int) -> str:
    """10,000 millionths → `0.01`."""
    whole, rest = divmod(abs(micros), MICROS)
    places = f"{rest:06d}".rstrip("0")
    return f"{'-' if micros < 0 else ''}{whole}{'.' + places if places else ''}"


class Amounts(BaseModel):
    """A sum of each kind. As an event holds it: what is zero is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    money: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)
    """In millionths of the tenant's unit."""
    tokens: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)
    calls: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)

    def __add__(self, other: "Amounts") -> "Amounts":
        return _amounts(self.money + other.money, self.tokens + other.tokens, self.calls + other.calls)

    def __sub__(self, other: "Amounts") -> "Amounts":
        """What is left; nothing of a kind is less than zero."""
        return _amounts(
            max(0, self.money - other.money), max(0, self.tokens - other.tokens), max(0, self.calls - other.calls)
        )  # fmt: skip

    def __bool__(self) -> bool:
        return bool(self.money or self.tokens or self.calls)

    def covers(self, other: "Amounts") -> bool:
        return self.money >= other.money and self.tokens >= other.tokens and self.calls >= other.calls

    def at_most(self, other: "Amounts") -> "Amounts":
        """The smaller one of each kind."""
        return _amounts(min(self.money, other.money), min(self.tokens, other.tokens), min(self.calls, other.calls))

    def at_least(self, other: "Amounts") -> "Amounts":
        """The larger one of each kind."""
        return _amounts(max(self.money, other.money), max(self.tokens, other.tokens), max(self.calls, other.calls))


def _amounts(money: int, tokens: int, calls: int) -> Amounts:
    return Amounts.model_construct(money=money, tokens=tokens, calls=calls)


class BudgetAsking(BaseModel):
    """How a budget asks people for more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    add: Amounts | None = Field(default=None, exclude_if=unsaid)
    """How much is given where nobody says how much. None: as much again as the budget was."""
    roles: tuple[Literal["owner", "admin", "operator"], ...] = Field(default=(), max_length=3, exclude_if=lambda value: not value)
    """Who may give it. Empty: every role that may lift a budget."""
    deadline_s: float | None = Field(default=None, gt=0, le=90 * 86_400.0, allow_inf_nan=False, exclude_if=unsaid)
    """Seconds until `default` counts. None: calls wait as long as their runs."""
    default: Literal["deny", "approve"] = "deny"


AS_USUAL = BudgetAsking()


def as_usual(asking: object) -> bool:
    """Whether a budget asks as all do: events leave that out."""
    return asking == AS_USUAL


NOTHING = Amounts()
ONE_CALL = Amounts(calls=1)


class BudgetLimits(BaseModel):
    """The most of each kind. None: as much as there may be."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    money: int | None = Field(default=None, ge=0, le=MOST, exclude_if=unsaid)
    """In millionths of the tenant's unit."""
    tokens: int | None = Field(default=None, ge=0, le=MOST, exclude_if=unsaid)
    calls: int | None = Field(default=None, ge=0, le=MOST, exclude_if=unsaid)

    def kinds(self) -> Iterator[tuple[str, int]]:
        """The kinds that have a limit, each with its limit."""
        if self.money is not None:
            yield "money", self.money
        if self.tokens is not None:
            yield "tokens", self.tokens
        if self.calls is not None:
            yield "calls", self.calls

    def short(self, used: Amounts, asked: Amounts) -> str | None:
        """The first kind of which less is left than is asked for. None: there is enough."""
        for kind, limit in self.kinds():
            if getattr(used, kind) + getattr(asked, kind) > limit:
                return kind
        return None

    def portion(self, used: Amounts, asked: Amounts) -> Amounts:
        """How much to draw for a call: the smaller of a sixteenth of what is left and four times the call, at least the call."""
        drawn = {"money": 4 * asked.money, "tokens": 4 * asked.tokens, "calls": 4 * asked.calls}
        for kind, limit in self.kinds():
            left = max(0, limit - getattr(used, kind))
            drawn[kind] = max(getattr(asked, kind), min(drawn[kind], left // 16))
        return _amounts(drawn["money"], drawn["tokens"], drawn["calls"])

    def step(self, used: Amounts, asked: Amounts, first: "BudgetLimits") -> Amounts:
        """What to give of the kinds that are short: as much as there was at `first`, at least what is asked for."""
        given = {"money": 0, "tokens": 0, "calls": 0}
        for kind, limit in self.kinds():
            missing = getattr(used, kind) + getattr(asked, kind) - limit
            if missing > 0:
                given[kind] = max(missing, getattr(first, kind) or 0)
        return _amounts(**given)

    def counted(self, amounts: Amounts) -> Amounts:
        """The kinds alone that have a limit."""
        return _amounts(**{kind: 0 for kind in ("money", "tokens", "calls")} | {k: getattr(amounts, k) for k, _ in self.kinds()})

    def raised(self, extra: Amounts) -> "BudgetLimits":
        """With more of the kinds that have a limit."""
        return BudgetLimits(**{kind: min(MOST, limit + getattr(extra, kind)) for kind, limit in self.kinds()})


NO_LIMITS = BudgetLimits()


class MaxCost(BaseModel):
    """The most that one call of a tool costs, beside being a call."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    money: int = Field(default=0, ge=0, le=MOST, exclude_if=lambda value: value == 0)
    tokens: int = Field(default=0, ge=0, le=MOST, exclude_if=lambda value: value == 0)

    @property
    def of_call(self) -> Amounts:
        return _amounts(self.money, self.tokens, 1)


class Spender(BaseModel):
    """Whose call it is, for the account of what was used."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: UUID | None = None
    project_id: UUID | None = None
    agent: str | None = None
    tool: str | None = None
    """The tool that was called in the end."""


class AllowanceRef(BaseModel):
    """An allowance, and the root of its stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    allowance_id: UUID
    root_id: UUID


class Unpaid(BaseModel):
    """What a held call waits for: all of these allowances are to have enough for it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    allowances: tuple[AllowanceRef, ...]
    amounts: Amounts
    hold: UUID
    """`approval_id` of its `invocation.held`."""


class BudgetQuestion(BaseModel):
    """What people are asked: more of a budget, as it stood when the first call waited for it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    allowance: AllowanceRef
    number: int
    """Of the questions of this allowance: 1, 2, 3 …"""
    budget: str
    day: str | None = None
    run_id: UUID | None = None
    currency: str = CURRENCY
    kind: str
    """What there is too little of: `money`, `tokens`, `calls`."""
    limits: BudgetLimits
    spent: Amounts = NOTHING
    reserved: Amounts = NOTHING
    asked: Amounts
    """What the first call that waits may cost."""
    add: Amounts
    """How much is given where nobody says how much."""


class BudgetAnswer(BaseModel):
    """Which question an answer is of, and how much it gives."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    allowance: AllowanceRef
    number: int
    budget: str
    add: Amounts = NOTHING
