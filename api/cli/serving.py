"""`python -m api.cli.serving`: the process of roles that `tidelog up` starts, and the code of `tidelog serve`.

This module imports neither typer nor rich: a process of roles lives as long as the server, and each has its own copy.
"""

import asyncio
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

from api.cli import output
from api.lean import leave_out_unused, start_without_collecting

if TYPE_CHECKING:
    from api.settings import Role, Settings

NATS_CHECK_S = 2.0
"""Seconds. The check is to find a refusal. A NATS that is away is waited for later, by the roles."""


def main() -> None:
    parser = ArgumentParser(prog="python -m api.cli.serving")
    parser.add_argument("--roles", required=True)
    parser.add_argument("--reason-file", type=Path, required=True)
    given = parser.parse_args()
    serve(given.roles, migrate_first=True, reason_file=given.reason_file)


def serve(roles: str, *, migrate_first: bool, reason_file: Path | None = None) -> None:
    """Runs roles until a signal comes. `reason_file`: where the reason goes why the process cannot start, in place of stderr."""
    start_without_collecting()
    leave_out_unused()
    from api.roles import run_loop
    from api.supervisor.processes import EXIT_CANNOT_START

    def run() -> None:
        try:
            run_loop(_serve(roles, migrate_first))
        except output.CommandFailed as error:
            if reason_file is None or error.exit_code != EXIT_CANNOT_START:
                raise
            reason_file.write_text(str(error), "utf-8")
            sys.exit(error.exit_code)

    output.guarded(run)


def parse_roles(text: str) -> "list[Role]":
    """The roles, in the order of the data flow. Raises CommandFailed for an unknown role."""
    from api.settings import ROLES

    wanted = {part.strip() for part in text.split(",") if part.strip()}
    unknown = sorted(wanted - set(ROLES))
    if unknown or not wanted:
        raise output.CommandFailed(
            f"--roles: {f'there is no role {unknown[0]}' if unknown else 'none given'}; there are {', '.join(ROLES)}",
            output.WRONG_USAGE,
        )
    return [role for role in ROLES if role in wanted]


async def _serve(roles: str, migrate_first: bool) -> None:
    from api.settings import SettingsError, load_settings

    chosen = parse_roles(roles)
    settings = load_settings()
    if settings.database_url is None or settings.nats_url is None:
        raise SettingsError("TIDELOG_DATABASE_URL and TIDELOG_NATS_URL must be set; `tidelog up` starts servers of its own")
    from api.assembly import upkeep
    from api.assembly.logs import set_up_logging
    from api.roles import serve as serve_roles
    from api.supervisor.processes import EXIT_CANNOT_START
    from domain.errors import TidelogError

    set_up_logging(settings, "+".join(sorted(chosen)))
    # The exit code tells the supervisor not to restart.
    try:
        await asyncio.gather(
            _migrated(settings) if migrate_first else asyncio.sleep(0), upkeep.nats_lets_in(settings, NATS_CHECK_S)
        )
    except TidelogError as error:
        raise output.CommandFailed(f"{error.code}: {error.message}", EXIT_CANNOT_START) from error
    except SettingsError as error:
        raise output.CommandFailed(str(error), EXIT_CANNOT_START) from error
    try:
        await serve_roles(settings, set(chosen))
    except SettingsError as error:
        raise output.CommandFailed(str(error), EXIT_CANNOT_START) from error


async def _migrated(settings: "Settings") -> None:
    """Migrates the schema. Waits while the database is away. Raises SettingsError, or TidelogError if the schema does not fit."""
    from api.assembly import upkeep
    from application.engine.retry import persistently

    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    await persistently(lambda: upkeep.migrate(url))


if __name__ == "__main__":
    main()
