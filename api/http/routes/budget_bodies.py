"""What a run may spend, in the bodies of requests."""

from typing import Literal

from pydantic import Field

from api.http.conventions.bodies import Body
from domain.amounts import MOST, BudgetLimits, Currency, MoneyText, micros_of
from domain.budgets import LONGEST_WALL_S
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


class RunBudgetBody(LimitsBody):
    """What a run may spend, with its child runs."""

    on_spent: Literal["stop", "degrade"] = "stop"
    currency: Currency | None = None
    """The tenant's unit of money. Another one is refused."""

    def budget(self, unit: str) -> RunBudget:
        """`unit`: of the tenant. Raises InvalidCommand."""
        if self.currency not in (None, unit):
            raise InvalidCommand(f"this tenant counts money in {unit}", pointer="/budget/currency")
        limits = self.limits()
        if not any(limits.kinds()) and self.wall_s is None:
            raise InvalidCommand("a budget limits something: money, tokens, calls or wall_s", pointer="/budget")
        return RunBudget(limits=limits, wall_s=self.wall_s, on_spent=self.on_spent, currency=unit)
