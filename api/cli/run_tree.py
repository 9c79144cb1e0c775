"""`tidelog runs show --tree`: a run with its steps, the runs that its steps started, and theirs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from api.cli import output, phrases
from api.cli.explain import why

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

MOST_RUNS = 200
"""Runs that a tree shows."""


class Tree:
    """Prints the tree as it reads it."""

    def __init__(self, server: "ServerClient") -> None:
        self._server = server
        self._left = MOST_RUNS

    async def show(self, run: Mapping[str, Any], indent: int = 0) -> None:
        self._left -= 1
        workflow = run.get("workflow")
        of = f"  [dim]{output.escape(workflow['name'])}@{workflow['version']}[/dim]" if workflow else ""
        self._say(indent, f"[bold]Run {run['run_id']}[/bold]  {phrases.run_status(run)}{of}")
        for step in run["steps"]:
            name = f"[bold]{output.escape(step['key'])}[/bold]  {output.escape(phrases.agent_of(step))}"
            self._say(indent + 1, f"{name}  {output.status(step['status'])}  [dim]{output.escape(why(step, run))}[/dim]")
            await self._children(run, step, indent + 2)

    async def _children(self, run: Mapping[str, Any], step: Mapping[str, Any], indent: int) -> None:
        parts = step.get("parts")
        if parts is None or not any(part["run_id"] for part in parts["first"]):
            return
        shown = 0
        path = f"/v1/runs/{run['run_id']}/steps/{step['key']}/parts"
        parts_of_step = [part async for part in self._server.pages(path, limit=self._left)] if self._left > 0 else []
        for part in parts_of_step:
            if self._left <= 0:
                break
            shown += 1
            await self.show(await self._server.get(f"/v1/runs/{part['run_id']}"), indent)
        if (more := parts["started"] - shown) > 0:
            self._say(indent, f"… and {more:,} more: {output.program()} runs list --parent {run['run_id']}")

    @staticmethod
    def _say(indent: int, text: str) -> None:
        output.console().print("  " * indent + text, soft_wrap=True)
