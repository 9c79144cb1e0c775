"""`tidelog runs`: start, list, show, watch and cancel runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="Runs of agents.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


@app.command()
def start(
    agents: Annotated[list[str], typer.Argument(metavar="AGENT…", help="Agents to run: one after the other, or side by side.")],
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE", help="The run's input: JSON, a file with JSON, or @- for stdin.")
    ] = None,
    parallel: Annotated[bool, typer.Option("--parallel", help="Run the agents side by side.")] = False,
    aggregator: Annotated[
        str | None, typer.Option("--aggregator", metavar="AGENT", help="With --parallel: the agent that gets all results.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the run until it has ended; exit code 1 if not completed.")] = False,
    folders: options.Agents = None,
    workspace: options.Workspace = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Start a run. If no server runs, a server is started for the run. With --agents this server also runs your agents.

    Examples:

      tidelog runs start researcher writer --input '{"topic": "tides"}' --wait

      tidelog runs start historian surveyor --parallel --aggregator editor

      tidelog runs start writer --agents ./agents --input @brief.json --wait
    """
    output.run(_start(agents, input_, parallel, aggregator, wait, folders, workspace, data_dir, url, as_json))


async def _start(
    agents: list[str], input_: str | None, parallel: bool, aggregator: str | None, wait: bool, folders: list[Path] | None,
    workspace: Path | None, data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from uuid_utils.compat import uuid7

    from api.cli import connection
    from api.cli.up import check_folders
    from api.settings import load_settings

    body = {"run_id": str(uuid7()), "plan": _plan(agents, parallel, aggregator), "input": options.json_of("--input", input_)}
    settings = load_settings(
        data_dir=data_dir, url=url, agents=tuple(folders) if folders else None, workspace=workspace
    )  # fmt: skip
    check_folders(settings)
    async with connection.server(settings, worker=True, quiet=as_json) as server:
        if server.temporary and wait and settings.agents:
            await connection.wait_for_agents(server, {*agents, *([aggregator] if aggregator else [])})
        started: dict[str, Any] = await server.post("/v1/runs", body)
        if wait:
            await _to_the_end(server, started["run_id"], as_json)
        elif as_json:
            output.document(started)
        else:
            output.say(f"Started run {started['run_id']}\n  {output.program()} runs watch {started['run_id']}")
            if server.temporary:
                output.note("No server runs any more, so the run waits: it goes on with the next `tidelog up --agents FOLDER`.")


def _plan(agents: list[str], parallel: bool, aggregator: str | None) -> dict[str, Any]:
    if aggregator is not None and not parallel:
        raise output.CommandFailed("--aggregator goes with --parallel", output.WRONG_USAGE)
    if not parallel:
        return {"kind": "sequential", "agents": agents}
    return {"kind": "parallel", "agents": agents} | ({"aggregator": aggregator} if aggregator else {})


async def _to_the_end(server: "ServerClient", run_id: str, as_json: bool) -> None:
    from api.cli.watching import outcome, watch

    if server.temporary and server.running is not None and not server.running.agents:
        output.note(
            "No worker runs on this server, which was started for this command: a run that is not over waits. Ctrl-C ends it."
        )
    position = await watch(server, run_id, as_json=as_json)
    run: dict[str, Any] = await server.get(f"/v1/runs/{run_id}", at_least=position)
    if not as_json:
        _show_outcome(run)
    if run["status"] != "completed":
        raise output.CommandFailed(f"the run ended {outcome(run)}")


def _show_outcome(run: dict[str, Any]) -> None:
    from rich.json import JSON

    if run["status"] == "completed" and run["result"] is not None:
        console = output.console()
        console.print("\n[bold]Result[/bold]")
        console.print(JSON.from_data(run["result"]))


@app.command("list")
def list_runs(
    status: Annotated[
        str | None, typer.Option("--status", help="Only runs with this status: running, completed, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List runs, newest first.

    Example:

      tidelog runs list --status failed
    """
    output.run(_list(status, limit, data_dir, url, as_json))


async def _list(status: str | None, limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, quiet=as_json) as server:
        found = [run async for run in server.pages("/v1/runs", {"status": status}, limit=limit)]
    if as_json:
        output.document(found)
        return
    if not found:
        output.say("No runs yet. Start one with: tidelog runs start AGENT, or see one with: tidelog demo")
        return
    table = output.table("Run", "Status", "Agents", "Started", "Events")
    for run in found:
        shown = output.status(run["status"]) + (" (degraded)" if run["degraded"] else "")
        if run.get("unreadable"):
            shown += " [red](the server cannot read its document)[/red]"
        started = run["created_at"][:19].replace("T", " ")
        table.add_row(
            run["run_id"], shown, output.escape(output.shortened(", ".join(run["agents"]), 60)), started, str(run["event_count"])
        )
    output.console().print(table)


@app.command()
def show(run_id: RunId, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show a run: its steps, their calls, and the result.

    Example:

      tidelog runs show 0198c0de-…
    """
    output.run(_show(run_id, data_dir, url, as_json))


async def _show(run_id: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection, run_view
    from api.settings import load_settings

    wanted = output.uuid_of(run_id)
    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, quiet=as_json) as server:
        run: dict[str, Any] = await server.get(f"/v1/runs/{wanted}")
    if as_json:
        output.document(run)
    else:
        run_view.show(run)
        _show_outcome(run)


@app.command()
def watch(run_id: RunId, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show a run live, from its beginning to its end. Exit code 1 if it did not complete.

    Example:

      tidelog runs watch 0198c0de-…
    """
    output.run(_watch(run_id, data_dir, url, as_json))


async def _watch(run_id: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    wanted = output.uuid_of(run_id)
    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, worker=True, quiet=as_json) as server:
        await _to_the_end(server, wanted, as_json)


@app.command()
def cancel(
    run_id: RunId,
    reason: Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel a run: running work is stopped, waiting work is dropped.

    Example:

      tidelog runs cancel 0198c0de-… --reason "wrong input"
    """
    output.run(_cancel(run_id, reason, data_dir, url, as_json))


async def _cancel(run_id: str, reason: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    wanted = output.uuid_of(run_id)
    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, quiet=as_json) as server:
        accepted: dict[str, Any] = await server.post(f"/v1/runs/{wanted}/cancel", {"reason": reason} if reason else {})
    if as_json:
        output.document(accepted)
    else:
        output.say(f"Cancelled run {wanted}")
