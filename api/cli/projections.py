"""`tidelog projections`: rebuilds of read models while they serve, and their parked events."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

POLL_S = 0.25
OPEN = ("requested", "building", "comparing", "ready")

app = typer.Typer(help="Read models: rebuild, roll back, parked events.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The read model's name, see: tidelog projections list.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Show progress until the end. The job continues after an interrupt.")]
Swap = Annotated[bool, typer.Option("--swap/--no-swap", help="Let the version go live as soon as it is ready.")]


@app.command("list")
def list_projections(data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """List read models: their positions, their parked events, their rebuilds and checks.

    Example:

      tidelog projections list
    """
    output.run(_list(data_dir, url, as_json))


@app.command()
def rebuild(
    name: Name,
    swap: Swap = True,
    wait: Wait = True,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Build a new version of a read model from the log, while the old version serves, and swap the two.

    Examples:

      tidelog projections rebuild runs

      tidelog projections rebuild runs --no-swap
    """
    output.run(_job(name, "rebuild", {"swap": swap}, wait, reason, data_dir, url, as_json))


@app.command()
def rollback(
    name: Name,
    swap: Swap = True,
    wait: Wait = True,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring back the version that was live before the last swap, after it has caught up.

    Example:

      tidelog projections rollback runs
    """
    output.run(_job(name, "rollback", {"swap": swap}, wait, reason, data_dir, url, as_json))


@app.command()
def swap(
    name: Name,
    wait: Wait = True,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Let a ready version go live.

    Example:

      tidelog projections swap runs
    """
    output.run(_job(name, "swap", {}, wait, reason, data_dir, url, as_json))


@app.command()
def cancel(
    name: Name,
    check: Annotated[bool, typer.Option("--check", help="Cancel a verification instead of a rebuild or rollback.")] = False,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel a rebuild or a rollback and drop the tables that it has built.

    Example:

      tidelog projections cancel runs
    """
    output.run(_job(name, "cancel", {"purpose": "check" if check else "version"}, False, reason, data_dir, url, as_json))


@app.command()
def drop(
    name: Name,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Drop the version that was kept for a rollback.

    Example:

      tidelog projections drop runs
    """
    output.run(_drop(name, reason, data_dir, url, as_json))


@app.command()
def parked(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A read model, sagas, or due-timers.  \\[default: all]")
    ] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List parked events: events that a handler could not handle, and events that wait behind them.

    Examples:

      tidelog projections parked

      tidelog projections parked runs --json
    """
    output.run(_parked(name, data_dir, url, as_json))


@app.command()
def retry(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A read model, sagas, or due-timers.")],
    root: Annotated[str | None, typer.Option("--root", metavar="ID", help="Only the events of this root (a run's id).")] = None,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Try parked events again, root by root and in order. Exit code 1 if some fail again.

    Examples:

      tidelog projections retry runs

      tidelog projections retry sagas --root 0198c0de-…
    """
    output.run(_retry(name, root, reason, data_dir, url, as_json))


# --- the work ---------------------------------------------------------------------------------------------------------


async def _list(data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found: dict[str, Any] = await server.get("/v1/projections")
    if as_json:
        output.document(found)
        return
    table = output.table("Projection", "Position", "Lag", "Parked", "Job", "Kept", "From")
    for view in found["data"]:
        job = max((j for j in (view["build"], view["check"]) if j), key=lambda j: j["updated_at"], default=None)
        kept = view["previous"]
        table.add_row(
            f"[bold]{output.escape(view['name'])}[/bold]", str(view["position"]), str(view["lag"]), str(view["parked"] or ""),
            output.escape(job_line(job)) if job else "", f"as of {kept['position']}" if kept else "",
            output.escape(view["plugin"] or ""),
        )  # fmt: skip
    output.console().print(table)
    for problem in found["problems"]:
        output.note(output.one_line(f"plug-in {problem['entry_point']} ({problem['distribution']}) is broken: {problem['error']}"))


def job_line(job: dict[str, Any]) -> str:
    """One line of plain text: the job, its progress and its remaining time."""
    parts = [f"{job['kind']} {job['status']}"]
    if job["status"] in ("requested", "building"):
        parts.append(f"{job['progress']:.0%}")
        if job["rate"]:
            parts.append(f"{job['rate']:,.0f} events/s")
        if job["eta_s"] is not None:
            parts.append(f"{output.duration(job['eta_s'])} left")
    if job["status"] == "comparing":
        parts.append(f"{job['rows']:,} rows")
    if job["error"]:
        parts.append(output.shortened(job["error"], 200))
    return ", ".join(parts)


async def _job(
    name: str,
    verb: str,
    body: dict[str, Any],
    wait: bool,
    reason: str | None,
    data_dir: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    async with server_of(data_dir, url, as_json) as server:
        view: dict[str, Any] = await server.post(f"/v1/projections/{name}/{verb}", body, reason=reason)
        if wait:
            view = await follow(server, name, "build", until_ready=body.get("swap") is False, quiet=as_json)
    job = view["check" if body.get("purpose") == "check" else "build"]
    if as_json:
        output.document(view)
    elif job is not None:
        output.say(f"{name}: {job_line(job)}")
    if job is not None and (job["status"] == "failed" or (wait and job["error"])):
        raise output.CommandFailed(f"{name}: {output.one_line(job['error'])}")


async def follow(server: "ServerClient", name: str, field: str, *, until_ready: bool, quiet: bool) -> dict[str, Any]:
    """The projection at the end of its job.

    Shows a bar on a terminal meanwhile. The job of a version that is held back has ended, too.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    console = output.console()
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.fields[line]}"))
    shown = console.is_terminal and not quiet
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        bar = progress.add_task(name, total=1.0, name=name, line="")
        while True:
            view: dict[str, Any] = await server.get(f"/v1/projections/{name}")
            job = view[field]
            if job is None or job["status"] not in OPEN:
                return view
            if job["status"] == "ready" and (until_ready or not job["swap"]):
                return view
            progress.update(bar, completed=job["progress"], line=job_line(job))
            await asyncio.sleep(POLL_S)


async def _drop(name: str, reason: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from tidelog.audit import reason_header
    from tidelog.transport import json_of

    async with server_of(data_dir, url, as_json) as server:
        response = await server.transport.request("DELETE", f"/v1/projections/{name}/previous", headers=reason_header(reason))
        view = json_of(response)
    if as_json:
        output.document(view)
    else:
        output.say(f"{name}: the version that was kept is dropped")


async def _parked(name: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        names = [name] if name else [v["name"] for v in (await server.get("/v1/projections"))["data"]]
        names += [] if name else ["sagas", "due-timers"]
        found = [{"projection": n, **e} for n in names async for e in server.pages(f"/v1/projections/{n}/parked")]
    if as_json:
        output.document(found)
        return
    if not found:
        output.say("No events are parked.")
        return
    table = output.table("Projection", "Position", "Type", "Root", "Since", "Why")
    for event in found:
        table.add_row(
            output.escape(event["projection"]), str(event["position"]), output.escape(event["topic"]), event["root_id"],
            event["since"][:19].replace("T", " "), output.escape(output.shortened(event["error"], 160)),
        )  # fmt: skip
    output.console().print(table)


async def _retry(name: str, root: str | None, reason: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    body = {"root_id": output.uuid_of(root)} if root else {}
    async with server_of(data_dir, url, as_json) as server:
        answered: dict[str, Any] = await server.post(f"/v1/projections/{name}/retry", body, reason=reason)
    broken = [result for result in answered["data"] if result["error"]]
    if as_json:
        output.document(answered)
    else:
        done = [result for result in answered["data"] if not result["error"]]
        output.say(f"{name}: {sum(r['events'] for r in done)} events of {len(done)} roots handled")
        for result in broken:
            output.note(f"{result['root_id']}: {output.shortened(result['error'], 200)}")
        if answered["more"]:
            output.note("There are more: give the command again.")
    if broken:
        raise output.CommandFailed(f"{len(broken)} roots stay parked")
