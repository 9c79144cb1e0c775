"""`tidelog cases`: recorded runs as files in a repository, against which agents are run, without a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from tidelog.testing.cases import Case

app = typer.Typer(help="Recorded runs as files, against which agents are run in CI.", no_args_is_help=True)

FOLDER = Path("cases")


@app.command()
def add(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the case; the run's id if not given.")] = None,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder of the cases.")] = FOLDER,
    replace: Annotated[bool, typer.Option("--replace", help="Record a case that is there anew. What it expects stays.")] = False,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a run into a file: what its agents got, what they recorded, the results of their calls, and how they ended.

    In the file, `expect` says how the run must end, how often each tool may be called, and what calls may cost; change it as you
    like. The file has inputs and results in plain text: look at it before you publish it.

    Examples:

      tidelog cases add 0198c0de-… --name pays-once

      tidelog cases add 0198c0df-… --name pays-once --replace
    """
    output.run(_add(run_id, name, to, replace, data_dir, url, as_json))


async def _add(
    run_id: str, name: str | None, to: Path, replace: bool, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from api.cli import large_values
    from api.cli.dry_run import recorded
    from tidelog.testing.cases import SUFFIX, case_of

    given = GivenId.parse(run_id)
    if name is not None and (not name or name.startswith(".") or not all(each.isalnum() or each in "-_." for each in name)):
        raise output.CommandFailed("--name: letters, digits, -, _ and . only, and no . in front", output.WRONG_USAGE)
    async with server_of(data_dir, url, as_json) as server:
        wanted = await given.complete(server)
        run = await server.get(f"/v1/runs/{wanted}")
        await large_values.fill(server, run)
        records = await recorded(server, wanted)
    if run["finished_at"] is None:
        raise output.CommandFailed(f"run {wanted} has not ended: what it records further would be missing")
    if not records:
        raise output.CommandFailed(f"no agent has begun in run {wanted}")
    path = to / f"{name or wanted}{SUFFIX}"
    before = _loaded(path) if path.exists() else None
    if before is not None and not replace:
        raise output.CommandFailed(output.one_line(f"{path} is there already; --replace records it anew"))
    case = case_of(name or wanted, run, records)
    if before is not None:
        case = case.model_copy(update={"expect": before.expect})
    case.save(path)
    if as_json:
        output.document({"path": str(path), "name": case.name, "run": wanted, "records": len(records)})
    else:
        number = f"{len(records)} execution{'' if len(records) == 1 else 's'}"
        output.say(output.one_line(f"Wrote {path}: {number} of agents, {told_of(case)}"))
        output.say(f"  {output.program()} cases run --agents FOLDER")


@app.command()
def run(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="Files or folders; ./cases if not given.")] = None,
    folders: options.Agents = None,
    run_steps: Annotated[
        bool, typer.Option("--run-steps", help="Also run the functions of ctx.step, and compare their results.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run agents' present code against cases. No server is needed, no tool is called. Exit code 1 if a case fails.

    Example:

      tidelog cases run cases --agents ./agents
    """
    output.run(_run(paths or [FOLDER], folders, run_steps, as_json))


def told_of(case: "Case") -> str:
    """What a case expects, in words."""
    cost = case.expect.cost
    money = f"{cost.money} of money" if cost is not None and cost.money not in (None, "0") else ""
    tokens = f"{cost.tokens:,} tokens" if cost is not None and cost.tokens else ""
    most = f", at most {' and '.join(filter(None, (money, tokens)))}" if money or tokens else ""
    number = sum(case.expect.calls.values())
    return f"expected to end {case.expect.outcome}, with {number} call{'' if number == 1 else 's'} of tools{most}"


def _loaded(file: Path) -> "Case":
    from pydantic import ValidationError

    from tidelog.testing.cases import Case

    try:
        return Case.load(file)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"/{part}" for part in first["loc"])
        told = output.one_line(f"{file} is no case: {place} {first['msg']}")
        raise output.CommandFailed(told, output.WRONG_USAGE) from None


async def _run(paths: list[Path], folders: list[Path] | None, run_steps: bool, as_json: bool) -> None:
    from api.cli.dry_run import found_in
    from tidelog.testing.cases import files_in, run_case

    for path in paths:
        if not path.exists():
            raise output.CommandFailed(output.one_line(f"there is no {path}"), output.WRONG_USAGE)
    files = files_in(paths)
    if not files:
        raise output.CommandFailed(output.one_line(f"no cases in {', '.join(map(str, paths))}"), output.WRONG_USAGE)
    found = found_in(folders)
    agents, tools = [agent.cls for agent in found.agents.values()], [each.tool for each in found.tools.values()]
    results = []
    for file in files:
        result = await run_case(_loaded(file), agents, tools=tools, run_steps=run_steps)
        results.append(result)
        if not as_json:
            output.say(output.one_line(f"{'ok    ' if result.holds else 'FAILED'} {result.name}"))
            for failure in result.failures:
                output.say(output.one_line(f"       {failure}"))
            if result.left_out:
                output.note(output.one_line(f"       without code in --agents: {', '.join(dict.fromkeys(result.left_out))}"))
    failed = sum(not result.holds for result in results)
    if as_json:
        output.document(
            [{"name": one.name, "holds": one.holds, "failures": one.failures, "left_out": one.left_out} for one in results]
        )  # fmt: skip
    if failed:
        raise output.CommandFailed(f"{failed} of {len(results)} cases failed")
