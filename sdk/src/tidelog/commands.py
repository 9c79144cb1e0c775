"""The part of `Client` for slash commands: lines that begin with `/` give work, or ask for a list."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.large import fill_run
from tidelog.models import Model, StartedRun
from tidelog.requests import Requests, parse
from tidelog.transport import json_of


class CommandInfo(Model):
    """A slash command in a list."""

    name: str
    help: str = ""
    kind: str = "run"
    """`run`: it starts a run. `list`: it asks for a list."""
    source: str = "shipped"
    """`shipped`, or `workflow`: the tenant's own."""
    workflow_version: int | None = None
    text: str | None = None
    """The parameter that takes the free text of a line."""
    parameters: Any = None
    """JSON Schema."""


class Command(CommandInfo):
    definition: Any = None
    """What it starts, as `publish_workflow` takes it."""


class StartedWorkflow(Model):
    name: str
    version: int


class CommandRun(StartedRun):
    """A line has started a run."""

    command: str = ""
    workflow: StartedWorkflow | None = None
    """The tenant's own workflow. None: a shipped command."""
    input: Any = None


class CommandPage(Model):
    """A line has asked for a list: a page of it, as the list's route gives it."""

    data: tuple[Any, ...] = ()
    next_cursor: str | None = None
    """Give it to the next line as `cursor=…`. None: this was the last page."""


class CommandPlan(Model):
    """What a line would do."""

    command: str
    workflow: StartedWorkflow | None = None
    input: Any = None
    plan: Any = None
    list: str | None = None
    """The list's route with its query."""


class CommandClient(Requests):
    """Slash commands. Use it as a part of `Client`."""

    async def command(
        self,
        text: str,
        *,
        project_id: UUID | None = None,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        wait_s: float | None = None,
        on_behalf_of: str | None = None,
    ) -> CommandRun | CommandPage:
        """Carry out a line: `/task Write release notes agent=writer` starts a run, `/query status=failed since=24h` lists runs.

        `project_id`, `deadline_s`, `idempotency_key`, `wait_s` and `on_behalf_of` are those of `start_run`.

        Raises:
            InvalidRequestError: `errors` says what is wrong with the line, and where.
            NotFoundError: there is no such command, with the code `unknown-command`.
        """
        body: dict[str, Any] = {"text": text, **({} if project_id is None else {"project_id": str(project_id)})}
        if deadline_s is not None:
            body["deadline_s"] = deadline_s
        headers: dict[str, Any] = {"Idempotency-Key": idempotency_key or str(uuid7()), **self._for(on_behalf_of)}
        if wait_s is not None:
            headers["Prefer"] = f"wait={int(wait_s)}"
        if self._position:
            headers["Tidelog-Position"] = str(self._position)
        response = await self._request("POST", "/v1/commands", body=body, headers=headers, read_timeout_s=30 + (wait_s or 0))
        answer = json_of(response)
        if not isinstance(answer, dict) or "run_id" not in answer:
            return parse(CommandPage, answer)
        if isinstance(answer.get("run"), dict):
            await fill_run(answer["run"], self._get)
        started = parse(CommandRun, answer)
        self._position = max(self._position, started.position)
        return started

    async def describe_command(self, text: str, *, project_id: UUID | None = None) -> CommandPlan:
        """What a line would start or list. Nothing is done. Raises as `command`."""
        body: dict[str, Any] = {"text": text, "dry_run": True, **({} if project_id is None else {"project_id": str(project_id)})}
        headers = {"Idempotency-Key": str(uuid7())}
        return parse(CommandPlan, json_of(await self._request("POST", "/v1/commands", body=body, headers=headers)))

    async def slash_commands(self) -> list[CommandInfo]:
        """The commands by name: the shipped ones, and workflows with a `command`."""
        return [one async for one in self._all(CommandInfo, "/v1/commands", {"limit": "1000"})]

    async def slash_command(self, name: str) -> Command:
        """A command with what it starts. Raises NotFoundError."""
        return parse(Command, await self._get(f"/v1/commands/{quote(name, safe='')}", {}))
