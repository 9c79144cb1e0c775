"""`tidelog do`: a slash command, typed as it is in a chat or in a shell."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient
    from api.settings import Settings

app = typer.Typer()


@app.command("do", context_settings={"ignore_unknown_options": True})
def do(
    words: Annotated[
        list[str],
        typer.Argument(metavar="/NAME [OPTION=VALUE…] [TEXT…]", help="The command, its options and its text, as one word or many."),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Show the run until it has ended; exit code 1 if not completed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Start nothing: show what would be started or listed.")] = False,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="The project of the run.")] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="The run fails if it goes on longer, such as 10m.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same line with the same key starts one run.")
    ] = None,
    on_behalf_of: options.OnBehalfOf = None,
    folders: options.Agents = None,
    workspace: options.Workspace = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Carry out a slash command: give work, or ask what is there. `tidelog commands list` shows the commands.

    If no server runs, a server is started for the command. With --agents this server also runs your agents.

    Examples:

      tidelog do "/task Write release notes for 0.2, in three parts" --wait

      tidelog do /feature Export reports as CSV tests=always

      tidelog do /swarm Write an invitation to the review size=5

      tidelog do /query agent=critic status=failed since=24h

      tidelog do /task "Write the customer's letter" agent=writer --dry-run
    """
    said = {"project_id": project, "deadline_s": None if deadline is None else options.seconds_of("--deadline", deadline)}
    output.run(_do(text_of(words), wait, dry_run, said, idempotency_key, on_behalf_of, folders, workspace, data_dir, url, as_json))


def text_of(words: Sequence[str]) -> str:
    """The line that the words of a shell say. What the shell has put together stays together; the slash may be missing, since some
    shells take `/task` for a folder.
    """
    from application.slash_commands.line import BadLine, join, read_line

    first = words[0] if words[0].lstrip().startswith("/") else f"/{words[0]}"
    if len(words) == 1:
        return first
    try:
        return join(read_line(first), words[1:])
    except BadLine:
        return " ".join([first, *words[1:]])  # the server says what is wrong


async def _do(
    text: str, wait: bool, dry_run: bool, said: dict[str, Any], key: str | None, on_behalf_of: str | None,
    folders: list[Path] | None, workspace: Path | None, data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from api.cli import connection
    from api.cli.run_body import check_key
    from api.cli.up import check_folders
    from api.settings import load_settings
    from application.slash_commands.filters import NAME
    from application.slash_commands.line import BadLine, read_line

    try:
        asks = read_line(text).name == NAME
    except BadLine as error:
        raise output.CommandFailed(output.one_line(error.message), output.WRONG_USAGE) from None
    body: dict[str, Any] = {"text": text, **{name: value for name, value in said.items() if value is not None}}
    if asks or dry_run:
        async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
            found = await server.post("/v1/commands", {**body, "dry_run": True} if dry_run else body)
        _show(found, as_json)
        return
    if key is not None:
        check_key(key)
    settings = load_settings(
        data_dir=data_dir, url=url, agents=tuple(folders) if folders else None, workspace=workspace, on_behalf_of=on_behalf_of
    )  # fmt: skip
    check_folders(settings)
    async with connection.server(settings, worker=True, quiet=as_json, begins=True) as server:
        await _start(server, settings, body, wait, key, as_json)


async def _start(
    server: "ServerClient", settings: "Settings", body: dict[str, Any], wait: bool, key: str | None, as_json: bool
) -> None:
    from uuid_utils.compat import uuid7

    from api.cli import connection
    from api.cli.runs import to_the_end

    if server.temporary and settings.agents:
        would = await server.post("/v1/commands", {**body, "dry_run": True})
        await connection.wait_for_agents(server, set(_agents_of(would["plan"])))
    if key is None:
        body["run_id"] = str(uuid7())  # with a key the repeat must have the same body
    started: dict[str, Any] = await server.post("/v1/commands", body, key=key)
    if wait:
        await to_the_end(server, started["run_id"], as_json)
    elif as_json:
        output.document(started)
    else:
        output.say(f"Started run {started['run_id']}\n  {output.program()} runs watch {started['run_id']}")
        if server.temporary:
            output.note("No server runs any more, so the run waits: it goes on with the next `tidelog up --agents FOLDER`.")


def _agents_of(plan: Any) -> list[str]:
    """The agents that a plan names, also in the plans of its child runs."""
    steps = plan.get("steps", ()) if isinstance(plan, dict) else ()
    found = [step["agent"] for step in steps if step.get("agent") is not None]
    return found + [name for step in steps if step.get("run") for name in _agents_of(step["run"].get("plan"))]


def _show(found: dict[str, Any], as_json: bool) -> None:
    """A page, or what would be done."""
    from api.cli.invocations import show_list as show_calls
    from api.cli.runs import show_list as show_runs

    data = found.get("data")
    if as_json:
        output.document(found)
    elif data is None:
        _show_plan(found)
    elif not data:
        output.say("Nothing fits all filters.")
    elif "body" in data[0]:
        _show_messages(data)
    elif "invocation_id" in data[0]:
        show_calls(data, then=True)
    else:
        show_runs(data)
    if data and found.get("next_cursor") and not as_json:
        output.note(output.one_line(f"There are more: cursor={found['next_cursor']}"))


def _show_plan(found: dict[str, Any]) -> None:
    if (path := found.get("list")) is not None:
        output.say(output.one_line(f"GET {path}"))
        return
    of = f"version {found['workflow']['version']} of the workflow" if found.get("workflow") else "the shipped command"
    output.say(output.one_line(f"Would start a run of /{found['command']}, {of}, with the input"))
    output.document(found.get("input"))


def _show_messages(data: list[dict[str, Any]]) -> None:
    table = output.table("Sent", "From", "To", "Message")
    for message in data:
        table.add_row(
            output.escape(str(message.get("sent_at") or "")[:19].replace("T", " ")), output.escape(message.get("sender", "")),
            output.escape(message.get("recipient", "")), output.escape(output.shortened(message.get("body"), 100)),
        )  # fmt: skip
    output.console().print(table)
