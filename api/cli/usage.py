"""`tidelog usage`: what calls have used."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer()

By = Literal["day", "project", "agent", "tool", "run"]
_KEY = {"project": "project_id", "run": "run_id"}


@app.command()
def usage(
    by: Annotated[By, typer.Option("--by", help="What to count by.")] = "day",
    since: Annotated[str | None, typer.Option("--since", metavar="DAY", help="From this day of UTC on.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="DAY", help="Up to this day, today if not given.")] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="Only usage of this project.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only calls of this agent.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="Only calls of this tool.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only this run.")] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what calls have used: calls, money and tokens. Calls count that say what they used, or whose tools declare a cost.

    Examples:

      tidelog usage

      tidelog usage --by agent --since 2026-11-01

      tidelog usage --by tool --run 0198c0de-0000-7000-8000-000000000001
    """
    asked = {
        "by": by, "since": since, "until": until, "agent": agent, "tool": tool,
        "project_id": None if project is None else output.uuid_of(project, "a project", "projects list"),
        "run_id": None if run is None else output.uuid_of(run, "a run", "runs list"),
    }  # fmt: skip
    output.run(_usage(by, {name: value for name, value in asked.items() if value is not None}, data_dir, url, as_json))


async def _usage(by: str, asked: dict[str, Any], data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [row async for row in server.pages("/v1/usage", asked)]
    if as_json:
        output.document(found)
        return
    table = output.table(by.capitalize(), "Calls", "Money", "Tokens")
    for row in found:
        table.add_row(output.escape(str(row.get(_KEY.get(by, by)) or "–")), f"{row['calls']:,}", row["money"], f"{row['tokens']:,}")
    output.console().print(table)
