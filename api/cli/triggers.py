"""`tidelog triggers`: what starts when something happens."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import definitions, options, output, written_plans
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="Triggers: what starts when something happens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The trigger's name.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="The definition: YAML or JSON; - for stdin.")]


@app.callback()
def triggers() -> None:
    """Runs and calls that start when something happens."""


@app.command("list")
@options.with_fields
def list_triggers(
    status: Annotated[str | None, typer.Option("--status", metavar="active|paused", help="Only these.")] = None,
    where: options.Where = options.HERE,
) -> None:
    """List the triggers.

    Example:

      tidelog triggers list --status paused
    """
    if status not in (None, "active", "paused"):
        output.fail("--status is active or paused", output.WRONG_USAGE)
    output.run(_list(status, where))


async def _list(status: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        found = [trigger async for trigger in server.pages("/v1/triggers", {"status": status})]
    if where.as_json:
        output.document(found)
        return
    if not found:
        output.say("No triggers. Create one with tidelog triggers create FILE")
        return
    table = output.table("Trigger", "Status", "When", "Starts", "Fired", "Misfired", "Over its limit")
    for one in found:
        table.add_row(
            f"[bold]{output.escape(one['name'])}[/bold]", _status(one), output.escape(_source(one)), output.escape(_target(one)),
            str(one["fired"]), str(one["misfired"]), str(one["limited"]),
        )  # fmt: skip
    output.console().print(table)


def _status(trigger: Mapping[str, Any]) -> str:
    colour = {"active": "green", "paused": "yellow"}.get(trigger["status"], "white")
    return f"[{colour}]{output.escape(trigger['status'])}[/{colour}]"


def _source(trigger: Mapping[str, Any]) -> str:
    on, hook = trigger.get("on"), trigger.get("hook")
    if isinstance(hook, Mapping):
        return output.shortened(f"webhook ({hook.get('scheme')})", 60)
    if not isinstance(on, Mapping):
        return ""
    return output.shortened(", ".join(map(str, [*(on.get("topics") or ()), *(on.get("slices") or ())])), 60)


def _target(trigger: Mapping[str, Any]) -> str:
    start = trigger.get("start")
    if not isinstance(start, Mapping):
        return ""
    if signal := start.get("signal"):
        return output.shortened(f"signal {signal['name']}", 60)
    kind = next((kind for kind in ("workflow", "agent", "tool") if start.get(kind)), "plan")
    return output.shortened(f"{kind} {start[kind]}" if kind != "plan" else "a plan", 60)


@app.command()
@options.with_fields
def show(name: Name, where: options.Where = options.HERE) -> None:
    """Show a trigger: what it is about, what it starts, what has come of it, and why it is paused.

    Example:

      tidelog triggers show review.failures
    """
    output.run(_show(name, where))


async def _show(name: str, where: options.Where) -> None:
    async with server_of(*where) as server:
        found = (await server.client.triggers.get(name)).model_dump(mode="json")
    if where.as_json:
        output.document(found)
        return
    console = output.console()
    console.print(f"[bold]Trigger {output.escape(found['name'])}[/bold]  {_status(found)}")
    head = {
        "what": found["description"],
        "paused": ": ".join(filter(None, (found["because"], found["reason"]))),
        "project": found["project_id"],
        "webhook": found["hook_path"] or "",
        "limit": f"{found['max_per_minute']} a minute, {found['max_depth']} triggers deep",
        "fired": f"{found['fired']}" + (f", last at {found['fired_at']}" if found["fired_at"] else ""),
        "misfired": f"{found['misfired']}" + (f", last: {found['last_error']}" if found["last_error"] else ""),
        "over its limit": str(found["limited"]),
    }
    for label, value in head.items():
        if value:
            console.print(f"  [dim]{label:<16}[/dim]{output.escape(output.shortened(value, 500))}")
    for title, part in (("On", found["on"]), ("Webhook", found["hook"]), ("Starts", found["start"])):
        definitions.show_value(title, part)


@app.command()
@options.with_fields
def create(
    file: File,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its name, unless the file says it.")] = None,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Create a trigger. Of a webhook, the path and the secret are shown: the secret only now.

    Example:

      tidelog triggers create review-failures.yaml
    """
    output.run(_create(file, name, reason, where))


