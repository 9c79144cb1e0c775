"""A run's document as people read it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from api.cli import failures, output, phrases
from api.cli.compensations import compensation_of, to_see
from api.cli.explain import ended_by_people, parts_of
from api.cli.invocations import to_resolve
from api.cli.large_values import command_of, left_out
from api.cli.plan_events import why_skipped
from api.cli.progress import progress_of
from api.cli.steering_events import paused_because
from api.cli.timeline import duration_of
from api.cli.waiting import FIRST_S, waits
from api.cli.watching import outcome, warnings

if TYPE_CHECKING:
    from api.cli.run_calls import RunValues

MOST_CHILDREN = 5
"""Child runs of a step that are shown, without --tree."""


def show(
    run: dict[str, Any],
    values: "RunValues | None" = None,
    *,
    full: bool = False,
    traceback: bool = False,
    budget: str | None = None,
) -> None:
    """Prints the head, the steps and the calls of a run, and what a person should know or do.

    `values`: arguments and results of its calls. `full`: values are not cut. `traceback`: with the tracebacks of its failures.
    `budget`: what it may spend, and has spent.
    """
    console = output.console()
    console.print(f"[bold]Run {run['run_id']}[/bold]  {phrases.run_status(run)}")
    for name, value in {**_head(run, full), "budget": budget}.items():
        if value:
            console.print(f"  [dim]{name:<12}[/dim]{output.escape(value)}", soft_wrap=full)
    console.print(_steps(run, full))
    shown = sum(len(step["calls"]) for step in run["steps"])
    if (count := run.get("call_count", shown)) > shown:
        output.say(f"The run has {count:,} calls; the newest {shown} are here. All: {output.program()} runs calls {run['run_id']}")
    if values is not None:
        from api.cli import run_calls

        run_calls.show(values, full=full)
    for warning in [*warnings(run), *_waiting(run)]:
        console.print(f"[yellow]warning:[/yellow] {output.escape(warning)}", soft_wrap=True)
    _show_tracebacks(run, traceback)
    if run.get("pause"):
        resumed = run["pause"].get("parent_id") or run["run_id"]
        output.say(f"Nothing begins in the run while it is paused. To let it go on: {output.program()} runs resume {resumed}")
    if command := to_see(run):
        output.say(f"For the effects that are taken back: {command}")
    _say_what_waits_for_a_person(run)


def _head(run: dict[str, Any], full: bool) -> dict[str, str]:
    shown = phrases.uncut if full else lambda value: output.gist(value, 160)
    large = {field: left_out(run, field, f"{output.program()} runs show {run['run_id']} --full") for field in ("input", "metadata")}
    return {
        "started": run["created_at"],
        "by": run.get("actor") or "",
        "for": run.get("on_behalf_of") or "",
        "ended" if run["finished_at"] else "last event": run["finished_at"] or run["updated_at"],
        "took": output.duration(duration_of(run)),
        "events": f"{run['event_count']}, the last at position {run['position']}",
        "retried": f"{run['retries']} time{'' if run['retries'] == 1 else 's'}" if run.get("retries") else "",
        "must end by": run.get("deadline_at") or "" if not run["finished_at"] else "",
        "outcome": outcome(run) if run.get("error") else "",
        "reason": run.get("cancel_reason") or "",
        "paused": f"{run['pause']['at']}{paused_because(run['pause'])}" if run.get("pause") else "",
        "key": _key(run["concurrency"]) if run.get("concurrency") else "",
        "effects": compensation_of(run),
        "input": large["input"] or (shown(run["input"]) if run["input"] is not None else ""),
        "metadata": large["metadata"] or (shown(run["metadata"]) if run["metadata"] else ""),
        "workflow": f"{run['workflow']['name']}@{run['workflow']['version']}" if run.get("workflow") else "",
        "parent": f"run {run['parent']['run_id']}, step {run['parent']['step']}" if run.get("parent") else "",
        "origin": _origin(run["origin"]) if run.get("origin") else "",
        "fork of": forked_from(run["forked_from"]) if run.get("forked_from") else "",
        "priority": "" if run.get("priority", "normal") == "normal" else run["priority"],
    }


def forked_from(place: dict[str, Any]) -> str:
    """The run that a fork took over from, and where."""
    if (step := place.get("step")) is None:
        return f"run {place['run_id']}, at position {place['position']}"
    return f"run {place['run_id']}, {'before' if place.get('anew') else 'at'} step {step}"


def _key(concurrency: dict[str, Any]) -> str:
    return concurrency["key"] if concurrency["on_busy"] == "queue" else f"{concurrency['key']} ({concurrency['on_busy']})"


def _origin(origin: dict[str, Any]) -> str:
    due = f", due at {origin['due_at']}" if origin.get("due_at") else ""
    event = f", on event {origin['event']}" if origin.get("event") else ""
    return f"{origin['kind']} {origin['name']}{due}{event}"


def _say_what_waits_for_a_person(run: dict[str, Any]) -> None:
    for step in run["steps"]:
        for call in step["calls"]:
            if call["status"] == "ambiguous":
                name = output.one_line(f"{step['key']}: {call['key']}")
                output.say(f"{name} waits for a person to say what became of it:\n{to_resolve(call['invocation_id'])}")
            elif call["status"] == "held":
                name = output.one_line(f"{step['key']}: {call['key']}")
                output.say(f"{name} waits for an approval: {output.program()} inbox list --all --run {run['run_id']}")


def _waiting(run: dict[str, Any]) -> Iterator[str]:
    """Work of a running run that waits in a queue."""
    for step in run["steps"] if run["status"] == "running" else ():
        if step["status"] == "scheduled" and (waited := _age(step.get("scheduled_at"))) >= FIRST_S:
            yield waits(step["key"], "agent", step["agent"], waited)
        for call in step["calls"]:
            if call["status"] == "requested" and (waited := _age(call["started_at"])) >= FIRST_S:
                yield waits(f"{step['key']}: {call['key']}", "tool", call["tool"], waited)


def _age(since: str | None) -> float:
    return 0.0 if since is None else (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()


def _show_tracebacks(run: dict[str, Any], wanted: bool) -> None:
    """Prints the failures of steps and calls with tracebacks, or else the command that does."""
    failed = [
        (name, error)
        for step in run["steps"]
        for name, error in [(step["key"], step["error"]), *((f"{step['key']}: {c['key']}", c["error"]) for c in step["calls"])]
        if error and failures.has_more(error)
    ]
    if failed and not wanted:
        output.say(f"For the tracebacks: {output.program()} runs show {run['run_id']} --traceback")
    for name, error in failed if wanted else ():
        output.say(f"\n{name} failed:\n{phrases.quoted(failures.details(error))}")


def _form(step: dict[str, Any]) -> str:
    """What a step is that is more than one execution of an agent, or why it was skipped."""
    if step.get("taken_over"):
        return "taken over"
    if step["status"] == "skipped":
        return why_skipped(step.get("why") or {})
    if step["status"] == "waiting":
        return f"until {step.get('waits_until')}"
    ended = ", ended by its bound" if step.get("exhausted") else ""
    return "; ".join(filter(None, [f"{parts_of(step)}{ended}", *ended_by_people(step)]))


def _children(run: dict[str, Any], step: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The first child runs of a step, and where the others are."""
    parts = step.get("parts") or {"first": (), "started": 0}
    children = [part for part in parts["first"] if part["run_id"]]
    for part in children[:MOST_CHILDREN]:
        yield f"run {part['run_id']}", part["status"]
    if children and (more := parts["started"] - min(len(children), MOST_CHILDREN)) > 0:
        yield f"… {more:,} more: {output.program()} runs list --parent {run['run_id']}", ""


