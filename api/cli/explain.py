"""`tidelog runs explain`: why each step of a run ran or did not, in a sentence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.failures import headline
from api.cli.ids import GivenId
from api.cli.plan_events import said_by, seen, why_skipped
from api.cli.reaching import server_of
from api.cli.steering_events import paused_because
from api.cli.stuck import show

app = typer.Typer()
MOST_NAMED = 10
MOST_WAITS = 100
WIDTH = 160
MADE_OF = {"each": "item", "repeat": "time", "adaptive": "agent", "run": "run"}
"""Form of a step → what a part of it is."""


def why(step: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Why a step ran or did not, and what became of it. One line, without an end."""
    known, status = {other["key"]: other for other in run["steps"]}, step["status"]
    if status == "skipped":
        return f"did not run: {why_skipped(step.get('why') or {})}"
    if status == "pending":
        waits = [f"{key} ({known[key]['status']})" for key in step["after"] if not _over(known[key])]
        return f"has not begun: it waits for {_listed(waits)}" if waits else "has not begun"
    person = (step.get("why") or {}).get("person")
    if person is not None:
        given = "its result was given" if status == "completed" else "it was said to have failed"
        return f"{given} {said_by(person)}"
    if step.get("taken_over"):
        return "; ".join([f"was taken over from run {run['forked_from']['run_id']}, and did not run again", *_became(step)])
    if step["scheduled_at"] is None and status == "cancelled":
        return "did not run: the run ended before"
    if step["scheduled_at"] is None and status == "failed":
        return f"could not begin: {headline(step['error'], WIDTH)}"
    return "; ".join([f"ran{_cause(step, known)}", *_details(step), *_became(step)])


def _over(step: Mapping[str, Any]) -> bool:
    return step["status"] in ("completed", "failed", "skipped", "cancelled")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _cause(step: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str:
    if said := step.get("why"):
        saw = f", as it saw {seen(said['saw'])}" if said.get("saw") else ""
        return f", because its condition was true: {output.shortened(said['condition'], 200)}{saw}"
    if not step["after"]:
        return " at once: no step comes before it"
    before = [f"{key} ({known[key]['status']})" for key in step["after"]]
    return f" after {_listed(before)}"


def _details(step: Mapping[str, Any]) -> list[str]:
    told = []
    if step.get("input") is not None:
        told.append(f"its input was made: {output.gist(step['input'], 100)}")
    for tried in step.get("fallbacks") or ():
        told.append(f"it went on with {tried['agent']}, because: {headline(tried['error'], 80)}")
    if said := parts_of(step):
        told.append(said)
    told += ended_by_people(step)
    if step.get("exhausted"):
        told.append("the loop was ended by its bound")
    if step.get("waits_until"):
        told.append(f"it {'waits' if step['status'] == 'waiting' else 'waited'} until {step['waits_until']}")
    return told


def _became(step: Mapping[str, Any]) -> list[str]:
    match step["status"]:
        case "completed":
            return []
        case "failed":
            return [f"it failed: {headline(step['error'], WIDTH)}" if step["error"] else "it failed"]
        case "waiting":
            return []
        case status:
            return [f"it is {status}"]


def ended_by_people(step: Mapping[str, Any]) -> list[str]:
    """Which of the first parts somebody skipped, or said how they ended."""
    first = (step.get("parts") or {}).get("first") or ()
    return [f"{step['key']}.{part['number']} was ended {said_by(part['person'])}" for part in first if part.get("person")]


def parts_of(step: Mapping[str, Any]) -> str:
    """The parts of a step in numbers, as `each 37/1,000 done, 2 failed`. Empty: it has none."""
    parts = step.get("parts")
    if parts is None:
        return ""
    form = step["form"]
    total = parts["started"] if parts["total"] is None else parts["total"]
    match form:
        case "adaptive":
            done = f"{parts['completed']:,} of {parts['started']:,} done"
        case "repeat":
            done = f"{parts['completed']:,} of at most {total:,} done"
        case _:
            done = f"{parts['completed']:,}/{total:,} done"
    failed = f", {parts['failed']:,} failed" if parts["failed"] else ""
    cancelled = f", {parts['cancelled']:,} cancelled" if parts["cancelled"] else ""
    return f"{form} {done}{failed}{cancelled}"


@app.command()
def explain(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")],
    step: Annotated[str | None, typer.Argument(metavar="STEP", help="Only the step with this key.")] = None,
    at: options.At = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Say of each step of a run why it ran or did not: its condition, what the condition saw, the steps before it.

    Examples:

      tidelog runs explain 0198c0de-…

      tidelog runs explain 0198c0de-… review --at 42
    """
    output.run(_explain(run_id, step, at, data_dir, url, as_json))


async def _explain(run_id: str, key: str | None, at: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, as_json) as server:
        run: dict[str, Any] = await server.get(f"/v1/runs/{await given.complete(server)}", {"as_of": at} if at else None)
        waits = None if at or run["finished_at"] else await server.get(f"/v1/runs/{run['run_id']}/waits")
    steps = [step for step in run["steps"] if key in (None, step["key"])]
    if not steps:
        raise output.CommandFailed(output.one_line(f"run {run['run_id']} has no step {key}"))
    if as_json:
        output.document(
            [{"step": s["key"], "status": s["status"], "told": output.one_line(why(s, run)), "why": s.get("why")} for s in steps]
        )
        return
    console = output.console()
    if run.get("pause"):
        output.say(output.one_line(f"The run is paused{paused_because(run['pause'])}: nothing begins until it is resumed."))
    for step in steps:
        name, told = output.escape(step["key"]), output.escape(why(step, run))
        console.print(f"[bold]{name}[/bold]  {output.status(step['status'])}\n  {told}", soft_wrap=True)
    if waits is not None and key is None and waits["data"]:
        output.say("\nIt waits for:")
        show(waits, MOST_WAITS)
