"""`tidelog runs fork` and `runs forks`: a new run that begins with what another one was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from api.cli import options, output
from api.cli.ids import GivenId
from api.cli.plan_files import plan_of
from api.cli.reaching import server_of
from api.cli.run_body import check_key

app = typer.Typer()

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]


@app.command()
def fork(
    run_id: RunId,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="STEP", help="This step goes on from what it had recorded; what comes after it runs again."),
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="STEP", help="As --step, but the step begins with nothing recorded.")
    ] = None,
    at: Annotated[
        int | None, typer.Option("--at", metavar="POSITION", min=1, help="The run as it was at this position of the log.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Another input; @FILE reads a file, - standard input.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", metavar="FILE", help="Another plan, as JSON or YAML. It must have the steps that are taken over."),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="STEP=NAME[@VERSION]", help="Another agent, or a version of it, for a step; repeatable."),
    ] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="Other metadata.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="A repeat with the same key makes no second fork.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the fork until it has ended; exit code 1 if not completed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the fork's id and nothing else, for scripts.")] = False,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Fork a run: a new run begins with what the run was, and nothing that had ended runs again.

    Without --step, --before and --at the steps that failed go on from what they had recorded. Agents run in the versions that are
    registered now.

    Examples:

      tidelog runs fork 0198c0de-… --reason "the service is back"

      tidelog runs fork 0198c0de-… --before review --agent review=critic@3 --wait

      tidelog runs fork 0198c0de-… --at 4711 --input @other.json
    """
    if sum(given is not None for given in (step, before, at)) > 1:
        output.fail("give one of --step, --before and --at", output.WRONG_USAGE)
    if quiet and (wait or as_json):
        output.fail("--quiet goes without --wait and --json", output.WRONG_USAGE)
    asked = _Asked(step, before, at, input_, plan, tuple(agent or ()), metadata)
    output.run(_fork(run_id, asked, reason, idempotency_key, wait, quiet, on_behalf_of, data_dir, url, as_json))


class _Asked(NamedTuple):
    """The options as given. None: not given."""

    step: str | None
    before: str | None
    position: int | None
    input: str | None
    plan: str | None
    agents: tuple[str, ...]
    metadata: str | None

    def body(self) -> dict[str, Any]:
        """Raises CommandFailed for wrong values."""
        body: dict[str, Any] = {}
        for name, given in (("step", self.step), ("before", self.before), ("position", self.position)):
            if given is not None:
                body["at"] = {name: given}
        if self.input is not None:
            body["input"] = options.json_of("--input", self.input)
        if self.plan is not None:
            written = plan_of(self.plan)
            body["plan"] = {"kind": "graph", **written} if "kind" not in written and "steps" in written else written
        if self.agents:
            body["agents"] = _agents(self.agents)
        if self.metadata is not None:
            body["metadata"] = options.object_of("--metadata", self.metadata)
        return body


def _agents(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        step, equals, agent = text.partition("=")
        if not equals or not step or not agent:
            raise output.CommandFailed(output.one_line(f"--agent: '{text}' is not STEP=NAME[@VERSION]"), output.WRONG_USAGE)
        found[step] = agent
    return found


async def _fork(
    run_id: str, asked: _Asked, reason: str | None, key: str | None, wait: bool, quiet: bool, on_behalf_of: str | None,
    data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from uuid_utils.compat import uuid7

    from api.cli.runs import to_the_end
    from tidelog.values import to_json

    given, body = GivenId.parse(run_id), asked.body()
    if reason:
        body["reason"] = to_json(reason, "--reason")
    if key is None:
        body["run_id"] = str(uuid7())  # with a key the repeat must have the same body
    else:
        check_key(key)
    async with server_of(data_dir, url, as_json or quiet, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        forked: dict[str, Any] = await server.post(f"/v1/runs/{wanted}/fork", body, key=key)
        if wait:
            await to_the_end(server, forked["run_id"], as_json)
        elif as_json:
            output.document(forked)
        else:
            id = forked["run_id"]
            output.say(id if quiet else f"Forked run {wanted} as run {id}\n  {output.program()} runs watch {id}")


@app.command()
def forks(
    run_id: RunId,
    status: Annotated[str | None, typer.Option("--status", help="Only forks with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List the forks of a run, newest first.

    Example:

      tidelog runs forks 0198c0de-… --status failed
    """
    output.run(_forks(run_id, status, limit, data_dir, url, as_json))


async def _forks(run_id: str, status: str | None, limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli.runs import show_list

    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, as_json) as server:
        wanted = await given.complete(server)
        found = [run async for run in server.pages(f"/v1/runs/{wanted}/forks", {"status": status}, limit=limit)]
    if as_json:
        output.document(found)
    elif found:
        show_list(found)
    else:
        output.say(f"Run {wanted} has no {f'{status} ' if status else ''}forks.")