def _steps(run: dict[str, Any], full: bool) -> Any:
    width = 120
    table = output.table("Step", "Agent", "Status", "After", "Attempt", "Took", "What")
    for step in run["steps"]:
        error = step["error"] if step["status"] != "completed" else None
        large = left_out(step, "result", command_of(run["run_id"], step["key"]))
        result = large or (output.gist(step["result"]) if step["result"] is not None else "")
        what = (
            failures.headline(error, width)
            if error
            else (phrases.uncut(step["result"]) if full and result and not large else result)
        )
        what = "; ".join(filter(None, [_form(step), progress_of(step), what]))
        name, attempt = f"[bold]{output.escape(step['key'])}[/bold]", str(step["attempt"] or "")
        table.add_row(
            name,
            output.escape(phrases.agent_of(step)),
            output.status(step["status"]),
            output.escape(", ".join(step["after"])),
            attempt,
            phrases.took(step),
            output.escape(what),
        )
        for child, status in _children(run, step):
            table.add_row(f"  {child}", "", output.status(status) if status else "", "", "", "", "")
        for call in step["calls"]:
            resolution = call["resolution"]
            reason = output.shortened(resolution["reason"], 80) if resolution else ""
            said = f"resolved by {phrases.who(resolution)} because: {reason}" if resolution else ""
            why = "; ".join(filter(None, [failures.headline(call["error"], width) if call["error"] else "", said]))
            table.add_row(
                f"  {output.escape(call['key'])}",
                "",
                output.call_status(call),
                "",
                str(call["attempts"]),
                phrases.took(call),
                output.escape(why),
            )
    return table
