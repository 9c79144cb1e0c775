"""Findings about budgets: those of a day of which nothing or little is left."""

from typing import Any

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.findings import Diagnosis
from api.cli.output import shortened

SHOWN = 5
NEARLY = 0.8
"""The share of a limit from which on little is left."""


async def examine_budgets(found: Diagnosis, server: Asking) -> None:
    import httpx2

    try:
        page = await server.get("/v1/budgets", {"limit": 100})
        listed = [] if page is None else page["data"]
        short = sorted(((_share(one["today"]), one) for one in listed if one["today"] is not None), key=lambda each: -each[0])
        findings = [(_told(share, one), one["name"]) for share, one in short if share >= NEARLY]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        found.add("budgets", "note", f"not looked at: {error!r}")
        return
    if page is None or not listed:  # no key, the key of a worker, an earlier release, or no budgets
        return
    for told, name in findings[:SHOWN]:
        found.add("budget", "warning", told, f"tidelog budgets lift {name} --add AMOUNT --reason TEXT gives more for today")
    if len(findings) > SHOWN:
        found.add("budget", "warning", f"and {len(findings) - SHOWN} more have little left", "tidelog budgets list shows all")
    if not findings:
        found.add("budgets", "ok", "enough is left of each for today")


def _share(today: dict[str, Any]) -> float:
    """How much of its limit is given out, of the kind of which the largest share is. More than 1: a call was refused."""
    if today["is_spent"]:
        return 2.0
    shares = [1.0]
    for kind, limit in today["limits"].items():
        if kind != "wall_s" and limit is not None:
            shares.append(1 - float(today["left"][kind]) / float(limit) if float(limit) else 1.0)
    return max(shares[1:], default=0.0)


def _told(share: float, budget: dict[str, Any]) -> str:
    today, name = budget["today"], shortened(budget["name"], 100)
    left = ", ".join(
        f"{today['left'][kind]} of {limit} {budget['currency'] if kind == 'money' else kind}"
        for kind, limit in today["limits"].items()
        if kind != "wall_s" and limit is not None
    )  # fmt: skip
    if share > 1:
        return f"the budget {name} of {today['day']} is spent, and calls are refused: {left} left"
    return f"the budget {name} of {today['day']} is nearly spent: {left} left"
