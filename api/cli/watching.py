"""Showing a run while it happens."""

from typing import Any

from api.cli import output
from api.cli.connection import ServerClient
from api.cli.timeline import Timeline


async def watch(server: ServerClient, run_id: str, *, as_json: bool = False) -> int:
    """Shows the run's timeline from its beginning to its end, or all its events as JSON lines. Returns the last position."""
    timeline, console = Timeline(), output.console()
    position = 0
    async for event in server.follow(run_id, after=0):
        position = event["position"]
        if as_json:
            output.line(event)
            continue
        line = timeline.feed(event)
        if line is None:
            continue
        if console.is_terminal:
            console.print(timeline.coloured(line))
        else:
            output.say(line.plain())
    return position


def outcome(run: dict[str, Any]) -> str:
    """One line of plain text: the outcome or the present status of a run."""
    text = str(run["status"])
    if run.get("missing"):
        text += f" without {output.one_line(', '.join(run['missing']))}"
    error = run.get("error")
    return f"{text}: {output.reason(error)}" if error else text
