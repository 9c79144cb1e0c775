"""`tidelog commands`: which slash commands there are, what they start, and the agents of the shipped ones."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer(help="Slash commands, which `tidelog do` carries out.", no_args_is_help=True)


@app.command("list")
@options.with_fields
def list_commands(where: options.Where = options.HERE) -> None:
    """List the slash commands: the shipped ones, and workflows of yours that have a `command`.

    Example:

      tidelog commands list
    """
    output.run(_list(where))


async def _list(where: options.Where) -> None:
    async with server_of(*where) as server:
        found = [command async for command in server.pages("/v1/commands")]
    if where.as_json:
        output.document(found)
        return
    table = output.table("Command", "Options", "From", "What it does")
    for command in found:
        names = [name for name in _properties(command) if name != command.get("text")]
        version = command.get("workflow_version")
        of = "shipped" if command.get("source") == "shipped" else f"workflow, version {version}"
        table.add_row(
            f"[bold]/{output.escape(command['name'])}[/bold]", output.escape(output.shortened(", ".join(names), 60)), of,
            output.escape(output.shortened(command.get("help") or "", 120)),
        )  # fmt: skip
    output.console().print(table)


@app.command()
@options.with_fields
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The command's name, with or without its slash.")],
    as_yaml: Annotated[bool, typer.Option("--yaml", help="What it starts, as a file for `tidelog workflows create`.")] = False,
    where: options.Where = options.HERE,
) -> None:
    """Show a slash command: its options, and what it starts.

    Examples:

      tidelog commands show task

      tidelog commands show task --yaml > task.yaml
    """
    output.run(_show(name.removeprefix("/"), as_yaml, where))


async def _show(name: str, as_yaml: bool, where: options.Where) -> None:
    from urllib.parse import quote

    from api.cli.workflow_files import text_of

    async with server_of(where.data_dir, where.url, where.as_json or as_yaml) as server:
        found: dict[str, Any] = await server.get(f"/v1/commands/{quote(name, safe='')}")
    definition = found.get("definition")
    if where.as_json:
        output.document(found)
    elif as_yaml:
        if not isinstance(definition, dict):
            raise output.CommandFailed(output.one_line(f"/{name} starts no workflow"))
        rest = {part: value for part, value in definition.items() if part != "name"}
        output.say(text_of(found["name"], rest).rstrip("\n"))
    else:
        _describe(found)


def _describe(found: dict[str, Any]) -> None:
    text, console = found.get("text"), output.console()
    console.print(f"[bold]/{output.escape(found['name'])}[/bold]  {output.escape(found.get('help') or '')}")
    shipped = found.get("source") == "shipped"
    output.say("  shipped" if shipped else f"  your workflow, version {found.get('workflow_version')}")
    needed = (found.get("parameters") or {}).get("required") or []
    table = output.table("Option", "Default", "What it says")
    for name, schema in _properties(found).items():
        said = schema if isinstance(schema, dict) else {}
        what = [str(said.get("description") or ""), f"one of {', '.join(map(str, said['enum']))}" if "enum" in said else ""]
        default = output.shortened(said["default"], 40) if "default" in said else "needed" if name in needed else ""
        label = "the text" if name == text else f"{name}="
        table.add_row(output.escape(label), output.escape(default), output.escape("; ".join(part for part in what if part)))
    console.print(table)


def _properties(command: dict[str, Any]) -> dict[str, Any]:
    found = (command.get("parameters") or {}).get("properties")
    return found if isinstance(found, dict) else {}


@app.command()
def crew(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that is not there yet.")]) -> None:
    """Write the agents of the shipped commands into a folder. They need no model, and are a beginning for your own.

    Example:

      tidelog commands crew ./crew

      tidelog up --agents ./crew
    """
    output.guarded(lambda: _write_crew(folder))


def _write_crew(folder: Path) -> None:
    try:
        shutil.copytree(crew_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    except FileExistsError:
        raise output.CommandFailed(output.one_line(f"{folder} is there already"), output.WRONG_USAGE) from None
    except OSError as error:
        raise output.CommandFailed(output.one_line(f"{folder}: {error.strerror or error}")) from None
    output.say(output.one_line(f"Wrote the agents to {folder}. Run them: {output.program()} up --agents {folder}"))


def crew_folder() -> Path:
    """In a wheel beside this file, in the repository among the examples."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "crew", here.parents[2] / "examples" / "crew"):
        if folder.is_dir():
            return folder
    raise output.CommandFailed("the example agents (the folder crew) are missing from this installation: install it again")
