"""Registered agents and tools as people read them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from api.cli import output
from api.cli.reaching import server_of

MOST_SHOWN = 4000
"""Characters of a description."""


async def read(what: Literal["agents", "tools"], data_dir: Path | None, url: str | None, quiet: bool) -> list[dict[str, Any]]:
    """All registered agents or tools, in the order of their names."""

    async with server_of(data_dir, url, quiet) as server:
        return [definition async for definition in server.pages(f"/v1/{what}")]


def one_of(what: Literal["agent", "tool"], name: str, found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The definition of that name. Raises CommandFailed, which names the definitions of similar names."""
    from application.suggestions import did_you_mean

    for definition in found:
        if definition["name"] == name:
            return definition
    meant = did_you_mean(name, [definition["name"] for definition in found])
    raise output.CommandFailed(f"no {what} '{name}' is registered{meant} (see: tidelog {what}s list)")


def first_paragraph(definition: Mapping[str, Any]) -> str:
    return output.shortened(definition["description"].split("\n\n")[0], 160)


def workers_of(definition: Mapping[str, Any]) -> str:
    """How many workers have it."""
    if definition.get("kind") == "chain":
        return "the server"
    count = definition.get("workers")
    return "" if count is None else str(count) if count else "none"


def arguments_of(schema: Any) -> str:
    """The names of the arguments in short; optional ones in brackets."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return ""
    required = schema.get("required") or ()
    return output.shortened(", ".join(name if name in required else f"[{name}]" for name in schema["properties"]), 60)


def show_head(what: str, definition: Mapping[str, Any], more: Mapping[str, str]) -> None:
    """Prints the name, the version and the description."""
    console = output.console()
    console.print(f"[bold]{what} {output.escape(definition['name'])}[/bold]")
    head = {
        "version": f"{definition['version']} (revision {definition['revision']} of the registration)",
        "registered": definition["registered_at"],
        "capabilities": ", ".join(definition["capabilities"]),
        **more,
    }
    for name, value in head.items():
        if value:
            console.print(f"  [dim]{name:<14}[/dim]{output.escape(value)}")
    if definition.get("unreadable"):
        console.print("  [red]the server cannot read its schemas[/red]")
    if definition["description"].strip():
        output.say(f"\n{output.shortened(definition['description'], MOST_SHOWN)}")


def show_schema(title: str, schema: Any) -> None:
    """Prints a JSON Schema; nothing for a missing one."""
    show_value(title, schema, " (JSON Schema)")


def show_value(title: str, value: Any, kind: str = "") -> None:
    """Prints a JSON value; nothing for a missing one."""
    from rich.json import JSON

    if value is not None:
        console = output.console()
        console.print(f"\n[bold]{title}[/bold]{kind}")
        console.print(JSON.from_data(value))
