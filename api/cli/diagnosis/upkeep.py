"""The examination of the upkeep behind `tidelog doctor`."""

from typing import Any

from api.cli.diagnosis.findings import Diagnosis

OVERDUE_AFTER_TIMES = 3
"""A chore counts as overdue when it has not succeeded for so many of its periods."""


def examine_upkeep(found: Diagnosis, health: dict[str, Any]) -> None:
    """Whether the server's tables are pruned. `health`: the report of readiness."""
    chores = health.get("upkeep")
    if not chores:  # an older server, one whose database is away, or one that was never started with the role `saga`
        return
    wrong = [(chore["name"], trouble) for chore in chores if (trouble := _trouble(chore))]
    for name, trouble in wrong:
        found.add("upkeep", "wrong", f"{name}: {trouble}", "see the log of the role saga: upkeep_failed, upkeep_postponed")
    if not wrong:
        found.add("upkeep", "ok", "; ".join(f"{chore['name']} at {chore['ended_at']}" for chore in chores))


def _trouble(chore: dict[str, Any]) -> str:
    if chore["error"] is not None:
        return f"failed at {chore['ended_at']}: {chore['error']}"
    age = chore["success_age_s"]
    if age is not None and age > OVERDUE_AFTER_TIMES * chore["every_s"]:
        return f"has not been done since {chore['ended_at']}"
    return ""
