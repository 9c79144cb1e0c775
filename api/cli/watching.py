"""Showing a run while it happens."""

from collections.abc import Mapping
from typing import Any

from api.cli import failures, output, phrases
from api.cli.connection import ServerClient
from api.cli.timeline import Timeline, unused_results
from api.cli.waiting import WaitingWork, with_pauses

PAUSE_S = 1.0
MOST_MISSING = 5


async def watch(server: ServerClient, run_id: str, *, as_json: bool = False, traceback: bool = False) -> int:
    """Shows the run's timeline from its beginning to its end, or all its events as JSON lines. Returns the last position.

    Says on stderr when work has waited for long in the queue of its agent or tool. `traceback`: with the tracebacks of failures.
    """
    timeline, waiting = Timeline(), WaitingWork()
    position = 0
    async for event in with_pauses(server.follow(run_id, after=0), PAUSE_S):
        if event is None:
            for note in waiting.notes():
                output.note(note)
            continue
        position = event["position"]
        waiting.feed(event)
        if as_json:
            output.line(event)
        else:
            _show(timeline, event, traceback)
    return position


def _show(timeline: Timeline, event: Mapping[str, Any], traceback: bool) -> None:
    line, console = timeline.feed(event), output.console()
    if line is None:
        return
    if console.is_terminal:
        console.print(timeline.coloured(line))
    else:
        output.say(line.plain())
    if traceback and event["type"] in failures.FAILED_ATTEMPTS:
        output.say(phrases.quoted(failures.details(event["data"]["error"])))


def outcome(run: Mapping[str, Any]) -> str:
    """One line of plain text: the outcome or the present status of a run."""
    text = str(run["status"])
    if run.get("missing"):
        text += f", degraded: without {missing(run)}"
    error = run.get("error")
    return f"{text}: {failures.headline(error)}" if error else text


def missing(run: Mapping[str, Any]) -> str:
    """The steps that failed, though the run went on, with their reasons where the run has its steps."""
    errors = {step["key"]: step["error"] for step in run.get("steps", ())}
    told = [f"{key} ({failures.headline(errors[key], 120)})" if errors.get(key) else key for key in run["missing"][:MOST_MISSING]]
    more = len(run["missing"]) - MOST_MISSING
    return output.one_line(", ".join(told)) + (f" and {more} more" if more > 0 else "")


def warnings(run: Mapping[str, Any]) -> list[str]:
    """What a person should know of a run beside its status, one line each."""
    told = [f"the run is degraded: it was completed without {missing(run)}"] if run.get("missing") else []
    return told + [f"{step['key']}: {unused_results(step['unused_keys'])}" for step in run["steps"] if step.get("unused_keys")]
