"""`tidelog runs retry` and `deadline`: what failed in a run runs again; a run gets more time, or less."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import bulk, options, output
from api.cli.ids import GivenId
from api.cli.options import seconds_of
from api.cli.reaching import server_of

app = typer.Typer()


@app.command()
@options.with_fields
def retry(
    run_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The run's id, or its beginning.")] = None,
    steps: Annotated[
        list[str] | None, typer.Argument(metavar="[STEP…]", help="Failed steps. All that failed if not given.")
    ] = None,
    many: bulk.Many = bulk.ONE,
    reason: Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")] = None,
    version: Annotated[
        list[str] | None,
        typer.Option("--agent-version", metavar="STEP=VERSION", help="The version of a step's agent; repeatable."),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="Time for the run from now on, such as 10m.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Agents begin from nothing: what they did before they failed is done again.")
    ] = False,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Run again what failed in a run, or in many. Finished steps keep their results, and agents go on where they were.

    The run may have failed, been cancelled, or ended degraded; or it still goes on.

    Examples:

      tidelog runs retry 0198c0de-… --reason "the agent was mended"

      tidelog runs retry 0198c0de-… review --reason "reads such files now" --agent-version review=2.0.0

      tidelog runs retry --where agent=critic --where "error=connection refused" --reason "the service is back"
    """
    if many.meant(run_id):
        if version or deadline is not None:
            raise typer.BadParameter("--agent-version and --deadline are for one run")
        output.run(bulk.act("retry", many, reason, {"fresh": True} if fresh else {}, on_behalf_of, data_dir, url, as_json))
        return
    if reason is None:
        raise typer.BadParameter("give --reason: it is recorded")
    assert run_id is not None
    output.run(
        _retry(run_id, tuple(steps or ()), reason, tuple(version or ()), deadline, fresh, on_behalf_of, data_dir, url, as_json)
    )


async def _retry(
    run_id: str, steps: tuple[str, ...], reason: str, versions: tuple[str, ...], deadline: str | None, fresh: bool,
    on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from uuid_utils.compat import uuid7

    from tidelog.values import to_json

    given = GivenId.parse(run_id)
    body: dict[str, Any] = {"reason": to_json(reason, "--reason")}
    if steps:
        body["steps"] = [to_json(step, "STEP") for step in steps]
    if versions:
        body["versions"] = dict(_version(version) for version in versions)
    if deadline is not None:
        body["deadline_s"] = seconds_of("--deadline", deadline)
    if fresh:
        body["fresh"] = True
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        accepted: dict[str, Any] = await server.post(f"/v1/runs/{wanted}/retry", body, key=str(uuid7()))
    if as_json:
        output.document(accepted)
    else:
        output.say(f"Run {wanted} goes on\n  {output.program()} runs watch {wanted}")


def _version(given: str) -> tuple[str, str]:
    step, sign, version = given.partition("=")
    if not sign or not step or not version:
        raise output.CommandFailed(f"--agent-version is a step, `=` and a version, as review=2.0.0; not {given!r}")
    return step, version


@app.command()
def deadline(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")],
    time: Annotated[str, typer.Argument(metavar="TIME", help="Time from now, such as 10m or 2h; or none.")],
    reason: Annotated[str, typer.Option("--reason", help="The reason; it is recorded.")],
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Give a run more time, or less. When the time is over, the run fails, and what is under way in it is cancelled.

    Examples:

      tidelog runs deadline 0198c0de-… 2h --reason "the service is slow today"

      tidelog runs deadline 0198c0de-… none --reason "it takes the time that it takes"
    """
    output.run(_deadline(run_id, time, reason, on_behalf_of, data_dir, url, as_json))


async def _deadline(
    run_id: str, time: str, reason: str, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from uuid_utils.compat import uuid7

    from tidelog.values import to_json

    given, seconds = GivenId.parse(run_id), None if time == "none" else seconds_of("TIME", time)
    body = {"deadline_s": seconds, "reason": to_json(reason, "--reason")}
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        accepted: dict[str, Any] = await server.post(f"/v1/runs/{wanted}/deadline", body, key=str(uuid7()))
    if as_json:
        output.document(accepted)
    else:
        output.say(f"Run {wanted} has {'no deadline' if seconds is None else output.duration(seconds)}")
