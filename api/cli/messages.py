"""`tidelog runs messages`: what the agents of a run said to one another."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.large_values import left_out

app = typer.Typer()


@app.command()
def messages(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")],
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the messages between the agents of a run, in the order of sending.

    Example:

      tidelog runs messages 0198c0de-…
    """
    output.run(_messages(run_id, data_dir, url, as_json))


async def _messages(run_id: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    given = GivenId.parse(run_id)
    settings = load_settings(data_dir=data_dir, url=url)
    async with connection.server(settings, quiet=as_json) as server:
        found = [message async for message in server.pages(f"/v1/runs/{await given.complete(server)}/messages")]
    if as_json:
        output.document(found)
        return
    if not found:
        output.say("No messages.")
        return
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
