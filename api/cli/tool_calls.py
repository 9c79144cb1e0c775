"""`tidelog tools call`: a call of a tool without a run."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from api.cli import definitions, failures, options, output
from api.cli.invocations import to_resolve
from api.cli.large_values import fill
from api.cli.reaching import server_of
from api.cli.tools import Name

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()

LONGEST_WAIT_S = 60
"""Seconds that one request waits at most."""
OVER = ("succeeded", "failed", "cancelled", "ambiguous")


class CallOptions(NamedTuple):
    name: Name
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Arguments. A value is JSON, or else text; text where the tool wants text."),
    ] = None
    arguments: Annotated[
        str | None, typer.Option("--arguments", metavar="JSON|@FILE", help="All arguments: a JSON object, @FILE, or @- for stdin.")
    ] = None
    background: Annotated[bool, typer.Option("--background", help="Do not wait: print the id of the call.")] = False
    wait_s: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long at most.")] = 60.0
    key: Annotated[
        str | None, typer.Option("--key", metavar="TEXT", help="A name for the call: the same key again is the same call.")
    ] = None
    priority: Annotated[
        Literal["high", "normal", "low"] | None, typer.Option("--priority", help="Class of the work.  \\[default: normal]")
    ] = None
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Call the tool, even where a result of before would answer.")] = False
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Limit of one attempt, at most what the tool declares.")
    ] = None


@app.command("call")
@options.with_fields
def call(
    given: CallOptions,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Call a tool without a run, and print its result. The call is recorded as one of an agent is.

    Ends with 1 if the call fails, if it is ambiguous, and if it goes on after the wait.

    Examples:

      tidelog tools call add a=1 b=2

      tidelog tools call mail.send --arguments @mail.json --key welcome-ada

      tidelog tools call report.build year=2026 --background
    """
    if given.arguments is not None and given.pairs:
        output.fail("give the arguments either as KEY=VALUE or with --arguments", output.WRONG_USAGE)
    if (key := given.key) is not None and not (key.strip() and key.isascii() and key.isprintable() and len(key) <= 255):
        output.fail("--key: must be 1 to 255 printable characters of ASCII", output.WRONG_USAGE)
    output.run(_call(given, reason, on_behalf_of, data_dir, url, as_json))


