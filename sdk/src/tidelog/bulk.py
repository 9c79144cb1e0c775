"""`client.bulk`: one command for all runs that a filter finds, and how far it has come."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.models import Model
from tidelog.requests import parse

if TYPE_CHECKING:
    from tidelog.client import Client

BulkVerb = Literal["pause", "resume", "cancel", "retry", "signal", "priority"]
OPEN = ("selecting", "acting")
POLL_S = 0.3


class RefusedRuns(Model):
    """How many runs refused the command with an error."""

    code: str
    count: int


class RefusedRun(Model):
    run_id: UUID
    code: str
    message: str


class BulkAction(Model):
    """A command for many runs. `handled` of the `matched` runs have had their turn: `done` were changed, `unchanged` were so
    already, the others refused. `examples`: some of those that refused."""

    id: UUID
    status: str
    action: str
    options: dict[str, Any] = {}
    filter: dict[str, Any] = {}
    projects: list[UUID] | None = None
    reason: str | None = None
    by: str = ""
    on_behalf_of: str | None = None
    matched: int = 0
    handled: int = 0
    done: int = 0
    unchanged: int = 0
    refused: list[RefusedRuns] = []
    examples: list[RefusedRun] = []
    started_at: datetime
    finished_at: datetime | None = None
    cancelled_by: str | None = None
    cancel_reason: str | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        return self.status not in OPEN


class MeantRuns(Model):
    """What a dry run has found. `complete`: all runs were counted. `runs`: the first ones."""

    matched: int
    complete: bool
    runs: list[UUID]


class _Accepted(Model):
    id: UUID


class ClientBulk:
    """Commands for many runs. Use it as `client.bulk`.

    `where`: filters by the names of the HTTP interface, such as `{"agent": "critic", "status": "running"}`. Without `status`: the
    runs on which the command can have an effect. A filter that says nothing is refused unless you give `all=True`: a variable that
    happens to be None must not mean every run.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def find(self, action: BulkVerb, where: Mapping[str, Any], **more: Any) -> MeantRuns:
        """How many runs `start` would give the command to at this moment. Nothing is written."""
        body = {**_body(action, where, more), "dry_run": True}
        return parse(MeantRuns, await self._client.send("POST", "/v1/bulk-actions", body, headers=self._client.after_writes()))

    async def start(
        self, action: BulkVerb, where: Mapping[str, Any], *, reason: str, on_behalf_of: str | None = None, **more: Any
    ) -> UUID:
        """Give a command to all runs that are found. Returns the id of the bulk action, which goes on by itself.

        `more`: `compensate` of `cancel`, `fresh` of `retry`, `signal` of `signal`: `{"name": …, "payload": …, "step": …}`,
        `priority` of `priority`. `all=True`: the filter may say nothing.
        """
        body = {**_body(action, where, more), "reason": reason}
        answer = await self._client.send("POST", "/v1/bulk-actions", body, key=str(uuid7()), on_behalf_of=on_behalf_of)
        return parse(_Accepted, answer).id

    async def get(self, bulk_action_id: UUID) -> BulkAction:
        """Raises NotFoundError."""
        return await self._client.one(BulkAction, f"/v1/bulk-actions/{bulk_action_id}")

    async def wait(self, bulk_action_id: UUID, *, poll_s: float = POLL_S) -> BulkAction:
        """The bulk action at its end. Raises NotFoundError."""
        while True:
            found = await self.get(bulk_action_id)
            if found.is_over:
                return found
            await asyncio.sleep(poll_s)

    async def cancel(self, bulk_action_id: UUID, reason: str | None = None, *, on_behalf_of: str | None = None) -> None:
        """End it: runs that have not had their turn are left alone. Raises NotFoundError, ConflictError for one that is over."""
        body = {} if reason is None else {"reason": reason}
        path = f"/v1/bulk-actions/{bulk_action_id}/cancel"
        await self._client.send("POST", path, body, key=str(uuid7()), on_behalf_of=on_behalf_of)

    def list(self, status: str | None = None) -> AsyncGenerator[BulkAction, None]:
        """The newest first."""
        return self._client.every(BulkAction, "/v1/bulk-actions", {} if status is None else {"status": status})


def _body(action: BulkVerb, where: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in where.items() if value is not None}
    return {"action": action, "filter": said, **more}
