"""Ports of queries: workflows and their versions."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.slash_commands import OwnCommand
from application.views.workflows import WorkflowSummary, WorkflowVersionSummary, WorkflowVersionView, WorkflowView
from domain.kernel import Json


class WorkflowsWanted(NamedTuple):
    """A page of workflows in the order of their names."""

    limit: int
    after: str | None = None
    prefix: str = ""
    """What the names begin with."""
    deprecated: bool | None = None
    """Only the deprecated ones, or only the others. None: both."""


class WorkflowReads(Protocol):
    async def list(self, tenant_id: UUID, wanted: WorkflowsWanted) -> Positioned[Page[WorkflowSummary]]: ...

    async def get(self, tenant_id: UUID, name: str) -> Positioned[WorkflowView | None]:
        """A workflow by its name. None: the tenant has no such workflow."""
        ...

    async def commands(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[OwnCommand]]:
        """Workflows that slash commands start, and that are not deprecated, in the order of their names, after a name."""
        ...

    async def versions(
        self, tenant_id: UUID, workflow_id: UUID, *, limit: int, before: int | None
    ) -> Positioned[Page[WorkflowVersionSummary]]:
        """The versions of a workflow, the newest first, before a version."""
        ...

    async def version(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Positioned[WorkflowVersionView | None]: ...

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Json | None:
        """What a version says. None: the read model does not have the version (yet)."""
        ...

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The names of the workflows in order, at most `MOST_NAMES`."""
        ...
