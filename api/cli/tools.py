"""`tidelog tools`: the tools that agents can call."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import breakers, definitions, options, output
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from tidelog.models import LimitsInUse, Validation

app = typer.Typer(help="Tools: what they declare, and what changes them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]
Declaration = Annotated[
    str,
    typer.Option("--declaration", metavar="JSON|@FILE", help="What the version declares: a JSON object, @FILE, or @- for stdin."),
]


@app.callback()
def tools() -> None:
    """The registered tools."""


@app.command("list")
@options.with_fields
def list_tools(where: options.Where = options.HERE) -> None:
    """List the tools: those that workers have announced, and those that are data.

    Example:

      tidelog tools list
    """
    output.run(_list(where))


async def _list(where: options.Where) -> None:
    found = await definitions.read("tools", *where)
    if where.as_json:
        output.document(found)
        return
    if not found:
        output.say("No tools yet. Run some with tidelog up --agents FOLDER, or define one with tidelog tools create")
        return
    async with server_of(*where) as server:
        _show_list(found, await breakers.not_closed(server))


KINDS = ("python", "http", "builtin", "chain")


def _show_list(found: list[dict[str, Any]], broken: Mapping[str, str]) -> None:
    table = output.table("Tool", "Version", "Kind", "Workers", "Arguments", "Idempotent", "What it does")
    for tool in found:
        what = output.escape(definitions.first_paragraph(tool))
        state = broken.get(tool["name"])
        table.add_row(
            f"[bold]{output.escape(tool['name'])}[/bold]", output.escape(tool["version"]),
            tool["kind"] if tool.get("kind") in KINDS else "another", definitions.workers_of(tool),
            output.escape(definitions.arguments_of(tool["parameters"])), _idempotent(tool),
            breakers.marked(state) + (f"[yellow]deprecated[/yellow] {what}" if tool.get("deprecated") else what),
        )  # fmt: skip
    output.console().print(table)


def _idempotent(tool: Mapping[str, Any]) -> str:
    if tool["idempotent"]:
        return "yes, 1 attempt" if tool["max_attempts"] == 1 else f"yes, {tool['max_attempts']} attempts"
    return "no, but can be asked" if tool.get("reconcile_timeout_s") else "no"


def _repeats(tool: Mapping[str, Any]) -> str:
    if tool["idempotent"]:
        return _idempotent(tool)
    if tool.get("reconcile_timeout_s"):
        return "no: `reconcile` finds out what became of a call whose outcome is unknown"
    return "no: a call whose outcome is unknown waits for a person"


def _served(tool: Mapping[str, Any]) -> str:
    """How many workers serve a tool now, and what to do if none does."""
    if tool.get("kind") == "chain":
        return "the server carries it out, and calls the tools of its steps"
    if tool.get("workers") != 0:
        return definitions.workers_of(tool)
    if tool.get("kind", "python") == "python":
        return "none: start one that has it, with tidelog worker --agents FOLDER"
    return "none carries it out: start one, with tidelog worker --builtin"


def _secret(tool: Mapping[str, Any]) -> str:
    """The name of the secret that goes with each request. Its value is in the environment of workers only."""
    request = tool.get("request")
    auth = request.get("auth") if isinstance(request, dict) else None
    name = auth.get("secret") if isinstance(auth, dict) else None
    return f"{name}, which is TIDELOG_SECRET_{name.upper()} of its worker" if isinstance(name, str) else ""


@app.command()
@options.with_fields
def show(name: Name, where: options.Where = options.HERE) -> None:
    """Show a tool: what it does, the JSON Schemas of its arguments and its result, its policy, and how far its limits are used.

    Example:

      tidelog tools show web.search
    """
    output.run(_show(name, where))


async def _show(name: str, where: options.Where) -> None:
    tool = definitions.one_of("tool", name, await definitions.read("tools", *where))
    async with server_of(*where) as server:
        state = (await breakers.not_closed(server)).get(tool["name"])
        limits = (await server.client.tool(name)).limits
    if where.as_json:
        output.document({**tool, "limits": None if limits is None else limits.model_dump(mode="json")})
        return
    definitions.show_head(
        "Tool",
        tool,
        {
            "deprecated": _deprecation(tool.get("deprecated")),
            "breaker": f"{state.replace('_', '-')} (tidelog tools breaker {tool['name']})" if state else "",
            "kind": tool.get("kind", ""),
            "workers": _served(tool),
            "idempotent": _repeats(tool),
            "time limit": f"{output.duration(tool['timeout_s'])} for an attempt",
            "reconcile": f"within {output.duration(tool['reconcile_timeout_s'])}" if tool.get("reconcile_timeout_s") else "",
            "secret": _secret(tool),
            "needs": ", ".join([*tool.get("needs_tools", ()), *tool.get("needs_services", ())]),
            "output": "untrusted: it has text of strangers" if tool.get("untrusted_output") else "",
            "built in": tool.get("builtin") or "",
            "calls now": "" if limits is None else _limits(limits, tool.get("policy") or {}),
        },
    )
    definitions.show_schema("Arguments", tool["parameters"])
    definitions.show_schema("Result", tool.get("result"))
    definitions.show_value("Policy", tool.get("policy"))
    definitions.show_value("Request", tool.get("request"))
    definitions.show_value("Chain", tool.get("chain"))
    definitions.show_value("Examples", tool.get("examples") or None)


def _limits(limits: "LimitsInUse", policy: Mapping[str, Any]) -> str:
    """How far the limits are used."""
    most, rate = policy.get("max_parallel"), policy.get("rate") or {}
    told = [f"{limits.in_use} of {most} go on" if most else f"{limits.in_use} go on"]
    if limits.waiting:
        told.append(f"{limits.waiting} or more wait for a permit")
    if limits.tokens is not None:
        left = max(0, int(limits.tokens))
        told.append(f"{left} of {rate['calls']} calls of the rate are left" if "calls" in rate else f"{left} may begin")
    if limits.held_until is not None:
        told.append(f"none begins before {limits.held_until:%Y-%m-%d %H:%M:%S %Z}: the service asked for silence")
    return ", ".join(told)


def _deprecation(hint: Mapping[str, Any] | None) -> str:
    if hint is None:
        return ""
    instead = f"; use {hint['replaced_by']}" if hint.get("replaced_by") else ""
    note = f" ({hint['note']})" if hint.get("note") else ""
    return f"since {hint['since']}{instead}{note}"


app.command("breaker")(breakers.breaker)


@app.command()
@options.with_fields
def versions(name: Name, where: options.Where = options.HERE) -> None:
    """List the versions of a tool, the one that was registered last first. `--json` shows what each declares.

    Example:

      tidelog tools versions web.search
    """
    output.run(_versions(name, where))


async def _versions(name: str, where: options.Where) -> None:
    async with server_of(*where) as server:
        found = [version.model_dump(mode="json") for version in await server.client.tool_versions(name)]
    if where.as_json:
        output.document(found)
        return
    table = output.table("Version", "Registered", "Last registered", "May change", "Arguments")
    for one in found:
        table.add_row(
            output.escape(one["version"]),
            output.escape(one["registered_at"]),
            output.escape(one["last_registered_at"]),
            "no" if one["pinned"] else "yes, with the code",
            output.escape(definitions.arguments_of(one["parameters"])),
        )
    output.console().print(table)


@app.command()
@options.with_fields
def create(
    name: Name,
    declaration: Declaration,
    new_version: Annotated[bool, typer.Option("--new-version", help="Of a tool that is there already.")] = False,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Define a tool that is data, or a new version of it. Tools that are code are announced by their workers.

    Examples:

      tidelog tools create weather --declaration @weather.json

      tidelog tools create weather --declaration @weather-2.json --new-version
    """
    output.run(_create(name, declaration, new_version, reason, where))


