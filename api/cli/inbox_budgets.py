"""What `tidelog inbox` shows of an approval of a budget."""

from collections.abc import Mapping
from typing import Any

from api.cli.amounts import told
from api.cli.budgets import waiting_told


def is_of_budget(approval: Mapping[str, Any]) -> bool:
    return approval.get("kind") == "budget" and bool(approval.get("budget"))


def what(approval: Mapping[str, Any]) -> str:
    """The tool of a call, or the budget."""
    if not is_of_budget(approval):
        return str(approval["tool"])
    asked = approval["budget"]
    return f"budget {asked['budget']}" + (f" of {asked['day']}" if asked.get("day") else "")


def why(approval: Mapping[str, Any]) -> str:
    asked, unit = approval["budget"], approval["budget"]["currency"]
    return f"{told(asked['limits'], unit) or 'nothing'} is used up; the next call may cost {told(asked['asked'], unit)}"


def lines(approval: Mapping[str, Any]) -> dict[str, str]:
    """What is asked, by labels."""
    asked, unit = approval["budget"], approval["budget"]["currency"]
    waiting = waiting_told(approval, unit)
    return {
        "budget": what(approval).removeprefix("budget "),
        "limits": told(asked["limits"], unit) or "nothing",
        "spent": told(asked["spent"], unit) or "nothing",
        "reserved": told(asked["reserved"], unit),
        "next call": f"{approval['tool']}, which may cost {told(asked['asked'], unit)}",
        "waiting now": waiting,
        "gives": told(asked["add"], unit),
    }


def done(approval: Mapping[str, Any], status: str, given: Mapping[str, Any] | None) -> str:
    """What became of a decision."""
    asked = approval["budget"]
    if status == "approved":
        return f"Approved: {told(dict(given or asked['add']), asked['currency'])} more of the {what(approval)}."
    return f"Denied: runs that wait for the {what(approval)} stop."
