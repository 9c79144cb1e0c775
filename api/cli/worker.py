"""`tidelog worker`: a worker for a server that runs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from api.cli import options, output

app = typer.Typer()


@app.command()
def worker(
    agents: options.Agents = None,
    workspace: options.Workspace = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, metavar="N", help="Agents at once.")] = 100,
    tool_concurrency: Annotated[int, typer.Option("--tool-concurrency", min=1, metavar="N", help="Tool calls at once.")] = 16,
    grace_s: Annotated[
        float | None,
        typer.Option(
            "--grace", min=0, metavar="SECONDS", help="Time for the work in hand after the signal to stop.  \\[default: 5]"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Base URL of the server. Without: the server of the data folder.  \\[TIDELOG_URL]")
    ] = None,
) -> None:
    """Run a worker for your agents and tools, beside a server that runs. Starts no server.

    The key is that of TIDELOG_API_KEY, or of the data folder. A worker needs nothing else: it opens one WebSocket to the URL. The
    form and level of the log come from TIDELOG_LOG_FORMAT and TIDELOG_LOG_LEVEL.

    Examples:

      tidelog worker --agents ./agents

      tidelog worker --agents ./agents --workspace ~/src/my-project --url http://127.0.0.1:8700
    """
    limits = {"--concurrency": concurrency, "--tool-concurrency": tool_concurrency, "--grace": grace_s}
    output.guarded(lambda: _replace_by_worker(agents, workspace, limits, data_dir, url))


def _replace_by_worker(
    agents: list[Path] | None, workspace: Path | None, limits: Mapping[str, float | None], data_dir: Path | None, url: str | None
) -> None:
    """Replaces this process by the worker, which imports neither the command line nor the settings."""
    import asyncio

    from api.cli.connection import found_server
    from api.cli.up import check_folders
    from api.settings import load_settings
    from api.supervisor import state
    from api.supervisor.config import worker_environment

    settings = load_settings(agents=tuple(agents) if agents else None, workspace=workspace, data_dir=data_dir, url=url)
    if not settings.agents:
        raise output.CommandFailed("nothing to run: give --agents FOLDER", output.WRONG_USAGE)
    check_folders(settings)
    server_url, key = asyncio.run(found_server(settings))
    if settings.api_key is None:
        key = state.read_worker_key(settings.data_dir) or key  # a worker need not have the rights of an owner
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    arguments = ["--log-format", "json" if as_json else "text", "--log-level", settings.log_level]
    for option, limit in limits.items():
        arguments += [option, str(limit)] if limit is not None else []
    for folder in settings.agents:
        arguments += ["--agents", str(folder)]
    if settings.workspace is not None:
        arguments += ["--workspace", str(settings.workspace)]
    environment = worker_environment() | {"TIDELOG_URL": server_url, "TIDELOG_API_KEY": key}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "tidelog.worker", *arguments], environment)
