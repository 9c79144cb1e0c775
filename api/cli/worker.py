"""`tidelog worker`: a worker for a server that runs."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from api.cli import options, output

app = typer.Typer()


@app.command()
def worker(
    agents: options.Agents = None,
    builtin: Annotated[
        bool,
        typer.Option(
            "--builtin",
            help="Carry out the tools that are defined on the server, and offer those that come with it.",
        ),
    ] = False,
    tools: Annotated[
        list[Path] | None, typer.Option("--tools", metavar="FILE", help="JSON or TOML with HTTP tools; repeatable.")
    ] = None,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-network",
            metavar="NETWORK",
            help="These tools may also call this network, such as 10.1.0.0/16; repeatable. Without: the public internet only.",
        ),
    ] = None,
    only_host: Annotated[
        list[str] | None,
        typer.Option(
            "--only-host", metavar="HOST", help="These tools may call no other hosts: api.example.com, *.example.com; repeatable."
        ),
    ] = None,
    workspace: options.Workspace = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, metavar="N", help="Agents at once.")] = 100,
    tool_concurrency: Annotated[int, typer.Option("--tool-concurrency", min=1, metavar="N", help="Tool calls at once.")] = 16,
    grace_s: Annotated[
        float | None,
        typer.Option(
            "--grace", min=0, metavar="SECONDS", help="Time for the work in hand after the signal to stop.  \\[default: 5]"
        ),
    ] = None,
    suspend_after_s: Annotated[
        float | None,
        typer.Option(
            "--suspend-after",
            min=0,
            metavar="SECONDS",
            help="An agent that only waits for so long is unloaded until something comes for it.  \\[default: 5]",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Base URL of the server. Without: the server of the data folder.  \\[TIDELOG_URL]")
    ] = None,
) -> None:
    """Run a worker for your agents and tools, or for tools that call out, beside a server that runs. Starts no server.

    The key is that of TIDELOG_API_KEY, or of the data folder. A worker needs nothing else: it opens one WebSocket to the URL. The
    form and level of the log come from TIDELOG_LOG_FORMAT and TIDELOG_LOG_LEVEL.

    With --builtin or --tools the agents of TIDELOG_AGENTS are left out: their code could read the secrets of the tools. A secret
    that a definition names is read from TIDELOG_SECRET_<NAME>; TIDELOG_SECRET_<NAME>_HOSTS says which hosts may get it.

    Examples:

      tidelog worker --agents ./agents

      tidelog worker --agents ./agents --workspace ~/src/my-project --url http://127.0.0.1:8700

      tidelog worker --builtin --tools ./tools.json --only-host "*.example.com"
    """
    limits = {
        "--concurrency": concurrency,
        "--tool-concurrency": tool_concurrency,
        "--grace": grace_s,
        "--suspend-after": suspend_after_s,
    }
    outside = ["--builtin"] if builtin else []
    for option, values in {"--tools": tools, "--allow-network": allow_network, "--only-host": only_host}.items():
        outside += [word for value in values or () for word in (option, str(value))]
    output.guarded(lambda: _check_outside(builtin, tools or (), allow_network or (), only_host or ()))
    output.guarded(lambda: _replace_by_worker(agents, outside, workspace, limits, data_dir, url))


def _check_outside(builtin: bool, files: Sequence[Path], networks: Sequence[str], hosts: Sequence[str]) -> None:
    """Here, where a person reads it: the worker would write a line of its log."""
    if not files and not networks and not hosts:
        return
    if not builtin and not files:
        told = "--allow-network and --only-host are for --builtin and --tools; agents call what they want"
        raise output.CommandFailed(told, output.WRONG_USAGE)
    from tidelog.builtin.definitions import read_definitions
    from tidelog.guard import Allowed

    try:
        Allowed.of(networks, hosts)
        for file in files:
            read_definitions(file)
    except ValueError as error:
        raise output.CommandFailed(output.one_line(str(error)), output.WRONG_USAGE) from None


def _replace_by_worker(
    agents: list[Path] | None,
    outside: list[str],
    workspace: Path | None,
    limits: Mapping[str, float | None],
    data_dir: Path | None,
    url: str | None,
) -> None:
    """Replaces this process by the worker, which imports neither the command line nor the settings."""
    import asyncio

    from api.cli.connection import found_server
    from api.cli.up import check_folders
    from api.settings import load_settings
    from api.supervisor import state
    from api.supervisor.config import worker_environment

    chosen = tuple(agents) if agents else () if outside else None
    settings = load_settings(agents=chosen, workspace=workspace, data_dir=data_dir, url=url)
    if not settings.agents and not outside:
        raise output.CommandFailed("nothing to run: give --agents FOLDER, --builtin or --tools FILE", output.WRONG_USAGE)
    check_folders(settings)
    server_url, key = asyncio.run(found_server(settings))
    if settings.api_key is None:
        key = state.read_worker_key(settings.data_dir) or key  # a worker need not have the rights of an owner
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    arguments = [*outside, "--log-format", "json" if as_json else "text", "--log-level", settings.log_level]
    for option, limit in limits.items():
        arguments += [option, str(limit)] if limit is not None else []
    for folder in settings.agents:
        arguments += ["--agents", str(folder)]
    if settings.workspace is not None:
        arguments += ["--workspace", str(settings.workspace)]
    environment = worker_environment() | {"TIDELOG_URL": server_url, "TIDELOG_API_KEY": key}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "tidelog.worker", *arguments], environment)