async def _create(file: str, name: str | None, reason: str | None, where: options.Where) -> None:
    definition = definition_in(file)
    named = definition.pop("name", None) if name is None else (definition.pop("name", None), name)[1]
    if not isinstance(named, str):
        output.fail("give the trigger a name: in the file, or with --name", output.WRONG_USAGE)
    async with server_of(*where) as server:
        made = await server.client.triggers.create(named, definition, reason=reason)
        url = server.url
    if where.as_json:
        output.document(made.model_dump(mode="json", include={"name", "hook_path", "secret"}))
        return
    output.say(f"Created the trigger {output.shortened(made.name, 100)}")
    if made.hook_path is not None:
        output.say(f"Deliveries go to {url}{output.shortened(made.hook_path, 200)}")
        output.say(f"Secret, shown only now: {output.shortened(made.secret or 'rotate it to get one', 200)}")


@app.command()
@options.with_fields
def change(name: Name, file: File, reason: options.Reason = None, where: options.Where = options.HERE) -> None:
    """Give a trigger another definition, as a whole. It counts from here on.

    Example:

      tidelog triggers change review.failures review-failures.yaml
    """
    output.run(_change(name, file, reason, where))


async def _change(name: str, file: str, reason: str | None, where: options.Where) -> None:
    definition = definition_in(file)
    if definition.pop("name", name) != name:
        output.fail("the file has the definition of another trigger", output.WRONG_USAGE)
    async with server_of(*where) as server:
        await server.client.triggers.change(name, definition, reason=reason)
    _done(where, name, "changed")


@app.command()
@options.with_fields
def pause(name: Name, reason: options.Reason = None, where: options.Where = options.HERE) -> None:
    """Pause a trigger. What happens meanwhile starts nothing, also not later.

    Example:

      tidelog triggers pause review.failures --reason "the reviewer is being changed"
    """
    output.run(_pause(name, reason, where))


