"""`tidelog runs pause`, `resume`, `priority`, `skip-step`, `force-step` and `dispatch`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import bulk, options, output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()
PRIORITIES = ("high", "normal", "low")
NOTHING: Mapping[str, Any] = {}
OneRun = Annotated[str | None, typer.Argument(metavar="[ID]", help="The run's id, or its beginning.")]
RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]
Why = Annotated[str | None, typer.Option("--reason", help="The reason; it is recorded.")]


@app.command()
@options.with_fields
def pause(
    run_id: OneRun = None,
    many: bulk.Many = bulk.ONE,
    reason: Why = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Pause a run, or many: nothing begins in it, nor in its child runs, until it is resumed.

    Agents are taken from their workers within a second, and go on from their journals later. A call of a tool that has begun ends,
    and its outcome is recorded.

    Examples:

      tidelog runs pause 0198c0de-… --reason "the prices look wrong"

      tidelog runs pause --where agent=critic --dry-run

      tidelog runs pause --where agent=critic --where since=2026-01-30 --reason "the prices look wrong"
    """
    if many.meant(run_id):
        output.run(bulk.act("pause", many, reason, {}, on_behalf_of, data_dir, url, as_json))
    else:
        output.run(_steer("pause", "Paused", str(run_id), reason, on_behalf_of, data_dir, url, as_json))


@app.command()
@options.with_fields
def resume(
    run_id: OneRun = None,
    many: bulk.Many = bulk.ONE,
    reason: Why = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Let a paused run go on where it was, or many.

    Examples:

      tidelog runs resume 0198c0de-… --reason "the prices are right"

      tidelog runs resume --where agent=critic --reason "the prices are right"
    """
    if many.meant(run_id):
        output.run(bulk.act("resume", many, reason, {}, on_behalf_of, data_dir, url, as_json))
    else:
        output.run(_steer("resume", "Resumed", str(run_id), reason, on_behalf_of, data_dir, url, as_json))


@app.command()
@options.with_fields
def priority(
    given: Annotated[
        list[str], typer.Argument(metavar="[ID] high|normal|low", help="The run's id, or its beginning; the priority.")
    ],
    many: bulk.Many = bulk.ONE,
    reason: Why = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Change the priority of a run, or of many: what waits for a worker, and what the run dispatches from now on.

    Child runs get it, too. What a worker has goes on there, and a step with a priority of its own keeps it.

    Examples:

      tidelog runs priority 0198c0de-… high --reason "the customer waits"

      tidelog runs priority low --where workflow=nightly --reason "the day's work goes first"
    """
    *ids, wanted = given
    if len(ids) > 1 or wanted not in PRIORITIES:
        raise typer.BadParameter("give the ID of a run (or --where), and then high, normal or low")
    run_id, more = ids[0] if ids else None, {"priority": wanted}
    if many.meant(run_id):
        output.run(bulk.act("priority", many, reason, more, on_behalf_of, data_dir, url, as_json))
    else:
        done = f"Changed the priority to {wanted} of"
        output.run(_steer("priority", done, str(run_id), reason, on_behalf_of, data_dir, url, as_json, more))


Step = Annotated[str, typer.Argument(metavar="STEP", help="The step's key, or that of a part, such as reviews.3.")]
Because = Annotated[str, typer.Option("--reason", help="The reason; it is recorded.")]


@app.command("skip-step")
def skip_step(
    run_id: RunId,
    step: Step,
    reason: Because,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Skip a step that has not ended, or an item of a list. What is under way is cancelled.

    The steps after it see a skipped step, as where its condition was false: those that come after skipped steps only are skipped,
    too. Where they need a result, give one with force-step.

    Example:

      tidelog runs skip-step 0198c0de-… review --reason "nobody is there to review"
    """
    asked = {"reason": reason}
    output.run(_of_step("skip", f"Skipped {step}", run_id, step, asked, on_behalf_of, data_dir, url, as_json))


@app.command("force-step")
def force_step(
    run_id: RunId,
    step: Step,
    reason: Because,
    result: Annotated[
        str | None, typer.Option("--result", metavar="JSON|@FILE", help="The result: JSON, a file with JSON, or @- for stdin.")
    ] = None,
    error: Annotated[str | None, typer.Option("--error", metavar="TEXT", help="Instead of a result: why it failed.")] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Say how a step ends that has not ended, or a part of one. What is under way is cancelled.

    Examples:

      tidelog runs force-step 0198c0de-… price --result 12 --reason "looked it up"

      tidelog runs force-step 0198c0de-… price --error "they do not answer" --reason "called twice"
    """
    if (result is None) == (error is None):
        raise typer.BadParameter("give either --result or --error")
    asked: dict[str, Any] = {"reason": reason}
    if error is not None:
        asked["error"] = {"type": "Forced", "message": error}
    else:
        asked["result"] = options.json_of("--result", result)
    output.run(_of_step("force", f"Forced {step}", run_id, step, asked, on_behalf_of, data_dir, url, as_json))


@app.command()
def dispatch(
    run_id: RunId,
    step: Step,
    reason: Because,
    call: Annotated[str | None, typer.Option("--call", metavar="ID", help="One of the step's calls, instead of its agent.")] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Dispatch the agent of a step again, or one of its calls: another worker gets it, and a retry does not wait for its delay.

    An agent that a worker has is taken from it, and goes on from its journal. A call that a worker has begun is left.

    Example:

      tidelog runs dispatch 0198c0de-… review --reason "its worker hangs"
    """
    asked: dict[str, Any] = {"reason": reason} if call is None else {"reason": reason, "invocation_id": call}
    output.run(_of_step("dispatch", f"Dispatched {step} again", run_id, step, asked, on_behalf_of, data_dir, url, as_json))


async def _of_step(
    what: str, done: str, run_id: str, step: str, body: dict[str, Any], on_behalf_of: str | None, data_dir: Path | None,
    url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from urllib.parse import quote

    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        accepted = await _post(server, wanted, f"steps/{quote(step, safe='')}/{what}", body)
    if as_json:
        output.document(accepted)
    else:
        output.say(output.one_line(f"{done} of run {wanted}"))


async def _steer(
    what: str, done: str, run_id: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None,
    as_json: bool, more: Mapping[str, Any] = NOTHING,
) -> None:  # fmt: skip
    from tidelog.values import to_json

    given = GivenId.parse(run_id)
    body: dict[str, Any] = {**more, "reason": to_json(reason, "--reason")} if reason else {**more}
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
