"""`tidelog agents`: the agents that can be run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import definitions, options, output

app = typer.Typer(help="Agents that the server knows.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]


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
    found = await definitions.read("agents", data_dir, url, as_json)
    if as_json:
        output.document(found)
    elif not found:
        output.say("No agents yet. Run some with: tidelog up --agents FOLDER")
    else:
        _show_list(found)


def _show_list(found: list[dict[str, Any]]) -> None:
    table = output.table("Agent", "Version", "Workers", "Capabilities", "What it does")
    for agent in found:
        table.add_row(
            f"[bold]{output.escape(agent['name'])}[/bold]", output.escape(agent["version"]), definitions.workers_of(agent),
            output.escape(", ".join(agent["capabilities"])), output.escape(definitions.first_paragraph(agent)),
        )  # fmt: skip
    output.console().print(table)


@app.command()
def show(name: Name, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show an agent: what it does, and the JSON Schemas of its input and output.

    Example:

      tidelog agents show writer
    """
    output.run(_show(name, data_dir, url, as_json))


async def _show(name: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    agent = definitions.one_of("agent", name, await definitions.read("agents", data_dir, url, as_json))
    if as_json:
        output.document(agent)
        return
    definitions.show_head("Agent", agent, {"workers": definitions.workers_of(agent)})
    definitions.show_schema("Input", agent["input_schema"])
    definitions.show_schema("Output", agent["output_schema"])
