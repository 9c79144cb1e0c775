"""Findings about the health that a server reports: dependencies, history, lags, clock."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.findings import ROLES_OFF, THROWN_AWAY, TO_DURABILITY, TO_ROLES, Diagnosis
from api.cli.diagnosis.members import examine_members
from api.cli.diagnosis.upkeep import examine_upkeep

LAG_PAUSE_S = 1.0
CLOCK_TOLERANCE = timedelta(seconds=2)


async def examine_health(found: Diagnosis, server: Asking) -> bool:
    """Whether the server gave a sensible report. The report is kept in the diagnosis."""
    import httpx2

    try:
        health = found.health = await server.ready()
        _dependencies(found, health)
        examine_members(found, health)
        examine_upkeep(found, health)
        _database_roles(found, health)
        _history(found, health)
        await _lags(found, health, server.ready)
        await _clock(found, server, health)
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        found.add("health", "wrong", f"{server.url} gives no sensible answer: {error!r}", "is this the URL of a Tidelog server?")
        return False
    return True


def _dependencies(found: Diagnosis, health: dict[str, Any]) -> None:
    for name, how in health["dependencies"].items():
        if name == "durability":
            if how != "ok":
                found.add("durability", "wrong", str(how), TO_DURABILITY)
            elif not health.get("durable", True):
                found.add("durability", "warning", THROWN_AWAY, TO_DURABILITY)
            else:
                found.add("durability", "ok", "an answered append is on disk, the server says")
        elif name == "disk":
            if how == "ok":
                found.add("disk", "ok", "PostgreSQL has room for temporary files")
            else:
                found.add("disk", "wrong", str(how), "make room on the disk of PostgreSQL; events are then accepted by themselves")
        elif how == "ok":
            found.add(f"{name} link", "ok", "answers the server")
        else:
            found.add(f"{name} link", "wrong", str(how), "the server tries again by itself; its log says more")


def _database_roles(found: Diagnosis, health: dict[str, Any]) -> None:
    known = health.get("row_level_security")
    if known is None:  # an older server, or one whose database is away
        return
    if known:
        found.add("database roles", "ok", "in force: the database shows reads of requests one tenant at a time")
    else:
        found.add("database roles", "warning", ROLES_OFF, TO_ROLES)


def _history(found: Diagnosis, health: dict[str, Any]) -> None:
    history = health.get("history")
    if history is None:  # an older server, or one whose database is away
        return
    since = datetime.fromisoformat(history["began_at"])
    text = f"{history['id']}, since {since:%Y-%m-%d %H:%M:%S} UTC"
    if history["cause"] != "installed":
        text += f": the log was replaced after position {history['last_common_position']} ({history['cause']})"
    found.add("history", "note", text)


def _readers(health: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The readers of the log: consumers, and copiers into JetStream."""
    return {**health["consumers"], **health.get("streams", {})}


async def _lags(found: Diagnosis, health: dict[str, Any], ready: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Examines lags. A lag is only wrong if the reader does not move."""
    readers = _readers(health)
    behind = {name: reader["lag"] for name, reader in readers.items() if reader["lag"]}
    if behind:
        await asyncio.sleep(LAG_PAUSE_S)
        later = _readers(await ready())
        for name, lag in behind.items():
            position, then = readers[name]["position"], later.get(name, {})
            if then.get("lag") and then["position"] == position:
                found.add(name, "wrong", f"is {lag} events behind and does not move", "see the log of its role for the reason")
            else:
                found.add(name, "note", f"was {lag} events behind and catches up")
    else:
        found.add("lags", "ok", f"none of {len(readers)} readers is behind position {health.get('head')}")


async def _clock(found: Diagnosis, server: Asking, health: dict[str, Any]) -> None:
    """Examines the clock. The server's clock sets the times in the log, so it must not be behind the newest event."""
    now = datetime.now(UTC)
    newest_event = await server.get(f"/v1/events/{health['head']}") if health.get("head") else None
    if newest_event is None:  # no key, no event, or an event of another tenant
        found.add("clock", "note", f"{now:%Y-%m-%d %H:%M:%S} UTC here")
        return
    newest = datetime.fromisoformat(newest_event["time"])
    if newest > now + CLOCK_TOLERANCE:
        found.add(
            "clock", "wrong", f"here it is {now:%Y-%m-%d %H:%M:%S} UTC, but the newest event is of {newest:%Y-%m-%d %H:%M:%S}",
            "set the clock, by NTP if possible",
        )  # fmt: skip
    else:
        found.add("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC, not before the newest event")
