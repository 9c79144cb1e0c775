"""`tidelog workers`: the workers that run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer(help="Workers that run.", no_args_is_help=True)


@app.callback()
def workers() -> None:
    """The workers that have a session."""


@app.command("list")
def list_workers(
    offering: Annotated[str | None, typer.Option(metavar="NAME", help="Only workers that have this agent or tool.")] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List the workers that have a session at the server: what they offer, and the work that they have in hand.

    Example:

      tidelog workers list --offering writer
    """
    output.run(_list(offering, data_dir, url, as_json))


async def _list(offering: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [worker async for worker in server.pages("/v1/workers") if offering is None or _offers(worker, offering)]
        problems = [] if as_json or not found else (await server.get("/v1/workers/problems", {"limit": 1_000}))["data"]
    if as_json:
        output.document(found)
    elif found:
        _show_list(found, Counter(problem["worker_id"] for problem in problems))
    elif offering is None:
        output.say("No worker has a session. Start one with: tidelog worker --agents FOLDER")
    else:
        output.say(f"No worker with a session has '{offering}'. Start one that has: tidelog worker --agents FOLDER")


def _offers(worker: Mapping[str, Any], name: str) -> bool:
    return any(each["name"] == name for kind in ("agents", "tools") for each in worker[kind] or ())


def _show_list(found: Sequence[Mapping[str, Any]], problems: Mapping[str, int]) -> None:
    """`problems`: by worker, how many files and definitions cannot be used."""
    table = output.table("Worker", "Release", "Since", "Seen", "In hand", "Agents", "Tools", "Problems")
    for worker in found:
        in_hand = f"{worker['agent_runs']} agent runs, {worker['calls']} calls"
        table.add_row(
            f"[bold]{output.escape(worker['worker_id'])}[/bold]", output.escape(worker["release"]),
            _time(worker["since"]), _time(worker["seen_at"]), in_hand, _names(worker["agents"]),
            _names(worker["tools"]), str(problems.get(worker["worker_id"], "")),
        )  # fmt: skip
    output.console().print(table)
    if any(worker["worker_id"] in problems for worker in found):
        output.say("`tidelog doctor` shows the files and definitions that workers cannot use.")


def _time(text: str) -> str:
    return output.escape(text[:19].replace("T", " "))


def _names(definitions: Sequence[Mapping[str, Any]] | None) -> str:
    if definitions is None:
        return "not known yet"
    return output.escape(output.shortened(", ".join(f"{each['name']} {each['version']}" for each in definitions), 60))