async def _create(name: str, declaration: str, new_version: bool, reason: str | None, where: options.Where) -> None:
    declared = options.object_of("--declaration", declaration)
    async with server_of(*where) as server:
        change = server.client.add_tool_version if new_version else server.client.define_tool
        await change(name, declared, reason=reason)
    if where.as_json:
        output.document({"name": name})
    else:
        output.say(f"Defined {'a version of ' if new_version else ''}the tool {name}")


@app.command()
@options.with_fields
def deprecate(
    name: Name,
    replaced_by: Annotated[str | None, typer.Option("--replaced-by", metavar="NAME", help="The tool to use instead.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="What its callers should know.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="The tool is not deprecated any more.")] = False,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Deprecate a tool. It can still be called, and each run that calls it gets a warning in its log.

    Examples:

      tidelog tools deprecate web.search --replaced-by web.find --note "no results after May"

      tidelog tools deprecate web.search --undo
    """
    if undo and (replaced_by is not None or note is not None):
        output.fail("--undo goes without --replaced-by and --note", output.WRONG_USAGE)
    output.run(_deprecate(name, replaced_by, note, undo, reason, where))


async def _deprecate(
    name: str, replaced_by: str | None, note: str | None, undo: bool, reason: str | None,
    where: options.Where,
) -> None:  # fmt: skip
    async with server_of(*where) as server:
        if undo:
            await server.client.reinstate_tool(name, reason=reason)
        else:
            await server.client.deprecate_tool(name, replaced_by=replaced_by, note=note, reason=reason)
    if where.as_json:
        output.document({"name": name, "deprecated": not undo})
    else:
        output.say(f"The tool {name} is {'not deprecated any more' if undo else 'deprecated'}")


@app.command()
@options.with_fields
def remove(
    name: Name,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Remove a tool that no worker offers. It cannot be called any more; calls that were made go on.

    Example:

      tidelog tools remove weather --reason "the service is gone"
    """
    output.run(_remove(name, reason, where))


async def _remove(name: str, reason: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        await server.client.remove_tool(name, reason=reason)
    if where.as_json:
        output.document({"name": name})
    else:
        output.say(f"Removed the tool {name}")


@app.command()
@options.with_fields
def validate(
    name: Name,
    arguments: Annotated[
        str | None, typer.Option("--arguments", metavar="JSON|@FILE", help="What a call would give: an object, @FILE, or @-.")
    ] = None,
    declaration: Annotated[
        str | None,
        typer.Option("--declaration", metavar="JSON|@FILE", help="What a version would declare: an object, @FILE, or @-."),
    ] = None,
    where: options.Where = options.HERE,
) -> None:
    """Check the arguments of a call, or a declaration, without any effect. Shows all faults at once; exits with 1 if there is one.

    Examples:

      tidelog tools validate weather --arguments '{"city": "Bergen"}'

      tidelog tools validate weather --declaration @weather.json
    """
    if (arguments is None) is (declaration is None):
        output.fail("give either --arguments or --declaration", output.WRONG_USAGE)
    output.run(_validate(name, arguments, declaration, where))


async def _validate(name: str, arguments: str | None, declaration: str | None, where: options.Where) -> None:
    option, text = ("--arguments", arguments) if arguments is not None else ("--declaration", declaration)
    given = options.object_of(option, text or "")
    async with server_of(*where) as server:
        check = server.client.validate_arguments if arguments is not None else server.client.validate_declaration
        found = await check(name, given)
    if where.as_json:
        output.document(found.model_dump(mode="json"))
    else:
        _show_faults(found)
    if not found.valid:
        raise SystemExit(output.FAILED)


def _show_faults(found: "Validation") -> None:
    for error in found.errors:
        output.say(f"{output.shortened(error.pointer or '/', 200)}: {output.shortened(error.detail, 500)}")
    if found.warning:
        output.say(f"Warning: {output.shortened(found.warning, 500)}")
    if found.valid:
        output.say("Valid.")
