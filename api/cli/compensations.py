"""`tidelog runs compensation`, `compensate` and `resume-compensation`: taking back the effects of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import failures, options, output, phrases
from api.cli.ids import CALL, GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from tidelog.errors import TidelogAPIError

app = typer.Typer()

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]
Why = Annotated[str, typer.Option("--reason", help="The reason; it is recorded.")]
MOST_SHOWN = 20
WIDTH = 100


def compensation_of(run: Mapping[str, Any]) -> str:
    """One line about taking back the effects of a run. Empty if nobody asked for it."""
    found = run.get("compensation")
    if found is None:
        wanted = run.get("compensate", "never")
        return "" if wanted == "never" else f"taken back {wanted.replace('_', ' ')}"
    if found["status"] == "running":
        return "being taken back"
    told = f"{found['compensated']} of {found['effects']} taken back"
    more = ", ".join(f"{found[what]} {what}" for what in ("failed", "skipped") if found[what])
    return f"{told} ({more})" if more else told


def to_see(run: Mapping[str, Any]) -> str:
    """The command that shows the effects of a run whose compensation has begun. Empty if it has not."""
    return f"{output.program()} runs compensation {run['run_id']}" if run.get("compensation") else ""


@app.command()
def compensation(
    run_id: RunId,
    full: Annotated[bool, typer.Option("--full", help="All effects.")] = False,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what became of taking back the effects of a run.

    Example:

      tidelog runs compensation 0198c0de-…
    """
    output.run(_show(run_id, full, data_dir, url, as_json))


async def _show(run_id: str, full: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    given = GivenId.parse(run_id)
    async with server_of(data_dir, url, as_json) as server:
        path = f"/v1/runs/{await given.complete(server)}/compensation"
        found: dict[str, Any] = await server.get(path, {"limit": 1000 if full or as_json else MOST_SHOWN})
        page = found
        while (full or as_json) and page["next_cursor"]:
            page = await server.get(path, {"limit": 1000, "cursor": page["next_cursor"]})
            found["data"] += page["data"]
    if as_json:
        output.document(found | {"next_cursor": None})
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    console, run = output.console(), found["run_id"]
    begun = found["status"] != "none"
    console.print(f"[bold]Compensation of run {run}[/bold]  {output.status(found['status']) if begun else 'nobody asked for it'}")
    if not begun and not found["effects"]:
        output.say("  No effect can be taken back: no tool whose call took effect names a compensation.")
    elif not begun:
        command = f"{output.program()} runs compensate {run} --reason TEXT"
        output.say(f"  {found['effects']:,} effect{'' if found['effects'] == 1 else 's'} can be taken back: {command}")
    else:
        console.print(f"  {found['compensated']} of {found['effects']} effects taken back", highlight=False)
        if found["failed"] or found["skipped"]:
            console.print(f"  {found['failed']} failed, {found['skipped']} skipped", highlight=False)
    if found["data"]:
        console.print(_table(found["data"]))
    if (left := found["effects"] - len(found["data"])) > 0:
        output.say(f"{left:,} more effects. All: {output.program()} runs compensation {run} --full")
    for call in found["waits_for"]:
        output.say(output.one_line(f"{call['invocation_id']} ({call['status']})", before="It waits for the call "))
    if found["needs_person"]:
        command = f"{output.program()} runs resume-compensation {run}"
        output.say(f"It waits for a person:\n  {command} --reason TEXT\n  {command} --skip CALL --reason TEXT")
        output.say(f"  {command} --go-on --reason TEXT")


def _table(effects: list[dict[str, Any]]) -> Any:
    with_what = any(told := [_what(effect) for effect in effects])
    table = output.table("No.", "Effect of", "Call", "Status", "By", *(["What"] if with_what else []))
    for effect, what in zip(effects, told, strict=True):
        table.add_row(
            str(effect["number"]), output.escape(output.shortened(phrases.named(effect), 40)), str(effect["invocation_id"]),
            output.status(effect["status"]) + (" (effect unknown)" if effect["unknown"] else ""),
            output.escape(output.shortened(effect["compensated_by"], 40)),
            *([output.escape(output.shortened(what, WIDTH))] if with_what else []),
        )  # fmt: skip
    return table


def _what(effect: Mapping[str, Any]) -> str:
    """Why an effect was not taken back. Empty if it was, or is still to be."""
    if effect["error"]:
        return failures.headline(effect["error"], WIDTH)
    return f"skipped by {effect['by']}: {effect['reason']}" if effect["status"] == "skipped" else ""


@app.command()
def compensate(
    run_id: RunId,
    reason: Why,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Take back the effects of a run that has ended, also of a completed one, the last one first.

    Example:

      tidelog runs compensate 0198c0de-… --reason "the customer took the order back"
    """
    output.run(_say(run_id, "", reason, (), False, on_behalf_of, data_dir, url, as_json))


@app.command("resume-compensation")
def resume(
    run_id: RunId,
    reason: Why,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="CALL", help="A call whose effect is left as it is, or is not waited for; repeatable."),
    ] = None,
    go_on: Annotated[bool, typer.Option("--go-on", help="Leave what failed, and take back the effects before it.")] = False,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Say how taking back the effects of a run goes on where it waits for a person. What failed is tried again.

    Examples:

      tidelog runs resume-compensation 0198c0de-… --reason "the payment service is up again"

      tidelog runs resume-compensation 0198c0de-… --skip 0198c0df-… --reason "sent back by hand"
    """
    output.run(_say(run_id, "/resume", reason, tuple(skip or ()), go_on, on_behalf_of, data_dir, url, as_json))


async def _say(
    run_id: str, what: str, reason: str, skip: tuple[str, ...], go_on: bool, on_behalf_of: str | None, data_dir: Path | None,
    url: str | None, as_json: bool,
) -> None:  # fmt: skip
    from uuid_utils.compat import uuid7

    from tidelog.errors import ConflictError
    from tidelog.values import to_json

    given, calls = GivenId.parse(run_id), [GivenId.parse(call, CALL) for call in skip]
    body: dict[str, Any] = {"reason": to_json(reason, "--reason")}
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        run = await given.complete(server)
        if calls:
            body["skip"] = [await call.complete(server) for call in calls]
        if go_on:
            body["go_on"] = True
        try:
            accepted: dict[str, Any] = await server.post(f"/v1/runs/{run}/compensation{what}", body, key=str(uuid7()))
        except ConflictError as refused:
            found = {} if what else await server.get(f"/v1/runs/{run}/compensation", {"limit": 1})
            if found.get("status", "none") == "none":
                raise
            raise output.CommandFailed(_before(refused, run, waits=found["needs_person"])) from refused
    if as_json:
        output.document(accepted)
    else:
        done = "goes on" if what else "has begun"
        output.say(f"Taking back the effects of run {run} {done}\n  {output.program()} runs compensation {run}")


def _before(refused: "TidelogAPIError", run_id: str, *, waits: bool) -> str:
    """A refusal to begin what has begun, with the command that goes on from there. `waits`: for a person."""
    command = f"resume-compensation {run_id} --reason TEXT" if waits else f"compensation {run_id}"
    told = output.one_line(f"{refused.code}: {refused.detail or refused.title}")
    return f"{told}\n  {output.program()} runs {command}"
