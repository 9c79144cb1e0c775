"""Ports of queries: approvals."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.approvals import ApprovalSummary, Status
from domain.kernel import RecordedEvent


class Mine(NamedTuple):
    """Whose open approvals are asked for: those that a key may decide, and has not approved yet."""

    role: str
    actor: str


class ApprovalsWanted(NamedTuple):
    """A page of the list of approvals."""

    limit: int
    before: int | None = None
    """Only approvals that were asked for before this position."""
    status: Status | None = None
    tool: str | None = None
    run_id: UUID | None = None
    projects: Sequence[UUID] | None = None
    """Only approvals of runs in these projects. None: of all."""
    mine: Mine | None = None


class ApprovalReads(Protocol):
    async def list(self, tenant_id: UUID, wanted: ApprovalsWanted) -> Positioned[Page[ApprovalSummary]]:
        """The newest first."""
        ...

    def replay(self, events: Sequence[RecordedEvent]) -> ApprovalSummary | None:
        """The approval after the events of its stream. None: the events are of something else."""
        ...
