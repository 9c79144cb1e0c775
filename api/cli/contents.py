"""`tidelog runs calls`, `journal` and `messages`: what is inside a run, completely."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output, phrases
from api.cli.ids import GivenId
from api.cli.large_values import left_out
from api.cli.reaching import server_of

app = typer.Typer()

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]


Show = Callable[[list[dict[str, Any]]], None]
Listed = Callable[[str, str | None, Path | None, str | None, bool], Coroutine[Any, Any, None]]


def _command(none: str) -> Callable[[Show], Listed]:
    """Makes the command of a list, with the name and the help of the function that shows the entries.

    `none`: what is said about a run without entries. The result carries out the command.
    """

    def made(show: Show) -> Listed:
        def command(
            run_id: RunId,
            at: options.At = None,
            data_dir: options.DataDir = None,
            url: options.Url = None,
            as_json: options.AsJson = False,
        ) -> None:
            output.run(listed(run_id, at, data_dir, url, as_json))

        async def listed(run_id: str, at: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:

            given = GivenId.parse(run_id)
            async with server_of(data_dir, url, as_json) as server:
                path = f"/v1/runs/{await given.complete(server)}/{show.__name__}"
                found = [item async for item in server.pages(path, {"as_of": at})]
            if as_json:
                output.document(found)
            elif found:
                show(found)
            else:
                output.say(none)

        app.command(show.__name__, help=show.__doc__)(command)
        return listed

    return made


@_command("No tool calls.")
def calls(found: list[dict[str, Any]]) -> None:
    """List all tool calls of a run, in the order of their start. `runs show` shows the newest ones.

    Examples:

      tidelog runs calls 0198c0de-…

      tidelog runs calls 0198c0de-… --at 42 --json
    """
    table = output.table("Position", "Step", "Key", "Tool", "Status", "Attempts", "Took", "Id")
    for call in found:
        table.add_row(
            str(call["position"]), output.escape(call["step"]), output.escape(call["key"]), output.escape(call["tool"]),
            output.call_status(call), str(call["attempts"]), phrases.took(call), str(call["invocation_id"]),
        )  # fmt: skip
    output.console().print(table)


@_command("No entries.")
def journal(found: list[dict[str, Any]]) -> None:
    """List what the agents of a run have finished, so that their next attempts do not repeat it.

    Example:

      tidelog runs journal 0198c0de-…
    """
    for entry in found:
        time, kind = entry["at"][:23].replace("T", " "), entry["kind"].replace("_", " ")
        named = output.one_line(f"{entry['step'] or '?'}: {kind} {entry['key']}  {_what(entry)}".rstrip())
        output.say(f"{entry['position']:>7}  {output.one_line(time)}  {named}")


def _what(entry: dict[str, Any]) -> str:
    """The result of an entry, or what it refers to."""
    if (large := left_out(entry, "result", f"{output.program()} events show {entry['position']}")) is not None:
        return large
    if entry["tool"] is not None:
        return f"{entry['tool']} {entry['invocation_id']}"
    if entry["succeeded"] is not None:
        return "succeeded" if entry["succeeded"] else "failed"
    return "" if entry["result"] is None else output.gist(entry["result"], 120)


@_command("No messages.")
def messages(found: list[dict[str, Any]]) -> None:
    """Show the messages between the agents of a run, in the order of sending.

    Examples:

      tidelog runs messages 0198c0de-…

      tidelog runs messages 0198c0de-… --at 42
    """
    table = output.table("Position", "Sent", "From", "To", "Status", "Message")
    for message in found:
        hint = f"{output.program()} events show {message['position']}"
        status = message["status"] + (f": {message['refused']}" if message["refused"] else "")
        table.add_row(
            str(message["position"]), message["sent_at"][:19].replace("T", " "), output.escape(message["sender"]),
            output.escape(message["recipient"]), output.escape(status),
            output.escape(left_out(message, "body", hint) or output.gist(message["body"], 160)),
        )  # fmt: skip
    output.console().print(table)
