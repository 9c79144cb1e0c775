"""`tidelog bulk`, and the options by which commands for one run are given to many: what is meant, a dry run, the progress."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from api.cli import options, output
from api.cli.ids import GivenId, IdOf
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="Commands for many runs at once, and how far each has come.", no_args_is_help=True)
BULK = IdOf("bulk_action", "a bulk action", "bulk list")
BulkId = Annotated[str, typer.Argument(metavar="ID", help="The bulk action's id, or its beginning.")]
OPEN = ("selecting", "acting")
POLL_S = 0.3
NAMES = {
    "agent": "agent", "workflow": "workflow", "status": "status", "project": "project_id", "actor": "actor", "for": "on_behalf_of",
    "error": "error", "since": "started_after", "until": "started_before", "parent": "parent", "origin": "origin",
    "unmoved": "unmoved_s",
}  # fmt: skip
"""What `--where` names, and the filter of the server."""
STARTERS = ("schedule", "trigger")
DONE = {
    "pause": "Paused", "resume": "Resumed", "cancel": "Cancelled", "retry": "Retried", "signal": "Signalled",
    "priority": "Changed the priority of",
}  # fmt: skip


class Many(NamedTuple):
    """The options by which a command for one run is given to all that a filter finds."""

    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="NAME=VALUE",
            help="Instead of an id: all runs of which this holds; repeatable. agent, workflow, status, project, actor, for, error, "
            "since, until, parent, origin, schedule, trigger, unmoved (10m), metadata.NAME.",
        ),
    ] = None  # fmt: skip
    every: Annotated[bool, typer.Option("--all", help="Instead of an id: all runs on which it can have an effect.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --where: only tell how many runs are meant.")] = False
    yes: Annotated[bool, typer.Option("--yes", help="With --where: do not ask.")] = False
    detach: Annotated[bool, typer.Option("--detach", help="With --where: do not wait for its end.")] = False

    def meant(self, run_id: str | None) -> bool:
        """Whether many runs are meant. Raises BadParameter unless it is either one run or many."""
        many = bool(self.where) or self.every
        if many and run_id is not None:
            raise typer.BadParameter("give either the ID of a run, or --where or --all")
        if not many and run_id is None:
            raise typer.BadParameter("give the ID of a run, or --where NAME=VALUE for several, or --all")
        if not many and (self.dry_run or self.yes or self.detach):
            raise typer.BadParameter("--dry-run, --yes and --detach go with --where or --all")
        return many


ONE = Many()


def filter_of(where: list[str] | None) -> dict[str, Any]:
    """The filter as the server takes it. Raises CommandFailed."""
    found: dict[str, Any] = {}
    for given in where or []:
        name, equals, value = given.partition("=")
        if not equals or not value:
            raise _wrong(f"'{given}' is not NAME=VALUE")
        if name.startswith("metadata.") and len(name) > len("metadata."):
            found.setdefault("metadata", {})[name.removeprefix("metadata.")] = value
            continue
        if name in STARTERS:
            name, value = "origin", f"{name}:{value}"
        if name not in NAMES:
            raise _wrong(f"there is no '{name}'; there are {', '.join((*NAMES, *STARTERS, 'metadata.NAME'))}")
        field = NAMES[name]
        if field == "status":
            found.setdefault("status", []).append(value)
        elif field in found:
            raise _wrong(f"{name} is given twice")
        else:
            found[field] = _value(name, value)
    return found


def _value(name: str, value: str) -> Any:
    if name in ("since", "until"):
        return options.time_of(f"--where {name}", value)
    if name == "unmoved":
        return options.seconds_of("--where unmoved", value)
    return value


def _wrong(text: str) -> output.CommandFailed:
    return output.CommandFailed(output.one_line(f"--where: {text}"), output.WRONG_USAGE)


async def act(
    verb: str, many: Many, reason: str | None, more: Mapping[str, Any], on_behalf_of: str | None, data_dir: Path | None,
    url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Gives a command to many runs. `more`: what else each run is told."""
    from uuid_utils.compat import uuid7

    from tidelog.values import to_json

    filter_: dict[str, Any] = filter_of(many.where)
    to_json(filter_, "--where")  # refuses what is no text
    body: dict[str, Any] = {"action": verb, "filter": filter_, **more} | ({"all": True} if many.every else {})
    if reason is not None:
        body["reason"] = to_json(reason, "--reason")
    elif not many.dry_run:
        raise output.CommandFailed("give --reason: it is recorded with each of the runs", output.WRONG_USAGE)
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        if isinstance(above := filter_.get("parent"), str):
            body["filter"] = filter_ | {"parent": await GivenId.parse(above).complete(server)}
        if many.dry_run or not many.yes:
            found: dict[str, Any] = await server.post("/v1/bulk-actions", body | {"dry_run": True})
            if many.dry_run:
                _tell(found, as_json)
                return
            if not _confirmed(verb, found, as_json):
                return
        started: dict[str, Any] = await server.post("/v1/bulk-actions", body, key=str(uuid7()))
        id = output.one_line(started["id"])
        if many.detach:
            if as_json:
                output.document(started)
            else:
                output.say(f"Bulk action {id}\n  {output.program()} bulk show {id}")
            return
        shown = await follow(server, id, started["position"], quiet=as_json)
    if as_json:
        output.document(shown)
    else:
        tell(shown)
    if shown["status"] != "completed":
        raise output.CommandFailed(output.one_line(f"the bulk action is {shown['status']}"))


