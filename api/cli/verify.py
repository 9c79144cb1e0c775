"""`tidelog verify`: checks that the read models match the log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()


@app.command()
def verify(
    projection: Annotated[
        list[str] | None, typer.Option("--projection", metavar="NAME", help="Only this read model; repeatable.  \\[default: all]")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show progress until the end. Without: see `tidelog projections list`.")
    ] = True,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Replay the log and compare it with the read models, row by row, while they serve. Exit code 1 if they differ.

    Examples:

      tidelog verify

      tidelog verify --projection runs
    """
    output.run(_verify(projection or [], wait, reason, data_dir, url, as_json))


async def _verify(names: list[str], wait: bool, reason: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        wanted = names or [view["name"] for view in (await server.get("/v1/projections"))["data"]]
        checks = [await _check(server, name, wait, reason, as_json) for name in wanted]
    if as_json:
        output.document(checks)
    wrong = [check["projection"] for check in checks if check["status"] not in ("equal", "requested")]
    if wrong:
        raise output.CommandFailed(f"not what the log says: {', '.join(wrong)}")


async def _check(server: "ServerClient", name: str, wait: bool, reason: str | None, as_json: bool) -> dict[str, Any]:
    """Requests one check and shows its outcome."""
    from api.cli.projections import follow, job_line

    view = await server.post(f"/v1/projections/{name}/verify", {}, reason=reason)
    if wait:
        view = await follow(server, name, "check", until_ready=False, quiet=as_json)
    check: dict[str, Any] = view["check"]
    if not as_json:
        if check["status"] == "equal":
            output.say(f"{name}: equal, {check['rows']:,} rows as of position {check['position']}")
        else:
            output.say(f"{name}: {job_line(check)}")
        if check.get("earlier_rows"):  # missing in answers of an earlier release
            _show_earlier(name, check)
        if check["difference"]:
            _show(check["difference"])
    return {"projection": name, "parked": view["parked"], **check}


def _show_earlier(name: str, check: dict[str, Any]) -> None:
    count = ("" if check["status"] == "equal" else "at least ") + f"{check['earlier_rows']:,}"
    output.say(
        f"  {name} that are still documents of an earlier release: {count}. This is no difference; "
        f"`tidelog projections rebuild {name}` turns them into rows once no process of that release runs"
    )


def _show(difference: dict[str, Any]) -> None:
    key = ", ".join(f"{name} = {value}" for name, value in difference["key"].items())
    where = output.one_line(f"table {difference['table']}" + (f", {key}" if key else ""))
    match difference["what"]:
        case "missing":
            output.say(f"  {where}: the log says there is such a row, the table has none")
        case "surplus":
            output.say(f"  {where}: the table has this row, the log knows nothing of it")
        case _:
            output.say(
                f"  {where}: {output.one_line(difference['column'] or 'columns')} differ as of position {difference['position']}"
            )
            output.say(f"    table: {output.shortened(difference['live'], 400)}")
            output.say(f"    log:   {output.shortened(difference['log'], 400)}")
