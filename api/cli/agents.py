"""`tidelog agents`: the agents that can be run."""

from pathlib import Path
from typing import Any

import typer

from api.cli import options, output

app = typer.Typer(help="Agents that the server knows.", no_args_is_help=True)


@app.callback()
def agents() -> None:
    """The registered agents."""


@app.command("list")
def list_agents(data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """List the agents that workers have registered.

    Example:

      tidelog agents list
    """
    output.run(_list(data_dir, url, as_json))


async def _list(data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, quiet=as_json) as server:
        found = [agent async for agent in server.pages("/v1/agents")]
    if as_json:
        output.document(found)
    elif not found:
        output.say("No agents yet. Run some with: tidelog up --agents FOLDER")
    else:
        _show(found)


def _show(found: list[dict[str, Any]]) -> None:
    table = output.table("Agent", "Version", "Capabilities", "What it does")
    for agent in found:
        first_paragraph = agent["description"].split("\n\n")[0]
        table.add_row(
            f"[bold]{output.escape(agent['name'])}[/bold]", output.escape(agent["version"]),
            output.escape(", ".join(agent["capabilities"])), output.escape(output.shortened(first_paragraph, 160)),
        )  # fmt: skip
    output.console().print(table)
