"""`tidelog tools`: the tools that agents can call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import definitions, options, output

app = typer.Typer(help="Tools that the server knows.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]


@app.callback()
def tools() -> None:
    """The registered tools."""


@app.command("list")
def list_tools(data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """List the tools that workers have registered.

    Example:

      tidelog tools list
    """
    output.run(_list(data_dir, url, as_json))


async def _list(data_dir: Path | None, url: str | None, as_json: bool) -> None:
    found = await definitions.read("tools", data_dir, url, as_json)
    if as_json:
        output.document(found)
    elif not found:
        output.say("No tools yet. Run some with: tidelog up --agents FOLDER")
    else:
        _show_list(found)


def _show_list(found: list[dict[str, Any]]) -> None:
    table = output.table("Tool", "Version", "Workers", "Arguments", "Idempotent", "What it does")
    for tool in found:
        table.add_row(
            f"[bold]{output.escape(tool['name'])}[/bold]", output.escape(tool["version"]), definitions.workers_of(tool),
            output.escape(definitions.arguments_of(tool["parameters"])), _idempotent(tool),
            output.escape(definitions.first_paragraph(tool)),
        )  # fmt: skip
    output.console().print(table)


def _idempotent(tool: Mapping[str, Any]) -> str:
    return f"yes, {tool['max_attempts']} attempts" if tool["idempotent"] else "no"


@app.command()
def show(name: Name, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show a tool: what it does, and the JSON Schema of its arguments.

    Example:

      tidelog tools show web.search
    """
    output.run(_show(name, data_dir, url, as_json))


async def _show(name: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    tool = definitions.one_of("tool", name, await definitions.read("tools", data_dir, url, as_json))
    if as_json:
        output.document(tool)
        return
    definitions.show_head(
        "Tool",
        tool,
        {
            "workers": definitions.workers_of(tool),
            "idempotent": _idempotent(tool) if tool["idempotent"] else "no: a call whose outcome is unknown waits for a person",
            "time limit": f"{output.duration(tool['timeout_s'])} for an attempt",
        },
    )
    definitions.show_schema("Arguments", tool["parameters"])
