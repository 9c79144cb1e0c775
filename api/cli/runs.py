"""`tidelog runs`: start, list, show, watch and cancel runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import bulk, options, output, phrases
from api.cli.amounts import FORM, OnSpent
from api.cli.ids import GivenId
from api.cli.reaching import server_of
from api.cli.run_body import Compensate, OnBusy, OnFailure, Priority, StartOptions, agents_of, body_of, check_key

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="Runs of agents.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]


@app.command()
def start(
    agents: Annotated[
        list[str] | None, typer.Argument(metavar="AGENT…", help="Agents to run: one after the other, or side by side.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE", help="The run's input: JSON, a file with JSON, or @- for stdin.")
    ] = None,
    parallel: Annotated[
        bool,
        typer.Option("--parallel", help="Run the agents side by side. If some of them fail, the run is completed, and degraded."),
    ] = False,
    aggregator: Annotated[
        str | None, typer.Option("--aggregator", metavar="AGENT", help="With --parallel: the agent that gets all results.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", metavar="FILE|JSON", help="Instead of agents: a plan of any kind, in JSON or YAML, or as JSON itself."
        ),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME[@VERSION]", help="Instead of agents: a workflow by its name.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON|@FILE", help="A JSON object that is kept with the run.")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="The project of the run.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same start with the same key starts one run.")
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="ATTEMPTS[:FIRST_S[:LONGEST_S]]", help="Attempts of each agent, and the pauses between."),
    ] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Time for each agent.")] = None,
    on_failure: Annotated[
        OnFailure | None,
        typer.Option("--on-failure", help="Whether the run ends when an agent fails, or goes on without the agent."),
    ] = None,
    priority: Annotated[
        Priority | None, typer.Option("--priority", help="Whose work goes first where work waits for workers; normal if not given.")
    ] = None,
    compensate: Annotated[
        Compensate | None,
        typer.Option("--compensate", help="When the effects of the run are taken back, the last one first; never if not given."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="Time for the whole run, such as 10m; it fails when that is over."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="LIMITS", help=f"What the run may spend, with its child runs, as {FORM}."),
    ] = None,
    on_spent: Annotated[
        OnSpent | None,
        typer.Option("--on-spent", help="What follows when the budget is spent: stop (if not given), degrade or ask."),
    ] = None,
    concurrency_key: Annotated[
        str | None,
        typer.Option("--concurrency-key", metavar="KEY", help="Of the runs with this key, one goes on at a time."),
    ] = None,
    on_busy: Annotated[
        OnBusy | None,
        typer.Option("--on-busy", help="While another run holds the key: queue (if not given), reject, or replace that run."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the run until it has ended; exit code 1 if not completed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the run's id and nothing else, for scripts.")] = False,
    on_behalf_of: options.OnBehalfOf = None,
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

      tidelog runs start writer --retry 5:1:60 --timeout 600 --metadata '{"ticket": "T-1"}'

      tidelog runs start --plan plan.yaml --idempotency-key nightly-2026-11-28

      tidelog runs start --workflow digest@3 --input '{"text": "tides"}'

      tidelog runs start writer --on-behalf-of user:ada@example.org

      tidelog runs start shop --input @order.json --compensate on_failure --deadline 10m

      tidelog runs start deploy --concurrency-key production --on-busy replace

      tidelog runs start researcher --budget 0.01usd,calls=10 --wait

      RUN=$(tidelog runs start writer --quiet)
    """
    if quiet and (wait or as_json):
        output.fail("--quiet goes without --wait and --json", output.WRONG_USAGE)
    given = StartOptions(
        tuple(agents or ()), parallel, aggregator, plan, input_, metadata, project, retry, timeout_s, on_failure, priority,
        compensate, workflow, deadline, budget, on_spent, concurrency_key, on_busy,
    )  # fmt: skip
    output.run(_start(given, idempotency_key, wait, quiet, on_behalf_of, folders, workspace, data_dir, url, as_json))


