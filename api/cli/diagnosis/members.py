"""Findings about the processes that do the engine's work, and the units that no process runs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from api.cli.diagnosis.findings import Diagnosis


def examine_members(found: Diagnosis, health: dict[str, Any]) -> None:
    """Examines which processes do the engine's work, and which units no process runs."""
    if "members" not in health:  # the database is away
        return
    for member in health["members"]:
        place = member.get("place", "a process")  # without a valid key the server does not say where
        if member["alive"]:
            found.add("member", "ok", f"{place}: {_shortened(member['units'])}")
        else:
            found.add("member", "note", f"{place} has vanished; its work was taken over if there is another")
    held = {unit for member in health["members"] if member["alive"] for unit in member["units"]}
    consumers = {_unit_of(name) for name in health["consumers"]}
    undone = {"relay", "timers", "schedules", "bulk-actions", "sweeper", "upkeep", *consumers, *health.get("streams", {})} - held
    if undone:
        found.add(
            "members", "wrong", f"nobody does: {_shortened(sorted(undone))}",
            "start a process for it: tidelog up, or tidelog serve --roles relay,projector,saga",
        )  # fmt: skip


def _unit_of(consumer: str) -> str:
    """The unit that moves a consumer."""
    if consumer == "trigger-matcher":
        return "triggers"
    return consumer if consumer.startswith("sagas:") else f"projection:{consumer}"


def _shortened(units: Sequence[str]) -> str:
    kinds = Counter(unit.partition(":")[0] for unit in units)
    words = {"projection": "projections", "sagas": "partitions of the sagas"}
    parts = [kind if kind not in words else f"{count} {words[kind]}" for kind, count in sorted(kinds.items())]
    return ", ".join(parts) or "none of the engine's work"
