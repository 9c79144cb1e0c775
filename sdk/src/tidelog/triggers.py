"""`client.triggers`: what starts when something happens."""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.bodies import object_of
from tidelog.models import Model
from tidelog.requests import parse

if TYPE_CHECKING:
    from tidelog.client import Client


class Trigger(Model):
    """A trigger. `status`: active or paused. `on`, `hook`: what it is about. `start`: what it starts. `because`: why it is paused,
    asked or misfires. `hook_path`: where the deliveries of its webhook go, on the server."""

    name: str
    status: str
    project_id: UUID
    description: str = ""
    on: dict[str, Any] | None = None
    hook: dict[str, Any] | None = None
    start: dict[str, Any] | None = None
    max_per_minute: int = 600
    max_depth: int = 8
    hook_path: str | None = None
    within: tuple[UUID, ...] | None = None
    because: str | None = None
    reason: str | None = None
    fired: int = 0
    misfired: int = 0
    limited: int = 0
    fired_at: datetime | None = None
    last_error: str | None = None
    version: int = 0


class MadeTrigger(Model):
    """The answer to a new trigger. `secret`: what the sender of its webhook proves itself with; nobody can read it later."""

    name: str
    hook_path: str | None = None
    secret: str | None = None


class Firing(Model):
    """What has come of a trigger. `kind`: fired, misfired, limited (`count` were over the limit) or paused."""

    at: datetime
    position: int
    kind: str
    event: str | None = None
    delivery: str | None = None
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    signal: str | None = None
    """The name of the signal that `run_id` was sent; None: what is named was started."""
    depth: int | None = None
    code: str | None = None
    error: str | None = None
    count: int | None = None


class Tried(Model):
    """A page of a dry run. `events`: events of its topics. `examples`: `{event, position, type, at}`, and `input` or `error`.
    `reached`: the log was looked at up to this position, and will be up to `until`. `next_cursor`: None at the end."""

    events: int
    fired: int
    misfired: int
    examples: tuple[dict[str, Any], ...] = ()
    reached: int
    until: int
    next_cursor: str | None = None


class ClientTriggers:
    """`client.triggers`: the triggers of the tenant."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def list(self, *, status: str | None = None) -> AsyncGenerator[Trigger, None]:
        """All triggers, by name. `status`: only the active or the paused ones."""
        return self._client.every(Trigger, "/v1/triggers", {} if status is None else {"status": status})

    async def get(self, name: str) -> Trigger:
        """Raises NotFoundError."""
        return await self._client.one(Trigger, _path(name))

    async def create(self, name: str, definition: Mapping[str, Any], *, reason: str | None = None) -> MadeTrigger:
        """Create a trigger: `on` (events) or `hook` (a webhook), and `start`. See the HTTP reference.

        Raises:
            InvalidRequestError: `errors` has all faults of the definition, each with the JSON Pointer of its place.
            ConflictError: there is such a trigger already (`already-exists`).
        """
        body = {**object_of(definition, "the definition"), "name": name}
        return parse(MadeTrigger, await self._said("POST", "/v1/triggers", body, reason))

    async def change(self, name: str, definition: Mapping[str, Any], *, reason: str | None = None) -> None:
        """Give a trigger another definition, as a whole."""
        await self._said("PUT", _path(name), object_of(definition, "the definition"), reason)

    async def pause(self, name: str, reason: str | None = None) -> None:
        """What happens meanwhile starts nothing, also not later."""
        await self._said("POST", _path(name, "/pause"), {} if reason is None else {"reason": reason}, None)

    async def resume(self, name: str) -> None:
        await self._said("POST", _path(name, "/resume"), {}, None)

    async def remove(self, name: str, *, reason: str | None = None) -> None:
        """What the trigger has started goes on. Raises NotFoundError."""
        await self._client.send("DELETE", _path(name), headers=reason_header(reason))

    async def rotate_secret(self, name: str, *, overlap_s: float = 86_400, reason: str | None = None) -> MadeTrigger:
        """Make a new secret for the webhook of a trigger. Those of before are valid for `overlap_s` more seconds."""
        return parse(MadeTrigger, await self._said("POST", _path(name, "/rotate"), {"overlap_s": overlap_s}, reason))

    def firings(self, name: str) -> AsyncGenerator[Firing, None]:
        """What has come of a trigger, the newest first."""
        return self._client.every(Firing, _path(name, "/firings"))

    async def dry_run(
        self, definition: Mapping[str, Any] | str, *, since: datetime | None = None, examples: int = 5, cursor: str | None = None
    ) -> Tried:
        """What a trigger would have fired on: one page of the past. `definition`: also the name of a trigger."""
        body: dict[str, Any] = {"examples": examples}
        if isinstance(definition, str):
            body["name"] = definition
        else:
            body["definition"] = object_of(definition, "the definition")
        body |= {} if since is None else {"since": since.isoformat()}
        body |= {} if cursor is None else {"cursor": cursor}
        return parse(Tried, await self._client.send("POST", "/v1/triggers:dry-run", body))

    async def _said(self, method: str, path: str, body: Mapping[str, Any], reason: str | None) -> Any:
        return await self._client.send(method, path, body, key=str(uuid7()), headers=reason_header(reason))


def _path(name: str, rest: str = "") -> str:
    return f"/v1/triggers/{quote(name, safe='')}{rest}"
