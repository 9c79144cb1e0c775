"""`tidelog schedules`: runs that begin by the clock."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli import options, output
from api.cli.reaching import server_of
from api.cli.schedule_bodies import Cron, Every, Given, Once, TimeZone, when_of

app = typer.Typer(help="Runs that begin by the clock.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
SHOWN_TIMES = 5


@app.command("list")
def list_schedules(
    status: Annotated[Literal["active", "paused", "finished"] | None, typer.Option("--status", help="Only those.")] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="Only those of this project.")] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List schedules by name, with their next time and what came of the last one.

    Examples:

      tidelog schedules list

      tidelog schedules list --status paused
    """
    output.run(_list(status, project, data_dir, url, as_json))


async def _list(status: str | None, project: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    project_id = None if project is None else output.uuid_of(project, "a project", "projects list")
    async with server_of(data_dir, url, as_json) as server:
        asked = {"status": status, "project_id": project_id}
        found = [schedule async for schedule in server.pages("/v1/schedules", asked)]
    if as_json:
        output.document(found)
        return
    table = output.table("Schedule", "Status", "When", "Starts", "Next", "Last")
    for one in found:
        table.add_row(
            output.escape(one["name"]), output.escape(one["status"]), output.escape(output.shortened(_when(one.get("when")), 40)),
            output.escape(output.shortened(one.get("starts") or "", 40)), output.escape(_time(one.get("next_at"))),
            output.escape(output.shortened(_outcome(one.get("last")), 60)),
        )  # fmt: skip
    output.console().print(table)


@app.command()
def show(
    name: Name,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a schedule, what came of its last ten times, and its next ten.

    Example:

      tidelog schedules show nightly-review
    """
    output.run(_show(name, data_dir, url, as_json))


async def _show(name: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = await server.get(_path(name))
    if as_json:
        output.document(found)
    else:
        _print(found)


def _maker(found: Mapping[str, Any]) -> str:
    made_by = found.get("made_by")
    if not isinstance(made_by, dict):
        return str(found.get("created_by"))
    return f"agent {made_by.get('agent')} in run {made_by.get('run_id')}"


def _print(found: Mapping[str, Any]) -> None:
    console = output.console()
    console.print(f"[bold]Schedule {output.escape(found['name'])}[/bold]  {output.escape(found['status'])}")
    start = found.get("start") or {}
    head = {
        "what for": found.get("description") or "",
        "when": _when(found.get("when")),
        "within": " to ".join(_time(found.get(name)) or "…" for name in ("start_at", "end_at"))
        if found.get("start_at") or found.get("end_at") else "",
        "jitter": output.duration(found["jitter_s"]) if found.get("jitter_s") else "",
        "starts": found.get("starts") or "",
        "input": output.gist(start["input"]) if start.get("input") is not None else "",
        "input from": output.gist(start["input_from"]) if start.get("input_from") is not None else "",
        "missed times": f"{found.get('catch_up')}, within {output.duration(found.get('catch_up_s') or 0)}",
        "overlap": found.get("overlap") or "",
        "project": found.get("project_id") or "",
        "created": f"{_time(found.get('created_at'))} by {_maker(found)}"
        + (f", for {found['on_behalf_of']}" if found.get("on_behalf_of") else ""),
        "paused": _paused(found),
        "waits": f"the time {_time(found['waiting_at'])} waits for the end of a run" if found.get("waiting_at") else "",
        "so far": f"{found.get('fired', 0)} runs, {found.get('skipped', 0)} times without one",
    }  # fmt: skip
    for label, value in head.items():
        if value:
            console.print(f"  [dim]{label:<14}[/dim]{output.escape(output.shortened(value, 500))}")
    if times := found.get("next_times"):
        console.print("  [dim]next[/dim]")
        for each in times:
            console.print(f"    {output.escape(_time(each))}")
    if recent := found.get("recent"):
        console.print("  [dim]last[/dim]")
        for one in recent:
            console.print(f"    {output.escape(output.shortened(_outcome(one), 300))}")


def _paused(found: Mapping[str, Any]) -> str:
    if found.get("status") != "paused":
        return ""
    by = f" by {found['paused_by']}" if found.get("paused_by") else ""
    return f"{_time(found.get('paused_at'))}{by}" + (f": {found['reason']}" if found.get("reason") else "")


@app.command()
@options.with_fields
def create(
    name: Name,
    given: Given,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="The project of its runs.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="It waits to be resumed.")] = False,
    file: Annotated[
        str | None, typer.Option("--file", metavar="JSON|@FILE", help="All of it as a JSON object; options go over it.")
    ] = None,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a schedule, and show its next times.

    Examples:

      tidelog schedules create nightly-review --cron '30 2 * * 1-5' --time-zone Europe/Berlin --agent reviewer

      tidelog schedules create sync --every 15m --agent fetch --input-from until=due_at --overlap queue

      tidelog schedules create launch --at 2027-01-01T08:00:00Z --agent greeter --input '{"name": "Ada"}'
    """
    output.run(_create(name, given, project, paused, file, reason, on_behalf_of, options.Where(data_dir, url, as_json)))


async def _create(
    name: str, given: Given, project: str | None, paused: bool, file: str | None, reason: str | None, on_behalf_of: str | None,
    where: options.Where,
) -> None:  # fmt: skip
    body = {} if file is None else options.object_of("--file", file)
    body |= given.body() | {"name": name} | ({"paused": True} if paused else {})
    if project is not None:
        body["project_id"] = output.uuid_of(project, "a project", "projects list")
    if "when" not in body:
        raise output.CommandFailed("say when: --cron, --every or --at", output.WRONG_USAGE)
    if "start" not in body:
        raise output.CommandFailed("say what is started: --agent, --workflow or --plan", output.WRONG_USAGE)
    async with server_of(where.data_dir, where.url, where.as_json, on_behalf_of=on_behalf_of) as server:
        accepted = await server.post("/v1/schedules", body, reason=reason)
        found = await server.get(_path(name), at_least=accepted["position"])
    if where.as_json:
        output.document(accepted)
        return
    output.say(f"Created schedule {name}")
    _say_next(found)


def _say_next(found: Mapping[str, Any]) -> None:
    times = [_time(each) for each in (found.get("next_times") or ())[:SHOWN_TIMES]]
    if times:
        output.say(output.one_line("Next: " + ", ".join(times)))
    elif found.get("status") == "paused":
        output.say(output.one_line(f"It is paused: tidelog schedules resume {found['name']}"))


@app.command()
@options.with_fields
def change(
    name: Name,
    given: Given,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Change what is given; all else stays. What is started is given as a whole.

    Examples:

      tidelog schedules change nightly-review --cron '0 3 * * 1-5' --time-zone Europe/Berlin

      tidelog schedules change sync --overlap cancel --catch-up skip
    """
    output.run(_change(name, given, reason, on_behalf_of, options.Where(data_dir, url, as_json)))


async def _change(name: str, given: Given, reason: str | None, on_behalf_of: str | None, where: options.Where) -> None:
    body = given.body()
    if not body:
        raise output.CommandFailed("say what shall change", output.WRONG_USAGE)
    async with server_of(where.data_dir, where.url, where.as_json, on_behalf_of=on_behalf_of) as server:
        from tidelog.audit import reason_header

        accepted = await server.client.send("PATCH", _path(name), body, headers=reason_header(reason))
        found = await server.get(_path(name), at_least=accepted["position"])
    if where.as_json:
        output.document(accepted)
        return
    output.say(f"Changed schedule {name}")
    _say_next(found)


@app.command()
def pause(
    name: Name,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Pause a schedule: no time counts until it is resumed. Runs go on.

    Example:

      tidelog schedules pause nightly-review --reason "the repository moves"
    """
    output.run(_switch(name, "pause", reason, on_behalf_of, options.Where(data_dir, url, as_json)))


@app.command()
def resume(
    name: Name,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Resume a paused schedule. Times that passed during the pause do not count.

    Example:

      tidelog schedules resume nightly-review
    """
    output.run(_switch(name, "resume", reason, on_behalf_of, options.Where(data_dir, url, as_json)))


async def _switch(name: str, verb: str, reason: str | None, on_behalf_of: str | None, where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json, on_behalf_of=on_behalf_of) as server:
        accepted = await server.post(f"{_path(name)}/{verb}", {} if reason is None else {"reason": reason})
        found = await server.get(_path(name), at_least=accepted["position"])
    if where.as_json:
        output.document(accepted)
        return
    output.say(f"Schedule {name} is {output.one_line(found['status'])}")
    if verb == "resume":
        _say_next(found)


@app.command("run-now")
def run_now(
    name: Name,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Start a run of a schedule out of turn, also of a paused one.

    Example:

      tidelog schedules run-now nightly-review
    """
    output.run(_run_now(name, reason, on_behalf_of, options.Where(data_dir, url, as_json)))


async def _run_now(name: str, reason: str | None, on_behalf_of: str | None, where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json, on_behalf_of=on_behalf_of) as server:
        accepted = await server.post(f"{_path(name)}/run-now", {}, reason=reason)
    if where.as_json:
        output.document(accepted)
    else:
        output.say(output.one_line(f"Started run {accepted['run_id']}"))


@app.command()
def preview(
    cron: Cron = None,
    time_zone: TimeZone = None,
    every: Every = None,
    at: Once = None,
    after: Annotated[str | None, typer.Option("--after", metavar="TIME", help="Times after this one.  \\[default: now]")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many.")] = 10,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the times that a schedule would have, with those days on which clocks are changed. Nothing is created.

    Example:

      tidelog schedules preview --cron '30 2 * * *' --time-zone Europe/Berlin --after 2027-03-26
    """
    output.run(_preview(when_of(cron, time_zone, every, at), after, count, options.Where(data_dir, url, as_json)))


async def _preview(when: dict[str, Any], after: str | None, count: int, where: options.Where) -> None:
    if not when:
        raise output.CommandFailed("say when: --cron, --every or --at", output.WRONG_USAGE)
    body: dict[str, Any] = {"when": when, "count": count}
    if after is not None:
        body["after"] = options.time_of("--after", after)
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        found = await server.client.send("POST", "/v1/schedules:preview", body)
    if where.as_json:
        output.document(found)
        return
    if not found["times"]:
        output.say("No time is left")
    for each in found["times"]:
        output.say(output.one_line(f"{_time(each['due_at'])}  {each['local']}"))


@app.command()
def remove(
    name: Name,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove a schedule. Its runs stay, and its name can be given again.

    Example:

      tidelog schedules remove nightly-review --reason "nobody reads it"
    """
    output.run(_remove(name, reason, on_behalf_of, options.Where(data_dir, url, as_json)))


async def _remove(name: str, reason: str | None, on_behalf_of: str | None, where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json, on_behalf_of=on_behalf_of) as server:
        from tidelog.audit import reason_header

        accepted = await server.client.send("DELETE", _path(name), headers=reason_header(reason))
    if where.as_json:
        output.document(accepted)
    else:
        output.say(f"Removed schedule {name}")


def _path(name: str) -> str:
    """Raises CommandFailed for a text that is no name, and might be another path."""
    import re

    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        told = f"'{name}' is not a schedule's name: lower-case words, dots between (see: tidelog schedules list)"
        raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)
    return f"/v1/schedules/{name}"


def _when(when: Any) -> str:
    if not isinstance(when, Mapping):
        return ""
    if when.get("cron") is not None:
        return f"{when['cron']} ({when.get('time_zone') or 'UTC'})"
    if when.get("every_s") is not None:
        return f"every {_interval(when['every_s'])}"
    return f"once at {_time(when.get('at'))}"


def _interval(seconds: Any) -> str:
    """A whole number of seconds as `--every` takes it: 5s, 15m, 2h, 1d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if isinstance(seconds, int) and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _time(at: Any) -> str:
    """A time without fractions of a second: 2026-01-31 12:00:00Z."""
    if not at:
        return ""
    try:
        return datetime.fromisoformat(str(at)).strftime("%Y-%m-%d %H:%M:%SZ")
    except ValueError:
        return str(at)


def _outcome(one: Mapping[str, Any] | None) -> str:
    """What came of a time, in words."""
    if not one:
        return ""
    due = _time(one.get("due_at"))
    match one.get("what"):
        case "fired":
            more = f", also for {one['caught_up']} missed before" if one.get("caught_up") else ""
            told = "out of turn" if one.get("by") else "missed, caught up with" if one.get("missed") else "ran"
            return f"{due} {told}{more}: run {one.get('run_id')}"
        case "queued":
            return f"{due} waits for the end of run {one.get('run_id')}"
        case "skipped":
            several = f" to {_time(one.get('until'))} ({one['count']} times)" if one.get("count") else ""
            why = f": {one['message']}" if one.get("message") else ""
            return f"{due}{several} no run, {one.get('reason')}{why}"
        case other:
            return f"{due} {other}"
