"""Values that the server's answers only refer to, and `tidelog runs result`, which prints one."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()


def left_out(holder: Mapping[str, Any], field: str, how: str) -> str | None:
    """The size of a value that an answer only refers to, and the way to the value. None: the answer has the value."""
    place = (holder.get("large") or {}).get(field)
    return None if place is None else f"{place['bytes']:,} bytes: {how}"


def command_of(run_id: str, step: str | None = None) -> str:
    """The command that prints a result."""
    return f"{output.program()} runs result {run_id}" + (f" --step {step}" if step else "")


async def fill(server: "ServerClient", *holders: dict[str, Any]) -> None:
    """Gets the values of a run or of calls that the server left out, but not those of the run's steps."""
    from tidelog import large

    await large.fill(holders, server.get)


@app.command()
def result(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")],
    step: Annotated[str | None, typer.Option("--step", metavar="KEY", help="The result of this step of the run.")] = None,
    at: options.At = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the whole result of a run, or of one of its steps: a text as it is, else JSON. Exit code 1 if there is none.

    Examples:

      tidelog runs result 0198c0de-…

      tidelog runs result 0198c0de-… --step writer --json > result.json
    """
    output.run(_result(run_id, step, at, data_dir, url, as_json))


async def _result(run_id: str, step: str | None, at: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, True) as server:
        path = f"/v1/runs/{await given.complete(server)}" + (f"/steps/{quote(step, safe='')}" if step else "")
        found = await server.get(f"{path}/result", {"as_of": at})
    if isinstance(found, str) and not as_json:
        output.say(found)
    else:
        output.document(found)
