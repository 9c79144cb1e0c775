"""Findings about the server of the data folder: its processes, its folder, its key, its binaries and its port."""

import asyncio
import os
import shutil
import socket
import stat
from dataclasses import asdict

from api.cli.diagnosis.findings import Diagnosis
from api.free_room import home_of
from api.settings import Settings
from api.supervisor import state
from api.supervisor.addresses import user_of
from api.supervisor.errors import SupervisorError

FREE_WRONG = 256 * 1024**2
FREE_WARNING = 2 * 1024**3
CONNECT_TIMEOUT_S = 5.0


def examine_server(found: Diagnosis, settings: Settings) -> state.RunningServer | None:
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


def examine_data_dir(found: Diagnosis, settings: Settings) -> None:
    folder = settings.data_dir
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
        found.add("data folder", "wrong", f"{folder.absolute()} is not a folder that we may use", "choose another with --data-dir")
        return
    home = home_of(folder).absolute()
    existing = next(parent for parent in (home, *home.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    text = f"{folder.absolute()}{'' if folder.exists() else ' (not there yet)'}, {free / 1024**3:.1f} GiB free"
    text += f" in {home}" if home != folder.absolute() else ""
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


def examine_binaries(found: Diagnosis, settings: Settings, running: state.RunningServer | None) -> None:
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


async def examine_port(found: Diagnosis, settings: Settings) -> None:
    if settings.port and _unreachable("127.0.0.1", settings.port) is None:
        who = await asyncio.to_thread(user_of, "127.0.0.1", settings.port)
        cure = "stop that process, or choose another port for `tidelog up` with --port or TIDELOG_PORT"
        found.add("port", "warning", f"{settings.port} is in use by {who}", cure)
    else:
        found.add("port", "ok", f"{settings.port} is free" if settings.port else "any free one")


def _unreachable(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{host}:{port}: {error}"
    return None
