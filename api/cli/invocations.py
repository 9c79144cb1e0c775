"""`tidelog invocations`: tool calls, and the resolution of ambiguous calls by a person."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import failures, options, output, phrases
from api.cli.ids import CALL, GivenId
from api.cli.large_values import fill
from api.cli.reaching import server_of

app = typer.Typer(help="Tool calls, of agents and of others.", no_args_is_help=True)

InvocationId = Annotated[str, typer.Argument(metavar="ID", help="The call's id, or its beginning.")]


RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""Keys that clients of Tidelog take where nobody gives one: UUIDs of version 7."""


def to_resolve(invocation_id: str) -> str:
    """The commands for an ambiguous call. A person runs the command that tells the truth."""
    command = f"{output.program()} invocations resolve {invocation_id}"
    return "\n".join(f"  {command} {what} --reason TEXT" for what in ("--result JSON", "--error MESSAGE", "--not-happened"))


@app.command("list")
def list_invocations(
    ambiguous: Annotated[bool, typer.Option("--ambiguous", help="Only calls that wait for a person.")] = False,
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only calls of this run.")] = None,
    without_run: Annotated[bool, typer.Option("--without-run", help="Only calls that belong to no run.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    at: options.At = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List tool calls, the calls of the newest runs first.

    Examples:

      tidelog invocations list --ambiguous

      tidelog invocations list --run 0198c0de-… --at 2026-01-31T12:00:00Z
    """
    output.run(_list(ambiguous, run, "client" if without_run else None, limit, at, data_dir, url, as_json))


async def _list(
    ambiguous: bool, run: str | None, asked_by: str | None, limit: int, at: str | None, data_dir: Path | None, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    given = GivenId.parse(run) if run else None
    async with server_of(data_dir, url, as_json) as server:
        run_id = await given.complete(server) if given else None
        filters = {"status": "ambiguous" if ambiguous else None, "run_id": run_id, "asked_by": asked_by, "as_of": at}
        found = [call async for call in server.pages("/v1/invocations", filters, limit=limit)]
    if as_json:
        output.document(found)
    elif not found:
        then = f" at {at}" if at else ""
        output.say(f"No call {'waited' if at else 'waits'} for a person{then}." if ambiguous else f"No calls{then}.")
    else:
        show_list(found, then=at is not None)


def show_list(found: list[dict[str, Any]], *, then: bool) -> None:
    waits = any(call.get("arguments_preview") for call in found)  # missing in answers of an earlier release
    table = output.table("Call", "Tool", "Status", "Since", "Attempt", "Run", "Key", *(["Arguments"] if waits else []))
    for call in found:
        since = call["since"][:19].replace("T", " ")
        table.add_row(
            call["invocation_id"], output.escape(phrases.tool_of(call)), output.call_status(call), since,
            "cached" if call.get("cached_from") else str(call["attempt"]), _run_of(call),
            output.escape(output.shortened("-" if _is_random(call) else _key_of(call), 40)),
            *([output.escape(output.one_line(call.get("arguments_preview") or ""))] if waits else []),
        )  # fmt: skip
    output.console().print(table)
    waiting = [call["invocation_id"] for call in found if call["status"] == "ambiguous"]
    if waiting and not then:
        output.say(f"Look what became of an ambiguous call, then say it:\n{to_resolve(waiting[0])}")


def _key_of(call: dict[str, Any]) -> str:
    """Empty for a call that nobody gave a key: then its key is its id."""
    return "" if call["key"] == call["invocation_id"] else str(call["key"])


def _is_random(call: dict[str, Any]) -> bool:
    """Whether nobody gave a key, and the client took a new UUID, so that it may repeat its request."""
    return not _key_of(call) or (call.get("asked_by") == "client" and RANDOM.fullmatch(call["key"]) is not None)


def _run_of(call: dict[str, Any]) -> str:
    return "none" if call.get("asked_by") == "client" else str(call["run_id"])


@app.command()
def show(
    invocation_id: InvocationId,
    at: options.At = None,
    traceback: options.Traceback = False,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a tool call: its arguments and its outcome.

    Examples:

      tidelog invocations show 0198c0de-…

      tidelog invocations show 0198c0de-… --at 42
    """
    output.run(_show(invocation_id, at, traceback, data_dir, url, as_json))


async def _show(invocation_id: str, at: str | None, traceback: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    given = GivenId.parse(invocation_id, CALL)
    async with server_of(data_dir, url, as_json) as server:
        call: dict[str, Any] = await server.get(f"/v1/invocations/{await given.complete(server)}", {"as_of": at})
        if not as_json:
            await fill(server, call)
    if as_json:
        output.document(call)
    else:
        _show_one(call, traceback, then=at is not None)


def _show_one(call: dict[str, Any], traceback: bool, *, then: bool = False) -> None:
    from rich.json import JSON

    console, resolution = output.console(), call["resolution"]
    console.print(f"[bold]Call {call['invocation_id']}[/bold]  {output.call_status(call)}")
    head = {
        "tool": call["tool"] + ("" if call["idempotent"] else " (must not be called twice)"),
        "answered by" if call["status"] == "succeeded" else "goes on with": call.get("fallback") or "",
        "instead of": output.shortened(call.get("fallback_because") or "", 240),
        "run": _run_of(call),
        "key": _key_of(call),
        "since": call["since"],
        "attempt": str(call["attempt"] or ""),
        "worker": call["worker_id"] or "",
        "cached from": call.get("cached_from") or "",
        "error": failures.headline(call["error"]) if call["error"] else "",
        "resolved by": f"{phrases.who(resolution)} at {resolution['at']}" if resolution else "",
        "reason": resolution["reason"] if resolution else "",
        "evidence": output.shortened(resolution["evidence"], 400) if resolution and resolution["evidence"] is not None else "",
        **_doubts(call),
    }
    for name, value in head.items():
        if value:
            console.print(f"  [dim]{name:<16}[/dim]{output.escape(value)}")
    console.print("\n[bold]Arguments[/bold]")
    console.print(JSON.from_data(call["arguments"]))
    if call["status"] == "succeeded":
        console.print("\n[bold]Result[/bold]")
        console.print(JSON.from_data(call["result"]))
    if call["error"] and failures.has_more(call["error"]):
        hint = f"\nFor the traceback: {output.program()} invocations show {call['invocation_id']} --traceback"
        output.say(f"\n{phrases.quoted(failures.details(call['error']))}" if traceback else hint)
    if call["status"] == "ambiguous" and not then:
        output.say(f"\nIts worker vanished: look what became of it, then say it:\n{to_resolve(call['invocation_id'])}")
    if call["status"] == "held" and not then:
        output.say(f"\nIt waits for an approval: {output.program()} inbox show {output.one_line(call.get('approval_id'))}")


def _doubts(call: dict[str, Any]) -> dict[str, str]:
    """What was found out about effects in doubt. Answers of an earlier release have nothing of it."""
    said, asked = call.get("not_happened"), call.get("reconcile")
    told = {"idempotency key": call["invocation_id"]} if call["attempt"] else {}
    if said:
        told["not happened"] = f"said {phrases.who(said)} at {said['at']}: {said['reason']}"
    if asked:
        answer = asked["gave_up"] or asked["outcome"] or "no answer yet"
        times = f"asked {asked['asked']} times" + (f", failed {asked['failures']} times" if asked["failures"] else "")
        told["reconcile"] = f"about attempt {asked['attempt']} ({asked['because']}), since {asked['since']}: {answer}; {times}"
        if asked["error"]:
            told["its failure"] = failures.headline(asked["error"])
    return told


@app.command()
def resolve(
    invocation_id: InvocationId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="How you know the outcome; it is recorded.")],
    result: Annotated[
        str | None,
        typer.Option(
            "--result", metavar="JSON|@FILE", help="It took effect, with this result: JSON, so a text is '\"booked\"'; null: none."
        ),
    ] = None,
    error: Annotated[str | None, typer.Option("--error", metavar="MESSAGE", help="It did not take effect, or failed.")] = None,
    not_happened: Annotated[
        bool, typer.Option("--not-happened", help="It did not take effect: the tool is called again, with the same key.")
    ] = False,
    error_type: Annotated[
        str | None,
        typer.Option("--error-type", metavar="TYPE", help="With --error: the type of the error.  \\[default: ResolvedByHand]"),
    ] = None,
    evidence: Annotated[str | None, typer.Option("--evidence", metavar="TEXT", help="The proof: a reference, an id.")] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Resolve an ambiguous tool call, whose worker vanished during the call. Whoever made the call goes on with this outcome.

    The first resolution counts. A different resolution later is refused.

    Examples:

      tidelog invocations resolve 0198c0de-… --result '{"sent": true}' --reason "It is in the customer's inbox."

      tidelog invocations resolve 0198c0de-… --error "not sent" --reason "The mail server's log does not have it."

      tidelog invocations resolve 0198c0de-… --not-happened --reason "The mail server was down all that time."
    """
    if (said := (result is not None) + (error is not None) + not_happened) != 1:
        told = "they contradict one another" if said else "none is given"
        output.fail(f"give either --result or --error or --not-happened: {told}", output.WRONG_USAGE)
    if error_type is not None and error is None:
        output.fail("--error-type goes with --error", output.WRONG_USAGE)
    outcome = {"error": {"type": error_type or "ResolvedByHand", "message": error}} if error is not None else {"not_happened": True}
    output.run(_resolve(invocation_id, reason, result, outcome, evidence, on_behalf_of, data_dir, url, as_json))


async def _resolve(
    invocation_id: str, reason: str, result: str | None, otherwise: dict[str, Any], evidence: str | None, on_behalf_of: str | None,
    data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """`otherwise`: what the request says of a call without a result."""
    given = GivenId.parse(invocation_id, CALL)
    said = otherwise if result is None else {"result": options.json_of("--result", result)}
    body = {**said, "reason": reason} | ({} if evidence is None else {"evidence": evidence})
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        if "not_happened" in said:  # of this attempt: a repeat of the request must not speak of a later one
            body["attempt"] = (await server.get(f"/v1/invocations/{wanted}", {}))["attempt"] or None
        accepted: dict[str, Any] = await server.post(f"/v1/invocations/{wanted}/resolve", body)
    if as_json:
        output.document(accepted)
    else:
        then = ": the tool is called again, unless the call was cancelled" if "not_happened" in said else ""
        output.say(f"Resolved call {wanted}{then}")


@app.command()
def cancel(
    invocation_id: InvocationId,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel a tool call that belongs to no run. Where its tool runs, the outcome is still recorded, and it is not tried again.

    Example:

      tidelog invocations cancel 0198c0de-… --reason "wrong address"
    """
    output.run(_cancel(invocation_id, reason, on_behalf_of, data_dir, url, as_json))


async def _cancel(
    invocation_id: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    given = GivenId.parse(invocation_id, CALL)
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        wanted = await given.complete(server)
        body = {} if reason is None else {"reason": reason}
        accepted: dict[str, Any] = await server.post(f"/v1/invocations/{wanted}/cancel", body)
    if as_json:
        output.document(accepted)
    else:
        output.say(f"Cancelled call {wanted}: {output.program()} invocations show {wanted}")
