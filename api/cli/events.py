"""`tidelog events`: the log itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.ids import GivenId, short
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="The event log.", no_args_is_help=True)


@app.command()
def tail(
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Only the events of this run: its id, or its beginning.")
    ] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only this type, such as run.started; repeatable.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", metavar="WHO", help="Only what this one asked for: key:<key id>.")] = None,
    on_behalf_of: Annotated[
        str | None, typer.Option("--on-behalf-of", metavar="WHO", help="Only what was asked for on behalf of this one.")
    ] = None,
    after: Annotated[
        str, typer.Option("--after", metavar="CURSOR", help="Only events after this position, or after the event with this cursor.")
    ] = "0",
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow", help="Wait for more (a run's stream ends with the run).  \\[default: if a server runs]"
        ),
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show events in the order of the log, from the beginning or after a position, and then new events.

    With --since or --until: what was recorded in this time, without new events.

    Examples:

      tidelog events tail

      tidelog events tail --run 0198c0de-… --json

      tidelog events tail --type run.completed --type run.failed --after 1200 --no-follow

      tidelog events tail --since 2026-01-30 --until 2026-01-31 --type run.failed

      tidelog events tail --on-behalf-of user:ada@example.org --no-follow
    """
    asked = {"actor": actor, "on_behalf_of": on_behalf_of}
    output.run(_tail(run, types or [], asked, after, since, until, follow, data_dir, url, as_json))