async def _call(
    given: CallOptions, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    whole = None if given.arguments is None else options.object_of("--arguments", given.arguments)
    try:
        pairs = _pairs(given.pairs or ())
    except output.CommandFailed as refused:
        parameters = await _parameters(given.name, data_dir, url, as_json)
        raise output.CommandFailed(f"{refused}{parameters}", output.WRONG_USAGE) from None
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        body: dict[str, Any] = {"arguments": whole if whole is not None else await _typed(server, given.name, pairs)}
        if given.priority is not None:
            body["priority"] = given.priority
        if given.no_cache:
            body["cache"] = False
        if given.timeout_s is not None:
            body["timeout_s"] = given.timeout_s
        if server.temporary and not given.background:
            output.note(
                "No server runs, and one was started for this command: unless it has a worker with the tool, the call waits."
            )
        accepted = await _posted(server, given, body, reason)
        if warning := accepted.get("warning"):
            output.note(f"warning: {output.shortened(warning, 500)}")
        id = accepted["invocation_id"]
        if given.background:
            output.document(accepted) if as_json else output.say(f"{id}\n  {output.program()} invocations show {id}")
            return
        found = accepted.get("invocation") or await server.get(f"/v1/invocations/{id}")
        found = await _at_end(server, found, given.wait_s)
        await fill(server, found)
    if as_json:
        output.document(found)
    elif found.get("cached_from"):
        output.note(f"From the cache: the result of call {found['cached_from']}. --no-cache calls the tool.")
    _tell(found, given.wait_s, as_json)


async def _posted(server: "ServerClient", given: CallOptions, body: dict[str, Any], reason: str | None) -> dict[str, Any]:
    from urllib.parse import quote

    wait_s = 0 if given.background else min(int(given.wait_s), LONGEST_WAIT_S)
    path = f"/v1/tools/{quote(given.name, safe='')}/calls"
    accepted: dict[str, Any] = await server.post(path, body, wait_s=wait_s, key=given.key, reason=reason, prefer_wait=bool(wait_s))
    return accepted


async def _at_end(server: "ServerClient", found: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """The call at its end, or as it is after the time. The first request has waited already."""
    deadline = time.monotonic() + wait_s - min(int(wait_s), LONGEST_WAIT_S)
    while found["status"] not in OVER and (left := round(deadline - time.monotonic())) > 0:
        found = await server.get(f"/v1/invocations/{found['invocation_id']}", wait_s=min(left, LONGEST_WAIT_S))
    return found


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """Names and texts. Raises CommandFailed."""
    found: dict[str, str] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise output.CommandFailed(f"'{output.one_line(pair)}' is not KEY=VALUE", output.WRONG_USAGE)
        if name in found:
            raise output.CommandFailed(f"'{output.one_line(name)}' stands there twice", output.WRONG_USAGE)
        found[name] = text
    return found


async def _parameters(name: str, data_dir: Path | None, url: str | None, quiet: bool) -> str:
    """The end of a sentence that names the parameters of a tool. Empty if they cannot be read: that is not what was wrong."""
    from urllib.parse import quote

    from tidelog.errors import TidelogError

    try:
        async with server_of(data_dir, url, quiet) as server:
            tool = await server.get(f"/v1/tools/{quote(name, safe='')}")
        told = definitions.arguments_of(tool["parameters"])
    except (output.CommandFailed, TidelogError, KeyError, TypeError):
        return ""
    return f"; {output.one_line(name)} has {f'the parameters {told}' if told else 'no parameters'}"


async def _typed(server: "ServerClient", name: str, pairs: Mapping[str, str]) -> dict[str, Any]:
    """The arguments: of each text its JSON value, or the text itself where it is no JSON, and where the tool wants text."""
    from urllib.parse import quote

    from tidelog.errors import TidelogAPIError

    if not pairs:
        return {}
    try:
        tool = await server.get(f"/v1/tools/{quote(name, safe='')}")
        properties = tool["parameters"].get("properties", {})
    except (TidelogAPIError, AttributeError):  # the call itself says what is wrong
        properties = {}
    return {each: text if _wants_text(properties.get(each)) else _value(each, text) for each, text in pairs.items()}


def _wants_text(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string"


def _value(name: str, text: str) -> Any:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return options.json_of(name, text)


def _tell(found: dict[str, Any], wait_s: float, as_json: bool) -> None:
    """Says how the call ended. Raises CommandFailed for one without a result."""
    from rich.json import JSON

    id, status = found["invocation_id"], found["status"]
    if status == "succeeded":
        if not as_json:
            output.console().print(JSON.from_data(found["result"]))
        return
    if status == "failed":
        told = f"the call failed: {failures.headline(found['error'])}"
        raise output.CommandFailed(f"{told}\n  {output.program()} invocations show {id}")
    if status == "ambiguous":
        told = "the worker vanished in the middle, and nobody knows whether the call took effect: look, then say it:"
        raise output.CommandFailed(f"{told}\n{to_resolve(id)}")
    if status == "held":
        told = f"the call waits for an approval:\n  {output.program()} inbox show {output.one_line(found.get('approval_id'))}"
        raise output.CommandFailed(told)
    if status == "cancelled":
        raise output.CommandFailed(f"the call was cancelled\n  {output.program()} invocations show {id}")
    why = "; no worker has taken it" if status == "requested" else ""
    raise output.CommandFailed(
        f"the call is {status} after {output.duration(wait_s)}{why}. It goes on:\n  {output.program()} invocations show {id}"
    )
