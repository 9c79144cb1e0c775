"""`tidelog diff`: where two runs differ, or two moments of one, the first place in front."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

app = typer.Typer()


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, or its beginning.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The id of another run, or its beginning. Without it: the same run.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="WHEN", help="The first run as of a position or a time.")] = None,
    with_at: Annotated[
        str | None, typer.Option("--with-at", metavar="WHEN", help="The other one as of a position or a time.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many differences.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where two runs differ: input, plan, versions of agents, recorded results, arguments and results of calls, outcomes.

    Runs are compared step by step and key by key, whatever ran side by side. Ids and times do not count, and what a fork took over
    is not missing in it. Exit code 1 if they differ.

    Examples:

      tidelog diff 0198c0de-… 0198c0df-…

      tidelog diff 0198c0de-… --at 42 --with-at 60
    """
    if other is None and at is None and with_at is None:
        output.fail("name another run, or two moments of this one: --at and --with-at", output.WRONG_USAGE)
    found: list[Mapping[str, Any]] = []
    output.run(_diff(one, other, {"as_of": at, "with_as_of": with_at, "limit": limit}, data_dir, url, as_json, found))
    if found[0]["count"] or found[0]["state"]:
        raise typer.Exit(1)


async def _diff(
    one: str,
    other: str | None,
    asked: dict[str, Any],
    data_dir: Path | None,
    url: str | None,
    as_json: bool,
    told: list[Mapping[str, Any]],
) -> None:
    given, given_other = GivenId.parse(one), None if other is None else GivenId.parse(other)
    async with server_of(data_dir, url, as_json) as server:
        asked["with"] = None if given_other is None else await given_other.complete(server)
        wanted = {name: value for name, value in asked.items() if value is not None}
        found = await server.get(f"/v1/runs/{await given.complete(server)}/diff", wanted)
    if as_json:
        ids = found["run_id"], found["with_id"]
        output.document(
            {
                "runs": list(ids),
                "differences": found["count"],
                "same": found["same"],
                "data": found["data"],
                "state": found["state"],
            }
        )
    else:
        show(found)
    told.append(found)


def show(found: Mapping[str, Any]) -> None:
    if found["run_id"] != found["with_id"]:
        sides = f"run {found['run_id']}", f"run {found['with_id']}"
    else:
        sides = f"position {found['position']}", f"position {found['with_position']}"
    if not found["data"]:
        output.say(f"They say the same: {found['same']:,} values.")
    else:
        first, *more = found["data"]
        output.say(f"They differ first at {output.one_line(_place(first))}:")
        _show(first)
        if more:
            output.say(f"\nThen, {found['count'] - 1:,} more:")
        for each in more:
            output.say(f"  {output.one_line(_place(each))}")
            _show(each, "    ")
        if (left := found["count"] - 1 - len(more)) > 0:
            output.say(f"… {left:,} more: --limit")
    if found["run_id"] == found["with_id"] and found["state"]:
        output.say("\nThe run:")
        for change in found["state"]:
            before, after = (
                "nothing" if text is None else output.shortened(text, 100) for text in (change["before"], change["after"])
            )
            told = f"{change['path']}: {before} → {after}"
            output.say(f"  {output.one_line(told)}")
    output.say(output.one_line(f"- {sides[0]}"))
    output.say(output.one_line(f"+ {sides[1]}"))


def _place(each: Mapping[str, Any]) -> str:
    where = "" if each["step"] is None else f"step '{each['step']}'" + (f", '{each['key']}'" if each["key"] else "")
    return f"{where}: {each['what']}" if where else str(each["what"])


def _show(each: Mapping[str, Any], indent: str = "  ") -> None:
    for sign, text, position in (("-", each["before"], each["position"]), ("+", each["after"], each["other_position"])):
        told = "nothing" if text is None else f"{output.shortened(text, 160)}  (position {position})"
        output.say(f"{indent}{output.one_line(f'{sign} {told}')}")
