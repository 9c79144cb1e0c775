"""`tidelog runs stuck`: open runs to which nothing has happened for long, what they wait for, and the command that helps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.output import program

app = typer.Typer()
MOST_WAITS = 3
"""Waits of a run that are shown. `runs explain` has all."""


def helps(wait: Mapping[str, Any], run_id: str) -> str:
    """The command that helps. Empty: waiting does."""
    step, name = output.one_line(str(wait.get("step"))), output.one_line(str(wait.get("name")))
    match wait["waits_for"]:
        case "resume":
            return f"{program()} runs resume {wait['id'] if wait['kind'] == 'run' and wait.get('id') else run_id}"
        case "worker" if wait["kind"] == "tool":
            return f"{program()} tools show {name}"
        case "worker" | "version":
            return f"{program()} worker --agents FOLDER, with {name} in it"
        case "free_worker":
            return f"{program()} workers list"
        case "retry":
            call = f" --call {wait['id']}" if wait["kind"] == "tool" else ""
            return f"{program()} runs dispatch {run_id} {step}{call} --reason …"
        case "run":
            return f"{program()} runs explain {wait['id']}"
        case "breaker":
            return f"{program()} tools breaker {name}"
        case "person":
            return f"{program()} invocations resolve {wait['id']} …"
        case "approval":
            return f"{program()} inbox show {wait['approval_id']}"
        case "agent":
            return f"{program()} runs dispatch {run_id} {step} --reason …"
        case "unknown":
            return f"this is a defect: {program()} runs show {run_id}"
        case _:
            return ""


def told(wait: Mapping[str, Any]) -> str:
    """What waits, and for what: one line."""
    what = wait["step"] or "the run"
    what += f": {wait['key']}" if wait.get("key") else ""
    until = f", until {wait['until']}" if wait.get("until") and wait["waits_for"] != "clock" else ""
    return output.one_line(f"{what}: {wait['detail']}{until}")


@app.command()
def stuck(
    for_: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Runs to which nothing has happened for so long: 90s, 10m, 2h, 1d.")
    ] = "10m",
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="At most so many.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List open runs that have not moved for some time: what each waits for, why, and the command that helps. Newest first.

    Examples:

      tidelog runs stuck

      tidelog runs stuck --for 2h --json
    """
    output.run(_stuck(_seconds(for_), limit, data_dir, url, as_json))


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not (number.isascii() and number.isdecimal() and len(number) < 8):
        raise typer.BadParameter(f"--for: a number with its unit, as 90s, 10m, 2h or 1d, not {output.one_line(text)}")
    return float(number) * UNITS[unit]


async def _stuck(seconds: float, limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli.reaching import server_of

    async with server_of(data_dir, url, as_json) as server:
        found: list[dict[str, Any]] = []
        for status in ("running", "paused", "queued"):
            wanted = {"status": status, "unmoved_s": f"{seconds:.0f}"}
            found += [run async for run in server.pages("/v1/runs", wanted, limit=limit - len(found))] if len(found) < limit else []
        waits: list[dict[str, Any]] = [await server.get(f"/v1/runs/{run['run_id']}/waits") for run in found]
    if as_json:
        documents = [
            {**each, "data": [{**wait, "help": helps(wait, each["run_id"]) or None} for wait in each["data"]]} for each in waits
        ]
        output.document(documents)
        return
    if not found:
        output.say(f"No open run has been without an event for {output.duration(seconds)}.")
    for run, each in zip(found, waits, strict=True):
        output.console().print(f"[bold]{run['run_id']}[/bold]  {output.status(run['status'])}", soft_wrap=True)
        show(each)


def show(waits: Mapping[str, Any], most: int = MOST_WAITS) -> None:
    """What a run waits for, with the commands that help."""
    for wait in waits["data"][:most]:
        output.say(f"  {told(wait)}")
        if command := helps(wait, waits["run_id"]):
            output.say(f"    {command}")
    if (more := len(waits["data"]) - most + waits.get("more", 0)) > 0:
        output.say(f"  … and {more:,} more: {program()} runs explain {waits['run_id']}")
