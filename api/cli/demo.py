"""`tidelog demo`: four agents review a git repository, and the log has all their steps."""

import asyncio
import contextlib
import os
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output

if TYPE_CHECKING:
    from api.cli.connection import ServerClient
    from api.settings import Settings

app = typer.Typer()

TEAM = ("historian", "surveyor", "inspector")
EDITOR = "editor"
WORKER_PATIENCE_S = 60.0
GIT_TIMEOUT_S = 10


@app.command()
def demo(
    repo: Annotated[
        Path | None, typer.Option("--repo", metavar="PATH", help="Git repository to review.  \\[default: the current one]")
    ] = None,
    data_dir: options.DataDir = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server running afterwards, until Ctrl-C.")] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open the run in the console; implies --keep.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Let four agents review a git repository, live: history, shape, left-overs, and one report.

    Nothing leaves this machine, and nothing in the repository is changed. The report is a Markdown file in the data folder.

    Examples:

      tidelog demo

      tidelog demo --repo ~/src/flask --open
    """
    output.run(_demo(repo, data_dir, keep or open_it, open_it, as_json))


async def _demo(repo: Path | None, data_dir: Path | None, keep: bool, open_it: bool, as_json: bool) -> None:
    from api.cli import connection
    from api.cli.console import link_to, open_page
    from api.settings import load_settings
    from tidelog.large import value_of

    root = _repository(repo or Path.cwd())
    # The repository is on this machine, so the worker must be, too: a server on another machine (TIDELOG_URL) cannot be used.
    settings = load_settings(data_dir=data_dir, agents=(_agents_folder(),), workspace=root).model_copy(update={"url": None})
    # Code of this package, not of users: the demo's agents may run as root, who owns the folder of their report.
    os.environ.setdefault("TIDELOG_WORKER_RUN_AS", "root")
    os.environ["TIDELOG_REPORT_DIR"] = str((settings.data_dir / "reports").absolute())  # for the worker that this command starts
    async with connection.server(settings, worker=True, quiet=as_json, begins=True) as server, _worker(server, settings):
        if not as_json:
            where = "a server started for this" if server.temporary else "the running server"
            output.say(f"Reviewing {root} on {where}: {server.url}\n")
        await connection.wait_for_agents(server, {*TEAM, EDITOR}, WORKER_PATIENCE_S)
        run = await _review(server, root, as_json)
        if (place := (run["large"] or {}).get("result")) is not None:
            run["result"] = await value_of(place["ref"], server.get)
        report = _report(run)
        stays = keep or not server.temporary
        address = (await link_to(server, f"runs/{run['run_id']}"))[0] if stays and (open_it or not as_json) else ""
        if as_json:
            output.line({"run": run, "report": str(report)})
        else:
            _conclude(settings, server, run, report, address)
        if open_it:
            await open_page(address, settings.data_dir)
        if keep and server.temporary:
            output.note(f"\nThe server runs on at {server.url}; Ctrl-C stops it.")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


def _repository(path: Path) -> Path:
    """The top folder of the repository. Raises CommandFailed if the folder is not in a repository."""
    if not path.is_dir():
        raise output.CommandFailed(f"--repo: there is no folder {path}", output.WRONG_USAGE)
    try:
        found = subprocess.run(
            ["git", "-C", str(path), "rev-parse", "--show-toplevel"],
            capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise output.CommandFailed("the demo reviews a git repository and needs the program 'git': install it") from None
    except subprocess.TimeoutExpired:
        raise output.CommandFailed(f"git did not answer within {GIT_TIMEOUT_S} s in {path}") from None
    if found.returncode == 0 and found.stdout.strip():
        return Path(found.stdout.removesuffix("\n"))
    reason = (found.stderr.strip().splitlines() or ["it has no working tree"])[0]
    if _is_bare(path):
        raise output.CommandFailed(
            f"{path.absolute()} is a bare repository, which has no files to review: choose a clone of it with --repo PATH",
            output.WRONG_USAGE,
        )
    if "dubious ownership" in found.stderr:
        raise output.CommandFailed(f"git does not trust {path.absolute()}, which belongs to another account ({reason})")
    raise output.CommandFailed(
        f"{path.absolute()} is not in a git repository with files: choose one with --repo PATH ({reason})", output.WRONG_USAGE
    )


def _is_bare(path: Path) -> bool:
    asked = ["git", "-C", str(path), "rev-parse", "--is-bare-repository"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(asked, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False).stdout.strip() == "true"
    return False


def _agents_folder() -> Path:
    """The folder of the demo's agents: beside this file in an installed wheel, under examples/ in a checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "repo_review", here.parents[2] / "examples" / "repo_review"):
        if folder.is_dir():
            return folder
    raise output.CommandFailed("the demo's agents (the folder repo_review) are missing from this installation: install it again")


@asynccontextmanager
async def _worker(server: "ServerClient", settings: "Settings") -> AsyncIterator[None]:
    """Runs the demo's worker, unless the server has one. Raises CommandFailed if the server's worker has another repository."""
    import sys

    from api.cli.connection import child_process
    from api.supervisor.config import worker_environment

    folder, root = str(settings.agents[0]), str(settings.workspace)
    running = server.running
    if running is not None and folder in running.agents:
        if not _same_folder(running.workspace, root):
            raise output.CommandFailed(
                f"the server on {settings.data_dir} reviews {running.workspace}: stop it first, or choose another --data-dir"
            )
        yield
        return
    command = [sys.executable, "-P", "-m", "tidelog.worker", "--agents", folder, "--workspace", root, "--log-level", "error"]
    async with child_process(command, {**worker_environment(), "TIDELOG_URL": server.url, "TIDELOG_API_KEY": server.key}):
        yield


def _same_folder(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


async def _review(server: "ServerClient", root: Path, as_json: bool) -> dict[str, Any]:
    """Starts the run, shows it up to its end and returns it. Cancels the run at an interrupt."""
    from uuid_utils.compat import uuid7

    plan = {"kind": "parallel", "agents": list(TEAM), "aggregator": EDITOR}
    run_id = str(uuid7())
    await server.post(
        "/v1/runs", {"run_id": run_id, "plan": plan, "input": {"repo": root.name}, "metadata": {"started_by": "tidelog demo"}}
    )
    try:
        position = await _watch(server, run_id, as_json)
    except asyncio.CancelledError:
        # Otherwise a server that stops now would continue the run at its next start.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                await server.post(f"/v1/runs/{run_id}/cancel", {"reason": "interrupted"})
        raise
    run: dict[str, Any] = await server.get(f"/v1/runs/{run_id}", at_least=position)
    return run


async def _watch(server: "ServerClient", run_id: str, as_json: bool) -> int:
    """Shows the run. Raises CommandFailed if no worker takes the work: agents stay registered after their worker has ended."""
    from api.cli.watching import watch

    watching = asyncio.create_task(watch(server, run_id, as_json=as_json))
    try:
        await asyncio.wait({watching}, timeout=WORKER_PATIENCE_S)
        if not watching.done():
            run = await server.get(f"/v1/runs/{run_id}")
            if not any(step["attempt"] for step in run["steps"]):
                raise output.CommandFailed(f"no worker took up the review within {WORKER_PATIENCE_S:.0f} s")
        return await watching
    finally:
        watching.cancel()


def _report(run: dict[str, Any]) -> Path:
    """The path of the report. Raises CommandFailed if no report was written."""
    from api.cli.watching import outcome

    if run["status"] != "completed":
        raise output.CommandFailed(f"the review ended {outcome(run)}")
    report = Path(run["result"]["path"])
    if not report.is_file():
        raise output.CommandFailed(f"the run is completed, but its report is not there: {report}")
    return report


def _conclude(settings: "Settings", server: "ServerClient", run: dict[str, Any], report: Path, address: str) -> None:
    """Prints the summary of the report and commands to continue with. `address`: of the run in the console, if the server stays."""
    from api.cli.console import LIFE
    from api.cli.timeline import duration_of
    from api.cli.watching import outcome

    console = output.console()
    console.print(f"\n[bold]Report[/bold]   {output.escape(str(report))}\n")
    for text in _summary(run["result"]):
        console.print(text)
    end = f", {output.escape(outcome(run))}" if run["degraded"] else ""
    console.print(f"\n{run['event_count']} events in {output.duration(duration_of(run))}{end}. Now try:\n")
    folder = [] if settings.data_dir == Path(".tidelog") else ["--data-dir", str(settings.data_dir)]
    for what, command in (
        ("replay it, event by event", shlex.join([output.program(), "replay", run["run_id"], *folder])),
        ("the stream of its events", shlex.join([output.program(), "events", "tail", "--run", run["run_id"], *folder])),
        ("all of it in the console", shlex.join([output.program(), "console" if address else "up", "--open", *folder])),
    ):
        console.print(f"  [dim]# {what}[/dim]\n  {output.escape(command)}", soft_wrap=True)
    if address:
        console.print(f"\n  [dim]# {LIFE}[/dim]\n  console: {output.escape(address)}", soft_wrap=True)


def _summary(edited: dict[str, Any]) -> list[str]:
    """The report's first paragraph and its most severe findings, as rich markup."""
    lines = [output.escape(_unmarked(edited["summary"])), ""]
    colours = {"high": "red", "medium": "yellow"}
    for finding in edited["findings"][:5]:
        severity = finding["severity"]
        colour = colours.get(severity, "dim")
        lines.append(f"  [{colour}]{output.escape(severity):<6}[/{colour}]  {output.escape(_unmarked(finding['title']))}")
    more = edited["findings_total"] - min(len(edited["findings"]), 5)
    return [*lines, f"  … and {more} more in the report"] if more > 0 else lines


def _unmarked(markdown: str) -> str:
    """The text without Markdown's escapes and code marks, for the terminal."""
    import re

    return re.sub(r"\\([\\`*_{}\[\]()#+\-.!<>|~&])", r"\1", markdown).replace("`", "")
