"""What a run may spend, in the body of its start."""

from application.budgets.books import budget_of
from domain.amounts import Currency
from domain.errors import InvalidCommand
from domain.runs import RunBudget
from domain.written_budgets import WrittenBudget


class RunBudgetBody(WrittenBudget):
    """What a run may spend, with its child runs."""

    currency: Currency | None = None
    """The tenant's unit of money. Another one is refused."""

    def budget(self, unit: str) -> RunBudget:
        """`unit`: of the tenant. Raises InvalidCommand."""
        if self.currency not in (None, unit):
            raise InvalidCommand(f"this tenant counts money in {unit}", pointer="/budget/currency")
        return budget_of(self, unit)
