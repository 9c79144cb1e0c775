"""Budgets as people write them: at the start of a run, in what a schedule or a trigger starts, and in a workflow."""

from typing import Literal

from pydantic import Field, model_validator

from domain.amounts import AS_USUAL, MOST, Amounts, BudgetAsking, BudgetLimits, Currency, MoneyText, OnSpent, micros_of
from domain.errors import InvalidCommand
from domain.kernel import Value, unsaid

LONGEST_WALL_S = 366 * 86_400.0
LONGEST_ASK_S = 90 * 86_400.0


class WrittenAmounts(Value):
    money: MoneyText | None = Field(default=None, exclude_if=unsaid)
    tokens: int = Field(default=0, ge=0, le=MOST)
    calls: int = Field(default=0, ge=0, le=MOST)

    def amounts(self) -> Amounts:
        return Amounts(money=0 if self.money is None else micros_of(self.money), tokens=self.tokens, calls=self.calls)


class WrittenAsking(Value):
    """How people are asked for more, under `on_spent: ask`."""

    add: WrittenAmounts | None = Field(default=None, exclude_if=unsaid)
    """How much is given where the answer does not say how much. Null: as much again as the budget was."""
    roles: tuple[Literal["owner", "admin", "operator"], ...] = Field(default=(), max_length=3)
    """Who may give more. Empty: every role that may lift a budget."""
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_ASK_S, allow_inf_nan=False, exclude_if=unsaid)
    """Seconds until `default` counts. Null: calls wait as long as their runs."""
    default: Literal["deny", "approve"] = "deny"

    def asking(self) -> BudgetAsking:
        add = None if self.add is None else self.add.amounts()
        return BudgetAsking(add=add, roles=self.roles, deadline_s=self.deadline_s, default=self.default)


def asking_of(written: WrittenAsking | None) -> BudgetAsking:
    return AS_USUAL if written is None else written.asking()


class WrittenLimits(Value):
    """What is left out is not limited."""

    money: MoneyText | None = Field(default=None, exclude_if=unsaid)
    """In the tenant's unit, with at most six places: `0.01`."""
    tokens: int | None = Field(default=None, ge=0, le=MOST, exclude_if=unsaid)
    calls: int | None = Field(default=None, ge=0, le=MOST, exclude_if=unsaid)
    wall_s: float | None = Field(default=None, gt=0, le=LONGEST_WALL_S, allow_inf_nan=False, exclude_if=unsaid)
    """Seconds that a run may last."""

    def limits(self) -> BudgetLimits:
        return BudgetLimits(money=None if self.money is None else micros_of(self.money), tokens=self.tokens, calls=self.calls)


class WrittenBudget(WrittenLimits):
    """What a run may spend, with its child runs."""

    on_spent: OnSpent = "stop"
    ask: WrittenAsking | None = Field(default=None, exclude_if=unsaid)
    """`ask`: how people are asked for more."""
    currency: Currency | None = Field(default=None, exclude_if=unsaid)
    """The tenant's unit of money. Another one is refused."""

    @model_validator(mode="after")
    def _limits_something(self) -> "WrittenBudget":
        limits = self.limits()
        if not any(limits.kinds()) and self.wall_s is None:
            raise ValueError("a budget limits something: money, tokens, calls or wall_s")
        try:
            fault_of_asking(limits, self.on_spent, asking_of(self.ask))
        except InvalidCommand as error:
            raise ValueError(error.message) from None
        return self


def fault_of_asking(limits: BudgetLimits, on_spent: OnSpent, asking: BudgetAsking) -> None:
    """Raises InvalidCommand: a budget does not ask, or not for that."""
    if on_spent != "ask" and asking != AS_USUAL:
        raise InvalidCommand("`ask` says how people are asked: it goes with `on_spent: ask`", pointer="/ask")
    if on_spent == "ask" and not any(limits.kinds()):
        raise InvalidCommand("people are asked for money, tokens or calls: the time of a run is over", pointer="/on_spent")
    if asking.default == "approve" and asking.deadline_s is None:
        raise InvalidCommand("`default: approve` goes with `deadline_s`", pointer="/ask/default")
    if asking.add is not None and not any(getattr(asking.add, kind) for kind, _ in limits.kinds()):
        raise InvalidCommand("`add` gives more of what the budget limits", pointer="/ask/add")
