"""What a run may spend, in the bodies of requests."""

from typing import Literal

from pydantic import Field

from api.http.conventions.bodies import Body
from domain.amounts import AS_USUAL, MOST, Amounts, BudgetAsking, BudgetLimits, Currency, MoneyText, OnSpent, micros_of
from domain.approval_rules import LONGEST_DEADLINE_S, ApproverRole
from domain.budgets import LONGEST_WALL_S, fault_of_asking
from domain.errors import InvalidCommand
from domain.runs import RunBudget


class LimitsBody(Body):
    """What is left out is not limited."""

    money: MoneyText | None = None
    """In the tenant's unit, with at most six places: `0.01`."""
    tokens: int | None = Field(default=None, ge=0, le=MOST)
    calls: int | None = Field(default=None, ge=0, le=MOST)
    wall_s: float | None = Field(default=None, gt=0, le=LONGEST_WALL_S, allow_inf_nan=False)
    """Seconds that a run may last."""

    def limits(self) -> BudgetLimits:
        return BudgetLimits(money=None if self.money is None else micros_of(self.money), tokens=self.tokens, calls=self.calls)


class MoreBudget(Body):
    money: MoneyText | None = None
    tokens: int = Field(default=0, ge=0, le=MOST)
    calls: int = Field(default=0, ge=0, le=MOST)

    def amounts(self) -> Amounts:
        return Amounts(money=0 if self.money is None else micros_of(self.money), tokens=self.tokens, calls=self.calls)


class AskBody(Body):
    """How people are asked for more, under `on_spent: ask`."""

    add: MoreBudget | None = None
    """How much is given where the answer does not say how much. Null: as much again as the budget was."""
    roles: tuple[ApproverRole, ...] = Field(default=(), max_length=3)
    """Who may give more. Empty: every role that may lift a budget."""
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_DEADLINE_S, allow_inf_nan=False)
    """Seconds until `default` counts. Null: calls wait as long as their runs."""
    default: Literal["deny", "approve"] = "deny"

    def asking(self) -> BudgetAsking:
        add = None if self.add is None else self.add.amounts()
        return BudgetAsking(add=add, roles=self.roles, deadline_s=self.deadline_s, default=self.default)


def asking_of(body: AskBody | None) -> BudgetAsking:
    return AS_USUAL if body is None else body.asking()


class RunBudgetBody(LimitsBody):
    """What a run may spend, with its child runs."""

    on_spent: OnSpent = "stop"
    ask: AskBody | None = None
    """`ask`: how people are asked for more."""
    currency: Currency | None = None
    """The tenant's unit of money. Another one is refused."""

    def budget(self, unit: str) -> RunBudget:
        """`unit`: of the tenant. Raises InvalidCommand."""
        if self.currency not in (None, unit):
            raise InvalidCommand(f"this tenant counts money in {unit}", pointer="/budget/currency")
        limits = self.limits()
        if not any(limits.kinds()) and self.wall_s is None:
            raise InvalidCommand("a budget limits something: money, tokens, calls or wall_s", pointer="/budget")
        asking = asking_of(self.ask)
        try:
            fault_of_asking(limits, self.on_spent, asking)
        except InvalidCommand as error:
            raise InvalidCommand(error.message, pointer=f"/budget{error.pointer}") from None
        return RunBudget(limits=limits, wall_s=self.wall_s, on_spent=self.on_spent, asking=asking, currency=unit)