async def _start(
    given: StartOptions, key: str | None, wait: bool, quiet: bool, on_behalf_of: str | None, folders: list[Path] | None,
    workspace: Path | None, data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from uuid_utils.compat import uuid7

    from api.cli import connection
    from api.cli.up import check_folders
    from api.settings import load_settings

    body = body_of(given)
    if key is None:
        body["run_id"] = str(uuid7())  # with a key the repeat must have the same body
    else:
        check_key(key)
    settings = load_settings(
        data_dir=data_dir, url=url, agents=tuple(folders) if folders else None, workspace=workspace, on_behalf_of=on_behalf_of
    )  # fmt: skip
    check_folders(settings)
    async with connection.server(settings, worker=True, quiet=as_json or quiet, begins=True) as server:
        if server.temporary and wait and settings.agents:
            await connection.wait_for_agents(server, agents_of(await _plan_of(server, body)))
        started: dict[str, Any] = await server.post("/v1/runs", body, key=key)
        if wait:
            await to_the_end(server, started["run_id"], as_json)
        elif as_json:
            output.document(started)
        else:
            id = started["run_id"]
            output.say(id if quiet else f"Started run {id}\n  {output.program()} runs watch {id}")
            if server.temporary:
                output.note("No server runs any more, so the run waits: it goes on with the next `tidelog up --agents FOLDER`.")


async def _plan_of(server: "ServerClient", body: dict[str, Any]) -> dict[str, Any]:
    """The plan that a run will have. Empty for a workflow that is not there: the start says so."""
    from tidelog.errors import NotFoundError

    if "workflow" not in body:
        plan: dict[str, Any] = body["plan"]
        return plan
    name, version = body["workflow"]["name"], body["workflow"].get("version")
    try:
        asked = server.client.workflow(name) if version is None else server.client.workflow_version(name, version)
        definition = (await asked).definition
    except NotFoundError:
        return {}
    return dict(definition["plan"]) if isinstance(definition, dict) else {}


async def to_the_end(server: "ServerClient", run_id: str, as_json: bool, traceback: bool = False) -> None:
    from api.cli import failures
    from api.cli.watching import outcome, warnings, watch

    if server.temporary and server.running is not None and not server.running.agents:
        output.note(
            "No worker runs on this server, which was started for this command: a run that is not over waits. Ctrl-C ends it."
        )
    position = await watch(server, run_id, as_json=as_json, traceback=traceback)
    run: dict[str, Any] = await server.get(f"/v1/runs/{run_id}", at_least=position)
    if not as_json:
        _show_outcome(run)
    for warning in warnings(run):
        output.note(f"warning: {warning}")
    if run["status"] != "completed":
        if not traceback and any(step["error"] and failures.has_more(step["error"]) for step in run["steps"]):
            output.note(f"For the tracebacks: {output.program()} runs show {run_id} --traceback")
        raise output.CommandFailed(f"the run ended {outcome(run)}")


def _show_outcome(run: dict[str, Any]) -> None:
    from rich.json import JSON

    from api.cli.large_values import command_of, left_out

    large = left_out(run, "result", command_of(run["run_id"]))
    if run["status"] == "completed" and (large is not None or run["result"] is not None):
        console = output.console()
        console.print("\n[bold]Result[/bold]")
        console.print(output.escape(large) if large is not None else JSON.from_data(run["result"]), soft_wrap=large is not None)


@app.command("list")
def list_runs(
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            help="Only runs with this status: queued, running, paused, completed, failed, cancelled; or degraded (in part).",
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only runs with a step of this agent.")] = None,
    since: options.Since = None,
    until: options.Until = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only runs that this one started: key: and the id of a key.")] = None,
    on_behalf_of: Annotated[
        str | None, typer.Option("--on-behalf-of", metavar="WHO", help="Only runs that were started on behalf of this one.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="NAME=VALUE", help="Only runs whose metadata have this value; repeatable."),
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", metavar="WORDS", help="Only runs that have these words in their errors.")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="Only runs of this project.")] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME[@VERSION]", help="Only runs of this workflow.")
    ] = None,
    parent: Annotated[str | None, typer.Option("--parent", metavar="ID", help="Only runs that steps of this run started.")] = None,
    origin: Annotated[
        str | None, typer.Option("--origin", metavar="KIND[:NAME]", help="Only runs that this started, such as schedule:nightly.")
    ] = None,
    concurrency_key: Annotated[
        str | None, typer.Option("--concurrency-key", metavar="KEY", help="Only runs with this key.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    details: Annotated[
        bool, typer.Option("--details", help="Each run with its steps and calls, as runs show --full shows it.")
    ] = False,
    at: options.At = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List runs, newest first. With several filters: the runs for which all of them hold. --since and --until: when runs started.

    Example:

      tidelog runs list --status failed

      tidelog runs list --status running --at 2026-01-31T12:00:00Z

      tidelog runs list --agent researcher --since 2026-01-30 --until 2026-01-31 --details

      tidelog runs list --metadata ticket=T-1 --error "connection refused"

      tidelog runs list --workflow review@2 --origin schedule:nightly
    """
    wanted = {
        "status": status, "agent": agent, "started_after": since, "started_before": until, "actor": actor,
        "on_behalf_of": on_behalf_of, "metadata": metadata or None, "error": error, "project_id": project,
        "workflow": workflow, "parent": parent, "origin": origin, "concurrency_key": concurrency_key, "as_of": at,
    }  # fmt: skip
    output.run(_list(wanted, limit, details, data_dir, url, as_json))


def _checked(wanted: dict[str, Any]) -> dict[str, Any]:
    """The filters as the server takes them. Raises CommandFailed."""
    if unnamed := [given for given in wanted.get("metadata") or [] if "=" not in given]:
        raise output.CommandFailed(output.one_line(f"--metadata: '{unnamed[0]}' is not NAME=VALUE"), output.WRONG_USAGE)
    times = {"started_after": "--since", "started_before": "--until"}
    return wanted | {name: options.time_of(option, wanted.get(name)) for name, option in times.items()}


async def _list(wanted: dict[str, Any], limit: int, details: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    wanted = _checked(wanted)
    above = None if wanted.get("parent") is None else GivenId.parse(wanted["parent"])
    async with server_of(data_dir, url, as_json) as server:
        if above is not None:
            wanted = wanted | {"parent": await above.complete(server)}
        found = [run async for run in server.pages("/v1/runs", wanted, limit=limit)]
        others = [run async for run in server.pages("/v1/runs", limit=1)] if any(wanted.values()) and not found else []
        if details and found:
            await _show_each(server, [run["run_id"] for run in found], as_json)
            return
    if as_json:
        output.document(found)
        return
    if others:
        status, at = wanted["status"], wanted["as_of"]
        if any(value for name, value in wanted.items() if name not in ("status", "as_of")):
            output.say("No run fits all filters.")
        else:
            output.say(f"No run {'was' if at else 'is'} {status or 'there'}{f' at {at}' if at else ''}.")
        return
    if not found:
        output.say("No runs yet. Start one with: tidelog runs start AGENT, or see one with: tidelog demo")
        return
    show_list(found)


def show_list(found: list[dict[str, Any]]) -> None:
    for_some = any(run.get("on_behalf_of") for run in found)
    of_some = any(run.get("workflow") or run.get("origin") for run in found)
    more = (*(("Of",) if of_some else ()), *(("For",) if for_some else ()))
    table = output.table("Run", "Status", "Agents", "Started", "Events", *more)
    for run in found:
        started, agents = run["created_at"][:19].replace("T", " "), output.shortened(", ".join(run["agents"]), 60)
        told = [_of(run)] if of_some else []
        told += [output.shortened(run.get("on_behalf_of") or "", 40)] if for_some else []
        shown = (run["run_id"], phrases.run_status(run), output.escape(agents), started, str(run["event_count"]))
        table.add_row(*shown, *map(output.escape, told))
    output.console().print(table)


def _of(run: dict[str, Any]) -> str:
    """The workflow of a run, and what started it."""
    of, origin = run.get("workflow"), run.get("origin")
    told = [f"{of['name']}@{of['version']}" if of else "", f"{origin['kind']}:{origin['name']}" if origin else ""]
    return output.shortened(", ".join(filter(None, told)), 60)


async def _show_each(server: "ServerClient", run_ids: list[str], as_json: bool) -> None:
    from api.cli import large_values, run_calls, run_view

    shown = []
    for run_id in run_ids:
        run: dict[str, Any] = await server.get(f"/v1/runs/{run_id}")
        await large_values.fill(server, run)
        if as_json:
            shown.append(run)
        else:
            run_view.show(run, await run_calls.values_of(server, run, full=True), full=True)
            _show_outcome(run)
            output.say("")
    if as_json:
        output.document(shown)


@app.command()
def show(
    run_id: RunId,
    full: Annotated[bool, typer.Option("--full", help="All calls and recorded steps, with values that are not cut.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="The steps with the runs that they started, and theirs.")] = False,
    traceback: options.Traceback = False,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a run: its steps, their calls with arguments and results, its failures, and the result.

    Examples:

      tidelog runs show 0198c0de-…

      tidelog runs show 0198c0de-… --full --traceback

      tidelog runs show 0198c0de-… --tree
    """
    if tree and (full or traceback or as_json):
        output.fail("--tree goes without --full, --traceback and --json", output.WRONG_USAGE)
    if tree:
        output.run(_show_tree(run_id, data_dir, url))
        return
    output.run(_show(run_id, full, traceback, data_dir, url, as_json))


async def _show(run_id: str, full: bool, traceback: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import budgets, large_values, run_calls, run_view

    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, as_json) as server:
        run: dict[str, Any] = await server.get(f"/v1/runs/{await given.complete(server)}")
        if full:
            await large_values.fill(server, run)
        values = None if as_json else await run_calls.values_of(server, run, full=full)
        budget = None if as_json else await budgets.of_run(server, run["run_id"])
    if as_json:
        output.document(run)
    else:
        run_view.show(run, values, full=full, traceback=traceback, budget=budget)
        _show_outcome(run)


async def _show_tree(run_id: str, data_dir: Path | None, url: str | None) -> None:
    from api.cli.run_tree import Tree

    given = GivenId.parse(run_id)
    async with server_of(data_dir, url) as server:
        await Tree(server).show(await server.get(f"/v1/runs/{await given.complete(server)}"))


@app.command()
def watch(
    run_id: RunId,
    traceback: options.Traceback = False,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a run live, from its beginning to its end. Exit code 1 if it did not complete.

    Example:

      tidelog runs watch 0198c0de-…
    """
    output.run(_watch(run_id, traceback, data_dir, url, as_json))


async def _watch(run_id: str, traceback: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    given = GivenId.parse(run_id)
    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, worker=True, quiet=as_json) as server:
        await to_the_end(server, await given.complete(server), as_json, traceback)


@app.command()
@options.with_fields
def cancel(
    run_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The run's id, or its beginning.")] = None,
    many: bulk.Many = bulk.ONE,
    reason: Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")] = None,
    compensate: Annotated[
        bool | None,
        typer.Option(
            "--compensate/--no-compensate", help="Whether the effects of the run are taken back; if not given, as its start said."
        ),
    ] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel a run, or many: running work is stopped, waiting work is dropped.

    Examples:

      tidelog runs cancel 0198c0de-… --reason "wrong input"

      tidelog runs cancel --where schedule=nightly --where status=running --reason "wrong input"
    """
    if many.meant(run_id):
        more = {} if compensate is None else {"compensate": compensate}
        output.run(bulk.act("cancel", many, reason, more, on_behalf_of, data_dir, url, as_json))
        return
    output.run(_cancel(str(run_id), reason, compensate, on_behalf_of, data_dir, url, as_json))


async def _cancel(
    run_id: str, reason: str | None, compensate: bool | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    from tidelog.values import to_json

    given = GivenId.parse(run_id)
    body: dict[str, Any] = {"reason": to_json(reason, "--reason")} if reason else {}
    if compensate is not None:
        body["compensate"] = compensate
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        before = await _status(server, wanted)
        accepted: dict[str, Any] = await server.post(f"/v1/runs/{wanted}/cancel", body)
    if as_json:
        output.document(accepted)
    else:
        output.say(f"Run {wanted} was cancelled before" if before == "cancelled" else f"Cancelled run {wanted}")


async def _status(server: "ServerClient", run_id: str) -> str | None:
    """The status of the run. None if the server does not show the run yet."""
    from tidelog.errors import NotFoundError

    try:
        run: dict[str, Any] = await server.get(f"/v1/runs/{run_id}")
    except NotFoundError:
        return None
    return str(run["status"])
