"""Findings about the PostgreSQL and NATS that the settings name instead of the embedded servers."""

import asyncio

from api.cli.diagnosis.findings import ROLES_OFF, THROWN_AWAY, TO_DURABILITY, TO_ROLES, Diagnosis
from api.settings import Settings, SettingsError

CHECK_TIMEOUT_S = 5.0


async def examine_own_servers(found: Diagnosis, settings: Settings) -> None:
    """Examines the PostgreSQL and NATS that the settings name instead of the embedded servers."""
    if settings.database_url is not None:
        from api.assembly import upkeep
        from domain.errors import TidelogError

        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                waiting = await upkeep.pending_migrations(settings.database_url.get_secret_value())
        except (TidelogError, TimeoutError) as error:
            found.add("database", "wrong", f"TIDELOG_DATABASE_URL: {error or 'no answer in time'}", "start it, or correct the URL")
        else:
            if waiting:
                found.add("database", "warning", f"not migrated yet: {', '.join(waiting)}", "tidelog migrate (or tidelog up)")
            else:
                found.add("database", "ok", "reachable, schema up to date")
                await _roles(found, settings.database_url.get_secret_value())
            await _durability(found, settings.database_url.get_secret_value())
    if settings.nats_url is not None:
        from api.assembly import upkeep
        from domain.errors import TidelogError

        try:
            await upkeep.check_nats(settings, timeout=CHECK_TIMEOUT_S)
        except (TidelogError, SettingsError) as error:
            found.add("NATS", "wrong", f"TIDELOG_NATS_URL: {error}", "start it with JetStream, or correct what is said")
        else:
            found.add("NATS", "ok", "reachable, JetStream answers")
            await _rights_on_nats(found, settings)


async def _rights_on_nats(found: Diagnosis, settings: Settings) -> None:
    from api.assembly import upkeep
    from domain.errors import TidelogError

    try:
        open_to_all, spare = await upkeep.rights_on_nats(settings, timeout=CHECK_TIMEOUT_S)
    except TidelogError:  # it is gone since the look before
        return
    if open_to_all:
        found.add(
            "NATS users", "warning", "anyone who reaches NATS may read the events of all tenants, and remove streams",
            "give NATS accounts and users: tidelog nats config --help",
        )  # fmt: skip
    elif spare:
        found.add(
            "NATS users", "note", "the user of TIDELOG_NATS_URL may do more than the server needs",
            "if others share its account: tidelog nats config --help",
        )  # fmt: skip
    else:
        found.add("NATS users", "ok", "the user of TIDELOG_NATS_URL may do what the server needs")


async def _roles(found: Diagnosis, database_url: str) -> None:
    from api.assembly import upkeep
    from domain.errors import TidelogError

    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            why_not = await upkeep.roles_off(database_url)
    except (TidelogError, TimeoutError) as error:
        found.add("database roles", "warning", str(error) or "no answer in time", "try again")
        return
    if why_not:
        found.add("database roles", "warning", f"{ROLES_OFF} ({why_not})", TO_ROLES)
    else:
        found.add("database roles", "ok", "as they were given")


async def _durability(found: Diagnosis, database_url: str) -> None:
    from api.assembly import upkeep
    from domain.errors import TidelogError

    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            durability = await upkeep.durability(database_url)
    except (TidelogError, TimeoutError) as error:
        found.add("durability", "wrong", str(error) or "no answer in time", TO_DURABILITY)
        return
    if not durability.fsync:
        found.add("durability", "warning", THROWN_AWAY, TO_DURABILITY)
    elif not durability.full_page_writes:
        torn = "full_page_writes is off: a power failure may leave torn pages, unless the file system writes them whole"
        found.add("durability", "warning", torn, "set full_page_writes = on")
    else:
        found.add("durability", "ok", "an answered append is on disk")
