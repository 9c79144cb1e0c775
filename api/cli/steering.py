"""`tidelog runs pause` and `resume`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()
RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]
Why = Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")]


@app.command()
def pause(
    run_id: RunId,
    reason: Why = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Pause a run: nothing begins in it, nor in its child runs, until it is resumed.

    Agents are taken from their workers within a second, and go on from their journals later. A call of a tool that has begun ends,
    and its outcome is recorded.

    Example:

      tidelog runs pause 0198c0de-… --reason "the prices look wrong"
    """
    output.run(_steer("pause", "Paused", run_id, reason, on_behalf_of, data_dir, url, as_json))


@app.command()
def resume(
    run_id: RunId,
    reason: Why = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Let a paused run go on where it was.

    Example:

      tidelog runs resume 0198c0de-… --reason "the prices are right"
    """
    output.run(_steer("resume", "Resumed", run_id, reason, on_behalf_of, data_dir, url, as_json))


async def _steer(
    what: str, done: str, run_id: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    from tidelog.values import to_json

    given = GivenId.parse(run_id)
    body: dict[str, Any] = {"reason": to_json(reason, "--reason")} if reason else {}
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        accepted = await _post(server, wanted, what, body)
    if as_json:
        output.document(accepted)
    else:
        output.say(f"{done} run {wanted}")


async def _post(server: "ServerClient", run_id: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
    accepted: dict[str, Any] = await server.post(f"/v1/runs/{run_id}/{what}", body)
    return accepted