async def _pause(name: str, reason: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        await server.client.triggers.pause(name, reason)
    _done(where, name, "paused")


@app.command()
@options.with_fields
def resume(name: Name, where: options.Where = options.HERE) -> None:
    """Resume a trigger.

    Example:

      tidelog triggers resume review.failures
    """
    output.run(_resume(name, where))


async def _resume(name: str, where: options.Where) -> None:
    async with server_of(*where) as server:
        await server.client.triggers.resume(name)
    _done(where, name, "active again")


@app.command()
@options.with_fields
def remove(name: Name, reason: options.Reason = None, where: options.Where = options.HERE) -> None:
    """Remove a trigger. What it has started goes on.

    Example:

      tidelog triggers remove review.failures
    """
    output.run(_remove(name, reason, where))


async def _remove(name: str, reason: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        await server.client.triggers.remove(name, reason=reason)
    _done(where, name, "removed")


def _done(where: options.Where, name: str, what: str) -> None:
    if where.as_json:
        output.document({"name": name})
    else:
        output.say(f"The trigger {name} is {what}")


@app.command()
@options.with_fields
def rotate(
    name: Name,
    overlap: Annotated[
        str,
        typer.Option("--overlap", metavar="DURATION", help="How long the secrets of before are valid: 30m, 24h, 7d; 0 for not."),
    ] = "24h",
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Make a new secret for the webhook of a trigger, and show it: only now.

    Example:

      tidelog triggers rotate on.push --overlap 1h
    """
    seconds = 0.0 if overlap == "0" else options.seconds_of("--overlap", overlap)
    output.run(_rotate(name, seconds, reason, where))


async def _rotate(name: str, overlap_s: float, reason: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        made = await server.client.triggers.rotate_secret(name, overlap_s=overlap_s, reason=reason)
    if where.as_json:
        output.document(made.model_dump(mode="json", include={"name", "hook_path", "secret"}))
    else:
        output.say(f"Secret, shown only now: {output.shortened(made.secret or '', 200)}")


@app.command()
@options.with_fields
def firings(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, the newest first.")] = 20,
    where: options.Where = options.HERE,
) -> None:
    """Show what has come of a trigger: what it started, misfires with their reasons, what was over its limit.

    Example:

      tidelog triggers firings review.failures -n 100
    """
    output.run(_firings(name, limit, where))


async def _firings(name: str, limit: int, where: options.Where) -> None:
    from urllib.parse import quote

    async with server_of(*where) as server:
        found = [firing async for firing in server.pages(f"/v1/triggers/{quote(name, safe='')}/firings", limit=limit)]
    if where.as_json:
        output.document(found)
        return
    if not found:
        output.say("Nothing has come of it yet.")
        return
    table = output.table("When", "What", "About", "Started")
    for one in found:
        table.add_row(
            output.escape(one["at"]), output.escape(one["kind"]), output.escape(one.get("event") or one.get("delivery") or ""),
            output.escape(output.shortened(_outcome(one), 120)),
        )  # fmt: skip
    output.console().print(table)


def _outcome(firing: Mapping[str, Any]) -> str:
    if firing.get("signal"):
        return f"signal {firing['signal']} to run {firing['run_id']}"
    if firing.get("run_id"):
        return f"run {firing['run_id']}"
    if firing.get("invocation_id"):
        return f"call {firing['invocation_id']}"
    if firing.get("count"):
        return f"nothing: {firing['count']} over its limit"
    return ": ".join(filter(None, (firing.get("code"), firing.get("error"))))


@app.command()
@options.with_fields
def test(
    file: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A definition, or the name of a trigger; - for stdin.")],
    since: Annotated[str, typer.Option("--since", metavar="DURATION|TIME", help="30m, 24h or 7d ago, or a day or time.")] = "7d",
    examples: Annotated[int, typer.Option("--examples", min=0, max=20, help="How many to show.")] = 5,
    where: options.Where = options.HERE,
) -> None:
    """Show what a trigger would have fired on in the past. The trigger need not exist. Nothing is started.

    Examples:

      tidelog triggers test review-failures.yaml --since 24h

      tidelog triggers test review.failures
    """
    given: dict[str, Any] = {"name": file}
    if file == "-" or "/" in file or Path(file).is_file():
        given = {"definition": {name: part for name, part in definition_in(file).items() if name != "name"}}
    output.run(_test(given, since, examples, where))


async def _test(given: Mapping[str, Any], since: str, examples: int, where: options.Where) -> None:
    given = {**given, "since": _begin(since)}
    async with server_of(*where) as server:
        found = await _tried(server, given, examples, quiet=where.as_json)
    if where.as_json:
        output.document(found)
        return
    output.say(f"Looked at {found['events']} events: it would have fired {found['fired']} times.")
    if found["misfired"]:
        output.say(f"{found['misfired']} times it would have started nothing:")
    table = output.table("Event", "When", "Type", "Input, or why not")
    for one in found["examples"]:
        said = f"{one.get('code')}: {one['error']}" if one.get("error") else output.gist(one.get("input"), 100)
        table.add_row(output.escape(one["event"]), output.escape(one["at"]), output.escape(one["type"]), output.escape(said))
    if found["examples"]:
        output.console().print(table)


async def _tried(server: "ServerClient", given: Mapping[str, Any], examples: int, *, quiet: bool) -> dict[str, Any]:
    """All pages, with the first examples."""
    total: dict[str, Any] = {"events": 0, "fired": 0, "misfired": 0, "examples": []}
    cursor, begin = None, None
    while True:
        body = {**given, "examples": examples - len(total["examples"]), **({} if cursor is None else {"cursor": cursor})}
        page = await server.client.send("POST", "/v1/triggers:dry-run", body)
        for name in ("events", "fired", "misfired", "examples"):
            total[name] += page[name]
        cursor = page["next_cursor"]
        if cursor is None:
            return total
        begin = page["reached"] if begin is None else begin
        if not quiet:
            share = (page["reached"] - begin) / max(1, page["until"] - begin)
            output.progress(f"{total['events']} events looked at, {share:.0%}")


def _begin(since: str) -> str | None:
    from datetime import UTC, datetime, timedelta

    from application.durations import seconds_of

    seconds = seconds_of(since)
    if seconds is None:
        return options.time_of("--since", since)
    try:
        return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        output.fail(f"--since: {output.shortened(since, 40)} is too long ago", output.WRONG_USAGE)


def definition_in(file: str) -> dict[str, Any]:
    """The JSON object that a file of YAML or JSON has. Raises CommandFailed if there is none."""
    found = written_plans.read(file)
    if not isinstance(found.value, dict):
        raise output.CommandFailed(
            output.one_line(f"{found.name}: a trigger is an object, as `on:` and `start:`"), output.WRONG_USAGE
        )
    return found.value
