"""`tidelog tools breaker`: whether a tool is called at the moment, and what a person makes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import definitions, options, output
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

STATES = {"open": "open", "close": "closed", "closed": "closed", "auto": "auto"}
"""Word of the command → the state that is asked for. HTTP says `closed`."""
CALLS = {"closed": "go on", "open": "nobody calls the tool", "half_open": "some are tried"}
WHY = {"failures": "failures in a row", "rate": "the share of failures", "probe": "a call that was tried failed"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]
Change = Annotated[
    str | None,
    typer.Argument(metavar="[open|close|auto]", help="Hold it open or closed, or let it follow the outcomes of calls."),
]
Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why you do it. Needed to change something.")]


def breaker(
    name: Name,
    change: Change = None,
    reason: Why = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the breaker of a tool, or hold it open or closed. All workers obey at once; calls under way go on.

    Examples:

      tidelog tools breaker web.search

      tidelog tools breaker web.search open --reason "they asked us to stop"

      tidelog tools breaker web.search auto --reason "they are back"
    """
    if change is not None and change not in STATES:
        output.fail(f"not one of open, close and auto: {output.shortened(change, 40)}", output.WRONG_USAGE)
    if (change is None) is not (reason is None):
        output.fail("open, close and auto go with --reason, and --reason with one of them", output.WRONG_USAGE)
    output.run(_breaker(name, change, reason, data_dir, url, as_json))


async def _breaker(
    name: str, change: str | None, reason: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from tidelog.errors import NotFoundError

    async with server_of(data_dir, url, as_json) as server:
        try:
            if change is not None:
                await server.client.force_breaker(name, STATES[change], reason=reason or "")
            found = (await server.client.breaker(name)).model_dump(mode="json")
        except NotFoundError:
            definitions.one_of("tool", name, [tool async for tool in server.pages("/v1/tools")])  # names tools of similar names
            raise
    if as_json:
        output.document(found)
    else:
        _show(found)


def _show(found: Mapping[str, Any]) -> None:
    console = output.console()
    state, counts = found["state"], found.get("counts")
    console.print(f"[bold]Breaker of {output.escape(found['tool'])}[/bold]  {_colour(state)}")
    head = {
        "calls": CALLS.get(state, ""),
        "since": found.get("since") or "",
        "tried again at": found.get("tried_at") or "",
        **_opening(found),
        "held by": (found.get("by") or "") + (f", for {found['on_behalf_of']}" if found.get("on_behalf_of") else ""),
        "reason": found.get("reason") or "",
        "counted": f"{counts['failures']} of {counts['calls']} calls failed, {counts['in_a_row']} in a row" if counts else "",
        "policy": _policy(found["policy"]) if found.get("policy") else "none: only a person opens it",
    }  # fmt: skip
    for label, value in head.items():
        if value:
            console.print(f"  [dim]{label:<16}[/dim]{output.escape(output.shortened(value, 500))}")


def _opening(found: Mapping[str, Any]) -> dict[str, str]:
    """Why it opened. While a person holds it, that is not why it is as it is."""
    because, failure = ("opened before", "failure then") if found.get("forced") else ("because of", "last failure")
    return {because: _because(found), failure: found.get("error") or ""}


def _policy(declared: Mapping[str, Any]) -> str:
    """What the tool declares, without what takes no effect: the window counts only where a share of failures opens it."""
    told = {name: value for name, value in declared.items() if value is not None}
    if "rate" not in told:
        told = {name: value for name, value in told.items() if name not in ("calls", "window_s")}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _because(found: Mapping[str, Any]) -> str:
    because = found.get("because")
    if because is None:
        return ""
    return f"{WHY.get(because, because)} ({found.get('failures')} of {found.get('calls')} calls)"


def _colour(state: str) -> str:
    colour = {"closed": "green", "open": "red", "half_open": "yellow"}.get(state, "white")
    return f"[{colour}]{output.escape(state.replace('_', '-'))}[/{colour}]"


async def not_closed(server: "ServerClient") -> dict[str, str]:
    """Tool → the state of its breaker, of those that are not closed. Empty at a server of an earlier release."""
    from tidelog.errors import NotFoundError

    try:
        found = await server.client.breakers()
    except NotFoundError:
        return {}
    return {one.tool: one.state for one in found if one.state in ("open", "half_open")}


def marked(state: str | None) -> str:
    """What stands before the description of a tool whose breaker is not closed."""
    return "" if state is None else f"\\[breaker {_colour(state)}] "
