"""`tidelog diff`: where two runs differ, the first place in front."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from tidelog.divergence import Comparison, Difference

app = typer.Typer()


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, or its beginning.")],
    other: Annotated[str, typer.Argument(metavar="RUN", help="The id of another run, or its beginning.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many differences.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where two runs differ: input, plan, versions of agents, recorded results, arguments and results of calls, outcomes.

    Runs are compared step by step and key by key, whatever ran side by side. Ids and times do not count, and what a fork took over
    is not missing in it. Exit code 1 if they differ.

    Example:

      tidelog diff 0198c0de-… 0198c0df-…
    """
    found: list[Comparison] = []
    output.run(_diff(one, other, limit, data_dir, url, as_json, found))
    if found[0].count:
        raise typer.Exit(1)


async def _diff(
    one: str, other: str, limit: int, data_dir: Path | None, url: str | None, as_json: bool, told: "list[Comparison]"
) -> None:
    from tidelog.divergence import compare

    given, given_other = GivenId.parse(one), GivenId.parse(other)
    async with server_of(data_dir, url, as_json) as server:
        ids = await given.complete(server), await given_other.complete(server)
        found = await compare(*(server.pages(f"/v1/runs/{id}/events") for id in ids))
    if as_json:
        shown = [each.document() for each in found.differences[:limit]]
        output.document({"runs": list(ids), "differences": found.count, "same": found.same, "data": shown})
    else:
        _print(ids, found, limit)
    told.append(found)


def _print(ids: tuple[str, str], found: "Comparison", limit: int) -> None:
    if not found.count:
        output.say(f"The runs say the same: {found.same:,} values.")
        return
    first, *more = found.differences[:limit]
    output.say(f"The runs differ first at {output.one_line(first)}:")
    _show(first)
    if more:
        output.say(f"\nThen, {found.count - 1:,} more:")
    for each in more:
        output.say(f"  {output.one_line(each)}")
        _show(each, "    ")
    if (left := found.count - 1 - len(more)) > 0:
        output.say(f"… {left:,} more: --limit")
    output.say(f"\n  - run {ids[0]}\n  + run {ids[1]}")


def _show(each: "Difference", indent: str = "  ") -> None:
    for sign, text, position in (("-", each.before, each.position), ("+", each.after, each.other_position)):
        told = "nothing" if text is None else f"{output.shortened(text, 160)}  (position {position})"
        output.say(output.one_line(f"{sign} {told}") if not indent else f"{indent}{output.one_line(f'{sign} {told}')}")
