"""`tidelog runs logs`: what the agents and tools of a run have logged."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()

LOOK_EVERY_S = 1.0
LEVELS = ("debug", "info", "warning", "error", "critical")
STYLES = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "red"}


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more lines, until the run has ended.")] = False,
    level: Annotated[
        str | None,
        typer.Option(
            "--level", metavar="LEVEL", help="Only lines of this level or a higher one: debug, info, warning, error, critical."
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only lines of this agent and of its tools.")] = None,
    step: Annotated[str | None, typer.Option("--step", metavar="KEY", help="Only lines of this step and of its tools.")] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what the agents and tools of a run have logged and printed, in the order in which it was recorded.

    Lines are kept for 30 days, 10,000 of a run. A last line says how many lines are missing. With --json: a line of JSON for each.

    Examples:

      tidelog runs logs 0198c0de-… --follow

      tidelog runs logs 0198c0de-… --level warning --agent writer --json
    """
    if level is not None and level not in LEVELS:
        raise typer.BadParameter(f"must be one of {', '.join(LEVELS)}", param_hint="--level")
    output.run(_logs(run_id, follow, {"level": level, "agent": agent, "step": step}, data_dir, url, as_json))


async def _logs(
    run_id: str, follow: bool, wanted: dict[str, str | None], data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, as_json) as server:
        complete = await given.complete(server)
        after, any_line, last = 0, False, None
        over = not follow
        while True:
            came = False
            async for line in server.pages(f"/v1/runs/{complete}/logs", {**wanted, "after": after}):
                if line["line"] is None:
                    last = line
                    continue
                after, came, any_line = line["line"], True, True
                _show(line, as_json)
            if over:
                break
            over = not came and await _has_ended(server, complete)  # one more look: the last lines may come after the end
            await asyncio.sleep(LOOK_EVERY_S)
        if last is not None:
            _show(last, as_json)
        elif not any_line and not as_json:
            output.say("No lines.")


async def _has_ended(server: "ServerClient", run_id: str) -> bool:
    from tidelog.errors import NotFoundError

    try:
        run: dict[str, Any] = await server.get(f"/v1/runs/{run_id}")
    except NotFoundError:  # the run has just begun, and the read model does not have it yet
        return False
    return str(run["status"]) not in ("queued", "running", "paused")


def _show(line: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.line(line)
        return
    from rich.text import Text

    console = output.console()
    place = "" if line["step"] is None else line["step"] + (f" {line['tool']}" if line["tool"] else "")
    for number, text in enumerate(str(line["text"]).split("\n")):
        # Each line of a text has the time and the place again, so that none looks like a line of its own.
        shown = Text.assemble(
            (output.one_line(line["at"][:23].replace("T", " ")), "dim"), "  ",
            (output.one_line(f"{line['level']:<8}"), STYLES.get(line["level"], "")), "  ",
            (output.one_line(place), "cyan"), "  " if place else "", "| " if number else "", output.one_line(text),
        )  # fmt: skip
        if console.is_terminal:
            console.print(shown, soft_wrap=True)
        else:
            output.say(shown.plain)
