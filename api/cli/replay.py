"""`tidelog replay`: the state of a run at any moment, and the changes by each event; or a check that the whole log folds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.history import Moment

app = typer.Typer()


@app.command()
def replay(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="The run's id, or its beginning.")] = None,
    step: Annotated[str | None, typer.Argument(metavar="STEP", help="With --dry-run: only this step, or this part of one.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the agents' present code against what they recorded, without any effect.")
    ] = False,
    folders: options.Agents = None,
    run_steps: Annotated[
        bool, typer.Option("--run-steps", help="With --dry-run: also run the functions of ctx.step, and compare their results.")
    ] = False,
    at: Annotated[
        str | None, typer.Option("--at", metavar="POSITION|TIME", help="Show the run as it was then: 42, or 2026-01-31T12:00:00Z.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Do not cut arguments, results and other values.")] = False,
    traceback: options.Traceback = False,
    step_by_step: Annotated[bool, typer.Option("--step-by-step", help="Wait for Enter after each event.")] = False,
    whole_log: Annotated[bool, typer.Option("--all", help="Fold every stream of the log; exit code 1 if one does not.")] = False,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="With --all: only this tenant's streams.")] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, max=64, help="With --all: number of processes.  \\[default: one for each core]"),
    ] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Replay a run from the log: each event and its changes, or the whole run as it was at one point.

    With --all the whole log is folded, by several processes, directly from the database (TIDELOG_DATABASE_URL, or the database of
    the data folder). The digest of all states is the same for the same log and the same rules.

    With --dry-run no tool is called and nothing is written: each call gets what was recorded under its key. Other arguments,
    missing and left-over keys, other results are told; exit code 1 if there are any.

    Examples:

      tidelog replay 0198c0de-…

      tidelog replay 0198c0de-… --full --traceback

      tidelog replay 0198c0de-… --at 42

      tidelog replay 0198c0de-… --step-by-step

      tidelog replay --all

      tidelog replay --dry-run 0198c0de-… review --agents ./agents
    """
    if dry_run:
        from api.cli import dry_run as dry

        if run is None or at is not None or step_by_step or whole_log or full or traceback:
            others = "--at, --all, --full, --traceback and --step-by-step"
            output.fail(f"--dry-run takes a run, and goes without {others}", output.WRONG_USAGE)
        output.run(dry.dry_run(run, step, folders, run_steps, data_dir, url, as_json))
        return
    if step is not None or folders or run_steps:
        output.fail("STEP, --agents and --run-steps go with --dry-run", output.WRONG_USAGE)
    if whole_log:
        from api.cli import replay_all

        if run is not None or at is not None or step_by_step or url is not None or full or traceback:
            output.fail(
                "--all goes neither with a run nor with --at, --step-by-step, --full, --traceback or --url", output.WRONG_USAGE
            )
        output.run(replay_all.replay_all(data_dir, tenant, processes, as_json))
        return
    if run is None or tenant is not None or processes is not None:
        output.fail("name a run, or give --all (--tenant and --processes go with --all)", output.WRONG_USAGE)
    if step_by_step:
        output.guarded(lambda: _check_interactive(at, as_json))
        moments: list[Moment] = []
        output.run(_collect(run, full, data_dir, url, moments))
        output.guarded(lambda: _step_through(moments, traceback))
    elif at is not None:
        output.run(_at(run, at, full, traceback, data_dir, url, as_json))
    else:
        output.run(_all(run, full, traceback, data_dir, url, as_json))


async def _all(run: str, full: bool, traceback: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import history

    given = GivenId.parse(run)
    async with server_of(data_dir, url, as_json) as server:
        run_id = await given.complete(server)
        async for moment in history.replay(server, run_id, full=full):
            if as_json:
                output.line(moment.document())
            else:
                _show(moment, traceback)


async def _at(run: str, at: str, full: bool, traceback: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import run_view

    given = GivenId.parse(run)
    async with server_of(data_dir, url, as_json) as server:
        run_id = await given.complete(server)
        document: dict[str, Any] = await server.get(f"/v1/runs/{run_id}", {"as_of": at})
    if as_json:
        output.document(document)
    else:
        run_view.show(document, full=full, traceback=traceback)


async def _collect(run: str, full: bool, data_dir: Path | None, url: str | None, moments: "list[Moment]") -> None:
    from api.cli import history

    given = GivenId.parse(run)
    async with server_of(data_dir, url) as server:
        run_id = await given.complete(server)
        async for moment in history.replay(server, run_id, keep_states=True, full=full):
            moments.append(moment)


def _check_interactive(at: str | None, as_json: bool) -> None:
    if at is not None or as_json:
        raise output.CommandFailed("--step-by-step goes neither with --at nor with --json", output.WRONG_USAGE)
    if not sys.stdin.isatty():
        raise output.CommandFailed("--step-by-step needs a terminal; without it, every event is shown", output.WRONG_USAGE)


def _step_through(moments: "list[Moment]", traceback: bool) -> None:
    from api.cli import run_view

    for number, moment in enumerate(moments, 1):
        _show(moment, traceback)
        while True:
            try:
                answer = input(f"[{number}/{len(moments)}] Enter: next, s: the run's state here, q: quit > ").strip().lower()
            except EOFError:
                return
            if answer == "q":
                return
            if answer != "s":
                break
            if moment.state is not None:
                run_view.show(moment.state, traceback=traceback)


def _show(moment: "Moment", traceback: bool) -> None:
    from rich.text import Text

    from api.cli import failures, phrases

    console, width = output.console(), output.EVENT_WIDTH
    time = moment.time[:23].replace("T", " ")
    text = Text.assemble((f"{moment.position:>7}", "bold"), "  ", (time, "dim"), "  ", (f"{moment.type:<{width}}", "cyan"), "  ")
    if not moment.changes and not moment.told:
        text.append(f"({output.gist(moment.event['data'], 100)})", "dim")
    for number, change in enumerate(moment.changes):
        text.append("; " if number else "")
        text.append(output.one_line(change.path), "magenta")
        text.append(output.one_line(f": {change.before} → {change.after}" if change.before else f": {change.after}"))
    text.append(("; " if moment.changes else "") + moment.told if moment.told else "")
    if console.is_terminal:
        console.print(text)
    else:
        output.say(text.plain.rstrip())
    if traceback and moment.tells_failure:
        output.say(phrases.quoted(failures.details(moment.event["data"]["error"])))
