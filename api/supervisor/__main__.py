"""`python -m api.supervisor FD`: the process behind `tidelog up`. Reads its configuration from an inherited descriptor."""

import asyncio
import json
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from threading import Thread
from typing import IO

from api.lean import leave_out_unused

leave_out_unused()  # before anything imports structlog or nats

from api.open_files import raise_open_files  # noqa: E402
from api.supervisor import state  # noqa: E402
from api.supervisor.config import SupervisorConfig  # noqa: E402
from api.supervisor.console import open_in_browser  # noqa: E402
from api.supervisor.errors import SupervisorError  # noqa: E402
from api.supervisor.service import Service  # noqa: E402
from api.supervisor.state import RunningServer  # noqa: E402
from tidelog.terminal import visible  # noqa: E402


def main() -> int:
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as source:
        config = SupervisorConfig.from_json(source.read())
    raise_open_files()  # inherited by all children: the servers, the roles, the worker
    service = Service(config, on_ready=partial(_announce, config))
    try:
        asyncio.run(service.run())
    except SupervisorError as error:
        _say(f"error: {error}", sys.stderr)
        return error.exit_code
    return 0


def _announce(config: SupervisorConfig, server: RunningServer, console: str) -> None:
    """`console`: the address of the console, perhaps with a link that signs in."""
    _tell(config, server, console)
    if config.open_console and server.url:
        Thread(target=_open, args=(console, Path(config.data_dir)), name="open-console", daemon=True).start()


def _open(console: str, data_dir: Path) -> None:
    if not open_in_browser(console, data_dir):
        _say("  No browser was found: open the address of the console yourself.\n", sys.stderr)


def _tell(config: SupervisorConfig, server: RunningServer, console: str) -> None:
    key_path = None if config.api_key is not None else state.key_path(Path(config.data_dir))
    if config.as_json:
        if not server.url:
            _say(json.dumps({"roles": list(config.roles), "pid": server.pid}))
            return
        answer = {
            "url": server.url, "console_url": console.partition("#")[0], "docs_url": server.docs_url, "pid": server.pid,
            "key_file": key_path and str(key_path),
        }  # fmt: skip
        _say(json.dumps(answer))
        return
    if not server.url:
        _say(f"\n  Tidelog runs {', '.join(config.roles)} here.\n\n  Ctrl-C stops it.\n")
        return
    key_file = None if key_path is None else _short(key_path)
    lines = [
        f"Tidelog runs at  {server.url}",
        f"console:         {console}",
        *(["                 (the link signs in once, within ten minutes; another: tidelog console)"] if "#" in console else []),
        f"API docs         {server.docs_url}",
        f"API key          {key_file or 'that of TIDELOG_API_KEY'}",
        "",
    ]
    if key_file is not None:
        lines.append(f'export TIDELOG_API_KEY="$(cat {shlex.quote(key_file)})"')
    lines += [f'curl -H "Authorization: Bearer $TIDELOG_API_KEY" {server.url}/v1/runs', ""]
    if server.worker_account:
        lines += [f"The worker runs as {server.worker_account}; workspace: {server.workspace}", ""]
    if not config.agents:
        lines += ["No worker runs: start with --agents FOLDER to run agents of yours.", ""]
    lines.append("Ctrl-C stops it.")
    _say("\n" + "\n".join(f"  {line}".rstrip() for line in lines) + "\n")


def _say(text: str, stream: IO[str] | None = None) -> None:
    stream = stream or sys.stdout
    stream.write(visible(text, lines=True) + "\n")
    stream.flush()


def _short(path: Path) -> str:
    """The path, relative to the current folder if the path is inside it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
