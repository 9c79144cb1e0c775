"""The examinations behind `tidelog doctor`, by subject. Each adds findings; none starts or changes anything.

- `installation`: Python, packages, settings, open files, git.
- `server`: the server of the data folder, its folder, key, binaries and port.
- `services`: a PostgreSQL and a NATS of the user's own.
- `streams`: the streams on NATS.
- `asking`: requests to the server.
- `health`, `members`: what the server reports about itself.
- `keys`: API keys that soon expire.
- `breakers`: tools that nobody calls at the moment.
- `budgets`: budgets of a day of which nothing or little is left.
- `work`: what cannot go on: calls, queued work, files of workers, parked events, the log.
"""

from pathlib import Path

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.breakers import examine_breakers
from api.cli.diagnosis.budgets import examine_budgets
from api.cli.diagnosis.findings import Diagnosis
from api.cli.diagnosis.health import examine_health
from api.cli.diagnosis.installation import (
    examine_git,
    examine_installation,
    examine_isolation,
    examine_open_files,
    examine_settings,
)
from api.cli.diagnosis.keys import examine_keys
from api.cli.diagnosis.server import examine_binaries, examine_data_dir, examine_port, examine_server
from api.cli.diagnosis.services import examine_own_servers
from api.cli.diagnosis.streams import examine_streams
from api.cli.diagnosis.work import examine_work
from api.settings import Settings, SettingsError, load_settings


async def diagnose(data_dir: Path | None, url: str | None) -> Diagnosis:
    """Runs all examinations. An examination is skipped if the results before make it pointless."""
    found = Diagnosis()
    examine_installation(found)
    examine_isolation(found)
    try:
        settings = load_settings(data_dir=data_dir, url=url)
    except SettingsError as error:
        for line in str(error).splitlines():
            found.add("settings", "wrong", line, "correct or unset that variable")
        return found
    examine_settings(found, settings)
    if settings.url is None:
        examine_open_files(found, settings)
    running = examine_server(found, settings)
    if settings.url is None:
        examine_data_dir(found, settings)
        examine_binaries(found, settings, running)
        await examine_own_servers(found, settings)
    await examine_streams(found, settings)
    examine_git(found)
    if settings.url is None and running is None:
        await examine_port(found, settings)
        return found
    await _ask(found, settings, (settings.url or (running.url if running else "")).rstrip("/"))
    return found


async def _ask(found: Diagnosis, settings: Settings, url: str) -> None:
    from tidelog.errors import TidelogConnectionError

    try:
        async with Asking(found, settings, url) as server:
            if await examine_health(found, server):
                await examine_keys(found, server)
                await examine_breakers(found, server)
                await examine_budgets(found, server)
                await examine_work(found, server)
    except TidelogConnectionError as error:
        found.add("health", "wrong", f"not looked at: {error}", "correct or unset that setting")
