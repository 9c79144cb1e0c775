"""`tidelog inbox`: what waits for you, and your word on it."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import inbox_budgets, options, output
from api.cli.amounts import told
from api.cli.budgets import given
from api.cli.ids import GivenId, IdOf
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="What waits for people, and their word on it.", no_args_is_help=False)

APPROVAL = IdOf("approval", "an approval", "inbox list")
STATUSES = ("open", "approved", "denied", "withdrawn")
CALL_WIDTH = 2_000

ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="The approval's id, or its beginning.")]
Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with your word.")]


@app.callback(invoke_without_command=True)
def inbox(context: typer.Context) -> None:
    """What waits for people, and their word on it. Alone: what waits for you."""
    if context.invoked_subcommand is None:
        output.run(_list(None, None, None, 20, options.HERE))


@app.command("list")
@options.with_fields
def list_approvals(
    all_of_them: Annotated[bool, typer.Option("--all", help="Also what waits for others, and what was decided.")] = False,
    status: Annotated[str | None, typer.Option("--status", help="open, approved, denied or withdrawn, of anybody.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="Only calls of this tool.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only calls in this run.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    where: options.Where = options.HERE,
) -> None:
    """List what waits for you, the newest first.

    Examples:

      tidelog inbox list

      tidelog inbox list --status denied --tool mail.send
    """
    if status is not None and status not in STATUSES:
        output.fail(f"--status is one of {', '.join(STATUSES)}", output.WRONG_USAGE)
    wanted = status or ("any" if all_of_them else None)
    output.run(_list(wanted, tool, run, limit, where))


async def _list(status: str | None, tool: str | None, run: str | None, limit: int, where: options.Where) -> None:
    """`status`: `any`, or None for what waits for the caller."""
    given = GivenId.parse(run) if run else None
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        filters = {
            "mine": "true" if status is None else None, "status": None if status == "any" else status, "tool": tool,
            "run_id": await given.complete(server) if given else None,
        }  # fmt: skip
        found = [one async for one in server.pages("/v1/approvals", filters, limit=limit)]
    if where.as_json:
        output.document(found)
    elif not found:
        output.say("Nothing waits for you." if status is None else "No approvals.")
    else:
        _show_list(found)


def _show_list(found: list[dict[str, Any]]) -> None:
    table = output.table("Approval", "What", "Status", "Asked", "Approved", "Until", "Why")
    for one in found:
        table.add_row(
            output.escape(one["approval_id"]), output.escape(_what(one)), output.status(one["status"]),
            _moment(one["requested_at"]),
            f"{one['approvals']} of {one['needed']}", _moment(one.get("deadline_at")),
            output.escape(output.shortened(_why(one), 60)),
        )  # fmt: skip
    output.console().print(table)
    if any(one["status"] == "open" for one in found):
        program = output.program()
        output.say(
            f"Look at one: {program} inbox show ID. Then: {program} inbox approve ID, or {program} inbox deny ID --reason TEXT"
        )


def _what(approval: Mapping[str, Any]) -> str:
    """The tool of a call, the budget, or a question."""
    title = approval.get("title")
    return inbox_budgets.what(approval) if title is None else f"{approval['tool']}: {output.shortened(title, 60)}"


def _moment(at: str | None) -> str:
    return "" if at is None else output.escape(at[:19].replace("T", " "))


def _why(approval: Mapping[str, Any]) -> str:
    if inbox_budgets.is_of_budget(approval):
        return inbox_budgets.why(approval)
    return "; ".join(_because(each) for each in approval["because"]) or "an agent asks"


def _because(because: Mapping[str, Any]) -> str:
    rule = because.get("expression") or "every call"
    by = f"policy {because['policy']} v{because.get('version')}" if because.get("policy") else "the tool"
    error = f", which could not be evaluated: {because['error']}" if because.get("error") else ""
    saw = ", ".join(f"{name} = {output.shortened(value, 60)}" for name, value in (because.get("saw") or {}).items())
    return f"{by}: {rule}{f' ({saw})' if saw else ''}{error}"


@app.command()
@options.with_fields
def show(approval_id: ApprovalId, where: options.Where = options.HERE) -> None:
    """Show exactly which call waits, why, and who has said what.

    Examples:

      tidelog inbox show 0198c0de-…
    """
    output.run(_show(approval_id, where))


async def _show(approval_id: str, where: options.Where) -> None:
    given = GivenId.parse(approval_id, APPROVAL)
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        found = await server.get(f"/v1/approvals/{await given.complete(server)}")
    if where.as_json:
        output.document(found)
    else:
        show_approval(found)


def show_approval(found: Mapping[str, Any]) -> None:
    console = output.console()
    console.print(f"[bold]Approval {output.escape(found['approval_id'])}[/bold]  {output.status(found['status'])}")
    version = f" (version {found['tool_version']})" if found.get("tool_version") else ""
    run = found["run_id"] if found["run_id"] != found.get("invocation_id") else "none"
    roles = ", ".join(found["roles"]) or "nobody"
    of_budget = inbox_budgets.is_of_budget(found)
    asks = "tool" if found.get("title") is None else "name"
    head = inbox_budgets.lines(found) if of_budget else {"question": found.get("title") or "", asks: found["tool"] + version}
    head |= {
        "call": f"{found['invocation_id']} ({found['key']})" if found.get("invocation_id") else "",
        "run": run,
        "for": found.get("on_behalf_of") or "",
        "asked": found["requested_at"],
        "until": f"{found['deadline_at']}, then: {found['default']}" if found.get("deadline_at") else "",
        "needs": f"{found['needed']} of: {roles}" + (", four eyes" if found["four_eyes"] else ""),
        "approved by": f"{found['approvals']} so far" if found["status"] == "open" else "",
        "tainted": "the arguments may come from untrusted output" if found["tainted"] else "",
        "ended": "nobody decided in time" if found.get("expired") else "",
    }
    for label, value in head.items():
        if value:
            console.print(f"  [dim]{label:<14}[/dim]{output.escape(value)}")
    for because in found["because"]:
        console.print(f"  [dim]{'because':<14}[/dim]{output.escape(_because(because))}")
    for word in found["words"]:
        console.print(f"  [dim]{output.escape(word['decision']):<14}[/dim]{output.escape(_word(word))}")
    for notice in found.get("notices") or ():
        console.print(f"  [dim]{'notice':<14}[/dim]{output.escape(_notice(notice))}")
    if not of_budget:
        _show_arguments(found)
    if found["status"] == "open":
        program, short = output.program(), output.one_line(found["approval_id"])
        told = f"You may decide: {program} inbox approve {short} | {program} inbox deny {short} --reason TEXT"
        output.say(told if found["may_decide"] else f"You do not decide it: {output.one_line(found.get('why_not') or 'your role')}")


def _word(word: Mapping[str, Any]) -> str:
    on_behalf = f" for {word['on_behalf_of']}" if word.get("on_behalf_of") else ""
    changed = ", with other arguments" if word.get("changed") else ""
    if word.get("add"):
        changed = f", {told(word['add'], 'of money')} more"
    stale = ", before the arguments were changed" if word.get("counts") is False else ""
    reason = f": {word['reason']}" if word.get("reason") else ""
    via = ", by a link" if word.get("via") == "link" else ""
    return f"{word['by']} ({word['role']}){on_behalf}{via}{changed}{stale}, {word['at']}{reason}"


def _notice(notice: Mapping[str, Any]) -> str:
    """Who is told, how, when, and what came of it."""
    whom = f"to key:{notice['key']}" if notice.get("key") else "to nobody by name"
    address = f" at {notice['address']}" if notice.get("address") else ""
    at = notice["due_at"] if notice["status"] == "planned" else notice.get("ended_at") or notice.get("begun_at") or notice["due_at"]
    error = f": {output.shortened(notice['error'], 300)}" if notice.get("error") else ""
    return f"{notice['status']} {whom}{address}, by {notice['tool']}, {at}{error}"


def _show_arguments(found: Mapping[str, Any]) -> None:
    from api.cli.definitions import show_value

    show_value(
        "Arguments" if found.get("title") is None else "Details",
        found["arguments"],
        " (changed by a person)" if found.get("asked_arguments") is not None else "",
    )
    if found.get("asked_arguments") is not None:
        show_value("Arguments as they were asked for", found["asked_arguments"])
    for field, place in (found.get("large") or {}).items():
        output.say(output.one_line(f"{field}: {place['bytes']:,} bytes, at {place['ref']}"))


@app.command()
@options.with_fields
def approve(
    approval_id: ApprovalId,
    reason: Why = None,
    arguments: Annotated[
        str | None, typer.Option("--arguments", metavar="JSON|@FILE", help="Other arguments for the call: an object, @FILE, or @-.")
    ] = None,
    add: Annotated[
        str | None, typer.Option("--add", metavar="AMOUNTS", help="Of a budget: how much more there is, as 5usd or calls=100.")
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Change the arguments in your editor first.  \\[VISUAL, EDITOR]")] = False,
    on_behalf_of: options.OnBehalfOf = None,
    where: options.Where = options.HERE,
) -> None:
    """Approve a call: it begins, unless more people must approve it. Of a budget: there is more, and all calls that wait go on.

    What you approve is what this command has read: if somebody changes the arguments meanwhile, nothing happens.

    Examples:

      tidelog inbox approve 0198c0de-… --reason "the customer asked for it"

      tidelog inbox approve 0198c0de-… --arguments '{"to": "ada@example.com"}'

      tidelog inbox approve 0198c0de-… --edit

      tidelog inbox approve 0198c0de-… --add 5usd --reason "the report must be out today"
    """
    if (arguments is not None) + edit + (add is not None) > 1:
        output.fail("--arguments, --edit and --add exclude each other", output.WRONG_USAGE)
    changed = None if arguments is None else options.object_of("--arguments", arguments)
    output.run(_decide(approval_id, "approve", reason, changed, edit, on_behalf_of, where, add))


@app.command()
@options.with_fields
def deny(
    approval_id: ApprovalId, reason: Why = None, on_behalf_of: options.OnBehalfOf = None, where: options.Where = options.HERE
) -> None:
    """Deny a call: it fails, and the reason is told to who asked for it. Of a budget: the runs that wait for more of it stop.

    Examples:

      tidelog inbox deny 0198c0de-… --reason "not before Monday"
    """
    output.run(_decide(approval_id, "deny", reason, None, False, on_behalf_of, where))


async def _decide(
    approval_id: str, decision: str, reason: str | None, arguments: dict[str, Any] | None, edit: bool, on_behalf_of: str | None,
    where: options.Where, add: str | None = None,
) -> None:  # fmt: skip
    wanted, more = GivenId.parse(approval_id, APPROVAL), None if add is None else given("--add", add)
    async with server_of(where.data_dir, where.url, where.as_json, on_behalf_of=on_behalf_of) as server:
        path = f"/v1/approvals/{await wanted.complete(server)}"
        found = await server.get(path)
        of_budget = inbox_budgets.is_of_budget(found)
        if of_budget and (edit or arguments is not None):
            raise output.CommandFailed("the approval is of a budget: it has no arguments; give --add", output.WRONG_USAGE)
        if found.get("title") is not None and (edit or arguments is not None):
            raise output.CommandFailed("it is a question of an agent: it has no arguments that could be changed")
        if edit:
            arguments = await _edited(server, found)
        elif arguments is not None:
            await _must_fit(server, found["tool"], arguments)
        said = {
            "decision": decision,
            "reason": reason,
            "arguments": arguments,
            "arguments_hash": found["arguments_hash"],
            "add": more,
        }
        body = {name: value for name, value in said.items() if value is not None}
        answer = await server.post(f"{path}/decision", body)
    if where.as_json:
        output.document(answer)
        return
    if of_budget:
        output.say(output.one_line(inbox_budgets.done(found, answer["status"], more)))
        return
    asks = found.get("title") is not None
    words = {
        "approved": "Approved: the agent goes on." if asks else f"Approved: {found['tool']} is called.",
        "denied": "Denied: the agent goes on with that." if asks else f"Denied: {found['tool']} is not called.",
        "open": f"Recorded. {found['needed']} must approve: others have the next word.",
    }  # fmt: skip
    output.say(output.one_line(words.get(answer["status"], answer["status"])))


async def _must_fit(server: "ServerClient", tool: str, arguments: dict[str, Any]) -> None:
    """Raises CommandFailed for arguments that do not fit the tool. The server looks again."""
    faults = await _faults(server, tool, arguments)
    if faults:
        raise output.CommandFailed("the arguments do not fit the tool:\n" + "\n".join(f"  {fault}" for fault in faults))


async def _faults(server: "ServerClient", tool: str, arguments: dict[str, Any]) -> list[str]:
    from application.tool_schemas import ToolSchemas
    from domain.errors import InvalidCommand
    from tidelog.errors import TidelogAPIError

    try:
        declared = (await server.get(f"/v1/tools/{tool}"))["parameters"]
    except TidelogAPIError:
        return []
    try:
        ToolSchemas().check_arguments(tool, declared, arguments)
    except InvalidCommand as error:
        return [output.one_line(f"{place}: {text}") for place, text in error.faults] or [output.one_line(error.message)]
    return []


async def _edited(server: "ServerClient", found: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the person leaves them in an editor. Asked again until they fit, or the person gives up."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise output.CommandFailed("set EDITOR to your editor, or give --arguments", output.WRONG_USAGE)
    if found.get("large"):
        raise output.CommandFailed("the arguments are too large to be edited here: give --arguments @FILE")
    handle, name = tempfile.mkstemp(suffix=".json", prefix="tidelog-arguments-")  # only its owner may read it
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(found["arguments"], indent=2, ensure_ascii=False) + "\n")
        while True:
            _open(editor, name)
            faults, arguments = _read(Path(name))
            faults = faults or await _faults(server, found["tool"], arguments)
            if not faults:
                return arguments
            for fault in faults:
                output.note(f"  {fault}")
            if not sys.stdin.isatty() or not typer.confirm("Edit again?", default=True, err=True):
                raise output.CommandFailed("nothing was decided: the arguments do not fit the tool")
    finally:
        _remove(name)


def _open(editor: str, name: str) -> None:
    try:
        subprocess.run([*shlex.split(editor), name], check=True)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise output.CommandFailed(output.one_line(error, "the editor failed: ")) from None


def _remove(name: str) -> None:
    Path(name).unlink(missing_ok=True)


def _read(path: Path) -> tuple[list[str], dict[str, Any]]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        return [output.one_line(error, "not JSON: ")], {}
    return ([], value) if isinstance(value, dict) else (["the arguments are a JSON object"], {})
