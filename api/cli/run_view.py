"""A run's document as people read it."""

from typing import Any

from api.cli import output
from api.cli.invocations import to_resolve
from api.cli.timeline import duration_of
from api.cli.watching import outcome


def show(run: dict[str, Any]) -> None:
    """Prints the head, the steps and the calls of a run."""
    console = output.console()
    console.print(f"[bold]Run {run['run_id']}[/bold]  {output.status(run['status'])}")
    head = {
        "started": run["created_at"],
        "ended" if run["finished_at"] else "last event": run["finished_at"] or run["updated_at"],
        "took": output.duration(duration_of(run)),
        "events": f"{run['event_count']}, the last at position {run['position']}",
        "outcome": outcome(run) if run.get("error") or run.get("missing") else "",
        "reason": run.get("cancel_reason") or "",
        "input": output.gist(run["input"], 160) if run["input"] is not None else "",
    }
    for name, value in head.items():
        if value:
            console.print(f"  [dim]{name:<12}[/dim]{output.escape(value)}")
    console.print(_steps(run))
    _say_what_waits_for_a_person(run)


def _say_what_waits_for_a_person(run: dict[str, Any]) -> None:
    for step in run["steps"]:
        for call in step["calls"]:
            if call["status"] == "ambiguous":
                name = output.one_line(f"{step['key']}: {call['key']}")
                output.say(f"{name} waits for a person to say what became of it:\n{to_resolve(call['invocation_id'])}")


def _steps(run: dict[str, Any]) -> Any:
    table = output.table("Step", "Agent", "Status", "After", "Attempt", "What")
    for step in run["steps"]:
        error = step["error"] if step["status"] != "completed" else None
        result = output.gist(step["result"]) if step["result"] is not None else ""
        what = output.reason(error, 120) if error else result
        name, attempt = f"[bold]{output.escape(step['key'])}[/bold]", str(step["attempt"] or "")
        table.add_row(
            name,
            output.escape(step["agent"]),
            output.status(step["status"]),
            output.escape(", ".join(step["after"])),
            attempt,
            output.escape(what),
        )
        for call in step["calls"]:
            resolution = call["resolution"]
            said = f"{resolution['by']} said so: {output.shortened(resolution['reason'], 80)}" if resolution else ""
            why = "; ".join(filter(None, [output.reason(call["error"], 100) if call["error"] else "", said]))
            table.add_row(
                f"  {output.escape(call['key'])}", "", output.call_status(call), "", str(call["attempts"]), output.escape(why)
            )
    return table
