"""`tidelog runs signal`: what an agent of a run waits for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import bulk, options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

app = typer.Typer()


@app.command()
@options.with_fields
def signal(
    run_id: Annotated[
        str, typer.Argument(metavar="ID", help="The run's id, or its beginning. With --where or --all it is left out.")
    ],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The name for which an agent waits: ctx.signal(NAME).")] = None,
    payload: Annotated[
        str | None, typer.Argument(metavar="[PAYLOAD]", help="What the agent gets: JSON, or else a text. Default: null.")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", help="Only the agent of this step receives it.")] = None,
    signal_id: Annotated[
        str | None, typer.Option("--id", help="A name for this signal: sent again with the same name, it counts once.")
    ] = None,
    many: bulk.Many = bulk.ONE,
    reason: Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Send a signal to the agents of a run, or of many. The first that waits for it receives it, now or later.

    Examples:

      tidelog runs signal 0198c0de-… go '{"by": "Ada"}'

      tidelog runs signal go --where agent=critic --reason "the prices are right"
    """
    if many.where or many.every:
        if payload is not None or signal_id is not None:
            raise typer.BadParameter("with --where or --all: NAME and [PAYLOAD] without an ID, and no --id")
        output.run(bulk.act("signal", many, reason, _for_many(run_id, name, step), on_behalf_of, data_dir, url, as_json))
        return
    many.meant(run_id)
    if name is None:
        raise typer.BadParameter("give the NAME of the signal")
    output.run(_signal(run_id, name, payload, step, signal_id, reason, on_behalf_of, data_dir, url, as_json))


async def _signal(
    run_id: str, name: str, payload: str | None, step: str | None, signal_id: str | None, reason: str | None,
    on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from tidelog.values import to_json

    given = GivenId.parse(run_id)
    body: dict[str, Any] = {"name": to_json(name, "NAME"), "payload": to_json(_value(payload), "PAYLOAD")}
    if step is not None:
        body["step"] = to_json(step, "--step")
    if signal_id is not None:
        body["id"] = to_json(signal_id, "--id")
    if reason is not None:
        body["reason"] = to_json(reason, "--reason")
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        accepted: dict[str, Any] = await server.post(f"/v1/runs/{wanted}/signals", body)
    if as_json:
        output.document(accepted)
    else:
        output.say(output.one_line(f"{name} to the run {wanted}", before="Sent "))


def _for_many(name: str, payload: str | None, step: str | None) -> dict[str, Any]:
    """What each run gets. Without an id, the name comes first."""
    from tidelog.values import to_json

    signal = {"name": to_json(name, "NAME"), "payload": to_json(_value(payload), "PAYLOAD")}
    return {"signal": signal if step is None else signal | {"step": to_json(step, "--step")}}


def _value(text: str | None) -> Any:
    """JSON, or else the text itself."""
    import json

    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text
