"""The tool calls and recorded steps of a run with their values, which are not in the run's document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api.cli import large_values, output, phrases

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

MOST_CALLS = 20
"""Calls that are shown, unless all are asked for."""
ASKED_TOGETHER = 5


@dataclass(frozen=True)
class RunValues:
    """The values of a run, by the step's key. `left_out`: number of calls that are not here."""

    calls: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
    """Step, the call in the run's document, and the call's own document."""
    recorded: Sequence[tuple[str, str, Any]]
    """Step, key and result of each recorded step."""
    left_out: int


async def values_of(server: "ServerClient", run: Mapping[str, Any], *, full: bool) -> RunValues:
    """Reads the values of a run: of some of its newest calls, or (`full`) of all calls and recorded steps."""
    import asyncio

    if full:
        wanted = [(call["step"], call) async for call in server.pages(f"/v1/runs/{run['run_id']}/calls")]
    else:
        wanted = [(step["key"], call) for step in run["steps"] for call in step["calls"]][:MOST_CALLS]
    found: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
    for first in range(0, len(wanted), ASKED_TOGETHER):
        some = wanted[first : first + ASKED_TOGETHER]
        documents = await asyncio.gather(*(server.get(f"/v1/invocations/{call['invocation_id']}") for _, call in some))
        if full:
            await large_values.fill(server, *documents)
        found += [(step, call, document) for (step, call), document in zip(some, documents, strict=True)]
    recorded = await _recorded(server, run) if full else []
    return RunValues(found, recorded, max(run.get("call_count", len(wanted)) - len(wanted), 0))


async def _recorded(server: "ServerClient", run: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    steps = {step["agent_run_id"]: step["key"] for step in run["steps"]}
    events = server.pages(f"/v1/runs/{run['run_id']}/events", {"types": "agent_run.step_recorded"})
    return [
        (steps.get(event["subject"], "?"), event["data"]["key"], event["data"]["result"])
        async for event in events
        if event["data"]["kind"] == "step"
    ]


def show(values: RunValues, *, full: bool) -> None:
    """Prints calls and recorded steps with their values: cut to a line each, or uncut."""
    console = output.console()
    shown = phrases.uncut if full else lambda value: output.shortened(value, 200)
    if values.calls:
        console.print("[bold]Calls[/bold]")
    for step, call, document in values.calls:
        took = f" in {phrases.took(call)}" if call["finished_at"] else ""
        name = f"{step}: {call['key']}" + ("" if call["key"].startswith(call["tool"]) else f" ({call['tool']})")
        name += f" → {call['fallback']}" if call.get("fallback") else ""
        console.print(f"  [bold]{output.escape(name)}[/bold]  {output.call_status(call)}{took}  [dim]{call['invocation_id']}[/dim]")
        hint = f"{output.program()} invocations show {call['invocation_id']}"
        _line("arguments", large_values.left_out(document, "arguments", hint) or shown(document["arguments"]))
        if document["status"] == "succeeded":
            _line("result", large_values.left_out(document, "result", hint) or shown(document["result"]))
    if values.left_out:
        output.say(f"  … and {values.left_out} more calls (--full)")
    if values.recorded:
        console.print("[bold]Recorded steps[/bold]")
    for step, key, result in values.recorded:
        _line(f"{step}: {key}", shown(result))


def _line(name: str, text: str) -> None:
    output.console().print(f"    [dim]{output.escape(f'{name:<10}')}[/dim]  {output.escape(text)}", soft_wrap=True)