async def _tail(
    run: str | None, types: list[str], asked: dict[str, str | None], after: str, since: str | None, until: str | None,
    follow: bool | None,
    data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from application.engine.reading.histories import Cursor
    from tidelog.errors import HistoryReplaced

    if Cursor.parse(after) is None:
        raise output.CommandFailed(f"--after: '{after}' is neither a position nor a cursor", output.WRONG_USAGE)
    within = {"recorded_after": options.time_of("--since", since), "recorded_before": options.time_of("--until", until)}
    if any(within.values()):
        if follow:
            raise output.CommandFailed("--since and --until show what was recorded, without --follow", output.WRONG_USAGE)
        follow = False
    if run and any(asked.values()):
        if follow:
            raise output.CommandFailed("--actor and --on-behalf-of show what a run has, without --follow", output.WRONG_USAGE)
        follow = False
    given = GivenId.parse(run) if run else None
    async with server_of(data_dir, url, as_json) as server:
        following = (
            not server.temporary if follow is None else follow
        )  # no new events come on a server that was started for this command
        run_id = await given.complete(server) if given else None
        try:
            async for event in _events(server, run_id, types, asked, after, within, following):
                if as_json:
                    output.line(event)
                else:
                    _show(event)
        except HistoryReplaced as replaced:
            common = replaced.last_common_position
            raise output.CommandFailed(
                f"the log was restored: what was shown after position {common} is void; go on with --after {replaced.cursor}"
            ) from replaced


def _events(
    server: "ServerClient", run_id: str | None, types: list[str], asked: dict[str, str | None], after: str,
    within: dict[str, str | None], follow: bool,
) -> Any:  # fmt: skip
    if follow:
        return server.follow(run_id, after=after, types=types, actor=asked["actor"], on_behalf_of=asked["on_behalf_of"])
    query = {"after": after, "types": ",".join(types) or None, **within}
    if any(asked.values()):
        return server.pages("/v1/events", {**query, **asked, "root_id": run_id})
    return server.pages(f"/v1/runs/{run_id}/events" if run_id else "/v1/events", query)


def _show(event: dict[str, Any]) -> None:
    from rich.text import Text

    console, width = output.console(), output.EVENT_WIDTH
    text = Text.assemble(
        (f"{event['position']:>7}", "bold"), "  ", (event["time"][:23].replace("T", " "), "dim"), "  ",
        (f"{event['type']:<{width}}", "cyan"), "  ", (short(event["subject"]), "magenta"), "  ", (f"{_by(event):<24}", "dim"), "  ",
        output.gist(event.get("data"), 160),
    )  # fmt: skip
    if console.is_terminal:
        console.print(text, overflow="ellipsis", no_wrap=True)
    else:
        output.say(text.plain)


def _by(event: dict[str, Any]) -> str:
    """Who did it, and for whom. Of a key the beginning of its id."""
    kind, _, name = str(event.get("actor", "")).partition(":")
    by = f"{kind}:{short(name)}" if kind == "key" else output.one_line(f"{kind}:{name}" if name else kind)
    return f"{by} for {output.shortened(event['onbehalfof'], 60)}" if event.get("onbehalfof") else by


@app.command()
def show(
    event: Annotated[
        str,
        typer.Argument(metavar="POSITION|ID", help="Position in the log, the event's id, or the id of a command, such as a cause."),
    ],
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show one event completely: its cause and its data. For a command: all events that it led to, as JSON one on each line.

    Examples:

      tidelog events show 42

      tidelog events show 0198c0de-1234-7abc-9def-0123456789ab:3
    """
    output.run(_show_some(event, data_dir, url, as_json))


async def _show_some(wanted: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    _check(wanted)
    async with server_of(data_dir, url, as_json) as server:
        positions = await _positions(server, wanted)
        for position in positions:
            event: dict[str, Any] = await server.get(f"/v1/events/{position}")
            if not as_json:
                _show_one(event)
            elif len(positions) == 1:
                output.document(event)
            else:
                output.line(event)


def _check(wanted: str) -> None:
    stream, _, version = wanted.partition(":")
    if wanted.isdecimal() and wanted.isascii() and int(wanted) > 0:
        return
    if (
        len(stream) != 36
        or stream.strip("0123456789abcdefABCDEF-")
        or (":" in wanted and not (version.isdecimal() and version.isascii()))
    ):
        told = f"'{wanted}' is neither a position (1, 2, …) nor the id of an event or of a command"
        raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)


async def _positions(server: "ServerClient", wanted: str) -> range:
    """The positions of the named event, or of the events of the named command."""
    if wanted.isdecimal():
        return range(int(wanted), int(wanted) + 1)
    answer: dict[str, Any] = await server.get(f"/v1/ids/{wanted}")
    for named in answer["data"]:
        if named["kind"] in ("event", "command"):
            return range(named["position"], named["position"] + (named["event_count"] or 1))
    if answer["data"]:
        named = answer["data"][0]
        of_run = f"; see: tidelog events tail --run {named['run_id']}" if named["run_id"] else ""
        raise output.CommandFailed(output.one_line(f"{wanted} is the id of a stream ({named['kind']}){of_run}"))
    raise output.CommandFailed(f"there is no event or command {wanted}; commands are not kept for ever")


def _show_one(event: dict[str, Any]) -> None:
    from rich.json import JSON

    console = output.console()
    console.print(f"[bold]{event['position']}  {output.escape(event['type'])}[/bold]  {event['time']}")
    for name, label in (
        ("id", "event"), ("rootid", "inside"), ("actor", "actor"), ("onbehalfof", "for"),
        ("correlationid", "correlation"), ("causationid", "caused by"), ("dataschema", "schema"),
    ):  # fmt: skip
        if name != "onbehalfof" or name in event:
            console.print(f"  [dim]{label:<12}[/dim]{output.escape(str(event.get(name, '')))}")
    console.print(JSON.from_data(event.get("data")))


@app.command()
@options.with_fields
def why(
    event: Annotated[str, typer.Argument(metavar="POSITION|ID", help="The position of an event, or its id, <stream>:<version>.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="At most so many causes.")] = 50,
    effects: Annotated[bool, typer.Option("--effects", help="What came of it instead.")] = False,
    where: options.Where = options.HERE,
) -> None:
    """Show why an event happened: the chain of its causes back to the request that began it, through all runs on the way.

    Examples:

      tidelog events why 1200

      tidelog events why 1200 --effects
    """
    output.run(_why(event, limit, effects, where))


async def _why(wanted: str, limit: int, effects: bool, where: options.Where) -> None:
    _check(wanted)
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        position = (await _positions(server, wanted))[-1]
        path = f"/v1/events/{position}/{'effects' if effects else 'causes'}"
        found = await server.get(path, {"limit": limit})
    if where.as_json:
        output.document(found)
        return
    for link in found["data"]:
        output.say(output.one_line(_told(link)))
        if (request := link.get("request")) is not None and link["by"] == "request":
            trace = f", trace {request['trace_id']}" if request["trace_id"] else ""
            behalf = f" for {request['on_behalf_of']}" if request["on_behalf_of"] else ""
            output.say(output.one_line(f"  by {request['actor']}{behalf}, command {request['command_id']}{trace}"))
    if not found["data"]:
        output.say("Nothing has come of it so far.")
    if following := found.get("next"):
        output.say(f"… and so on: {output.program()} events why {int(following)}")
    elif effects and found["next_cursor"]:
        output.say("… more may have come of it: --json and its next_cursor")


def _told(link: dict[str, Any]) -> str:
    row = link["event"]
    part = f".{row['part']}" if row.get("part") is not None else ""
    about = [f"step {row['step']}{part}" if row.get("step") else "", row.get("call") or "", row.get("text") or ""]
    said = ", ".join(filter(None, about))
    return f"{row['position']:>8}  {row['type']}{f'  {said}' if said else ''}"
