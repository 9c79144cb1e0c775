"""The refusal of a plan."""

from collections.abc import Sequence

from application.views.plans import PlanFaultView
from domain.errors import InvalidCommand


class InvalidPlan(InvalidCommand):
    """A run is to be started with a plan that has faults. All of them are told."""

    code = "invalid-plan"

    def __init__(self, faults: Sequence[PlanFaultView], *, at: str) -> None:
        """`at`: where the plan stands in what was given."""
        first, more = faults[0], f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{at}{first.pointer}: {first.detail}{more}", pointer=f"{at}{first.pointer}")
        self.cured = tuple((f"{at}{fault.pointer}", fault.detail, fault.cure) for fault in faults)
        self.faults = tuple((pointer, detail) for pointer, detail, _ in self.cured)
