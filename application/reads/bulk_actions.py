"""Ports of queries: bulk actions."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.bulk_actions import BulkActionView


class OpenBulkAction(NamedTuple):
    tenant_id: UUID
    bulk_action_id: UUID


class BulkActionReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, before: int | None = None, status: str | None = None,
        within: Sequence[UUID] | None = None,
    ) -> Positioned[Page[BulkActionView]]:  # fmt: skip
        """The newest first. `before`: only those that were started before this position. `within`: only those whose runs are all of
        these projects."""
        ...

    async def get(self, tenant_id: UUID, bulk_action_id: UUID) -> Positioned[BulkActionView | None]: ...


class OpenBulkActions(Protocol):
    """What the engine has to carry out, of all tenants."""

    async def open(self, limit: int) -> Sequence[OpenBulkAction]:
        """Those that have not ended, as far as the read model knows, the oldest first. Raises Unavailable."""
        ...