def _tell(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.document(found)
        return
    output.say(f"The command would go to {_count(found)}.")
    for run_id in found["runs"]:
        output.say(output.one_line(run_id, before="  "))
    if found["matched"] > len(found["runs"]):
        output.say(f"  … and {found['matched'] - len(found['runs']):,} more")


def _count(found: Mapping[str, Any]) -> str:
    number = found["matched"]
    return f"{'' if found['complete'] else 'at least '}{number:,} {'run' if number == 1 else 'runs'}"


def _confirmed(verb: str, found: Mapping[str, Any], as_json: bool) -> bool:
    if not found["matched"] and found["complete"]:
        if as_json:
            output.document(found)
        else:
            output.say("No run is meant.")
        return False
    if as_json or not sys.stdin.isatty():
        raise output.CommandFailed(f"the command would go to {_count(found)}: give --yes", output.WRONG_USAGE)
    return typer.confirm(f"{verb.capitalize()} {_count(found)}?", err=True)


async def follow(server: "ServerClient", id: str, position: int, *, quiet: bool) -> dict[str, Any]:
    """The bulk action at its end. Shows a bar on a terminal meanwhile. Ctrl-C leaves it to the server, and says so."""
    from rich.progress import BarColumn, Progress, TextColumn

    console = output.console()
    columns = (TextColumn("{task.fields[line]}"), BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f}"))
    try:
        with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
            bar = progress.add_task("", total=0, line="finding runs")
            while True:
                shown: dict[str, Any] = await server.get(f"/v1/bulk-actions/{id}", at_least=position)
                if shown["status"] not in OPEN:
                    return shown
                line = "finding runs" if shown["status"] == "selecting" else output.escape(shown["action"])
                progress.update(bar, completed=shown["handled"], total=shown["matched"], line=line)
                await asyncio.sleep(POLL_S)
    except asyncio.CancelledError:
        name = output.program()
        output.note(f"\nThe bulk action goes on.\n  {name} bulk show {id}\n  {name} bulk cancel {id}")
        raise


def tell(shown: Mapping[str, Any]) -> None:
    """What came of a bulk action, for people."""
    output.say(
        output.one_line(f"{shown['done']:,} of {shown['matched']:,} runs", before=f"{DONE.get(shown['action'], 'Told')} ")
        + (f"; so already: {shown['unchanged']:,}" if shown["unchanged"] else "")
    )
    for refused in shown["refused"]:
        output.say(output.one_line(f"{refused['count']:,} refused: {refused['code']}", before="  "))
        for one in shown["examples"]:
            if one["code"] == refused["code"]:
                output.say(output.one_line(f"{one['run_id']}: {output.shortened(one['message'], 160)}", before="    "))


@app.command("list")
def list_bulk(
    status: Annotated[
        str | None, typer.Option("--status", help="Only those: selecting, acting, completed, cancelled, failed.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List bulk actions, newest first.

    Example:

      tidelog bulk list --status acting
    """
    output.run(_list(status, limit, data_dir, url, as_json))


async def _list(status: str | None, limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [one async for one in server.pages("/v1/bulk-actions", {"status": status}, limit=limit)]
    if as_json:
        output.document(found)
        return
    if not found:
        output.say("No bulk actions. Begin one with: tidelog runs pause --where NAME=VALUE --reason …")
        return
    table = output.table("Bulk action", "Command", "Status", "Runs", "Started", "Why")
    for one in found:
        table.add_row(
            output.escape(one["id"]), output.escape(one["action"]), output.status(one["status"]),
            f"{one['handled']:,} of {one['matched']:,}", output.escape(one["started_at"][:19].replace("T", " ")),
            output.escape(output.shortened(one["reason"] or "", 60)),
        )  # fmt: skip
    output.console().print(table)


@app.command()
def show(
    id: BulkId,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a bulk action: what each run is told, which runs are meant, how far it has come, and who refused.

    Example:

      tidelog bulk show 0198c0de-… --wait
    """
    output.run(_show(id, wait, data_dir, url, as_json))


async def _show(id: str, wait: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    given = GivenId.parse(id, BULK)
    async with server_of(data_dir, url, as_json) as server:
        wanted = await given.complete(server)
        if wait:
            shown = await follow(server, wanted, 0, quiet=as_json)
        else:
            shown = await server.get(f"/v1/bulk-actions/{wanted}")
    if as_json:
        output.document(shown)
        return
    output.console().print(
        f"[bold]{output.escape(shown['id'])}[/bold]  {output.escape(shown['action'])}  {output.status(shown['status'])}",
        soft_wrap=True,
    )
    who = f"{shown['by']}{' for ' + shown['on_behalf_of'] if shown.get('on_behalf_of') else ''}"
    output.say(output.one_line(f"by {who}, {shown['started_at']}: {shown['reason'] or 'no reason'}", before="  "))
    output.say(output.one_line(f"runs: {output.gist(shown['filter'], 200) or 'all'}", before="  "))
    if shown["options"]:
        output.say(output.one_line(output.gist(shown["options"], 200), before="  "))
    output.say(f"  {shown['handled']:,} of {shown['matched']:,} runs have had their turn")
    if shown.get("error"):
        output.say(output.one_line(shown["error"], before="  "))
    if shown.get("cancelled_by"):
        output.say(output.one_line(f"ended by {shown['cancelled_by']}: {shown.get('cancel_reason') or 'no reason'}", before="  "))
    tell(shown)


@app.command()
def cancel(
    id: BulkId,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """End a bulk action: runs that have not had their turn are left alone. What the others were told stays.

    Example:

      tidelog bulk cancel 0198c0de-… --reason "the wrong agent"
    """
    output.run(_cancel(id, reason, on_behalf_of, data_dir, url, as_json))


async def _cancel(
    id: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from tidelog.values import to_json

    given = GivenId.parse(id, BULK)
    body: dict[str, Any] = {} if reason is None else {"reason": to_json(reason, "--reason")}
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        accepted: dict[str, Any] = await server.post(f"/v1/bulk-actions/{wanted}/cancel", body)
    if as_json:
        output.document(accepted)
    else:
        output.say(f"Ended bulk action {wanted}")
