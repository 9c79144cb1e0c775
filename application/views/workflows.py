"""Workflows as people see them."""

from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json


class WorkflowDeprecation(BaseModel):
    since: Timestamp
    reason: str | None = None


class WorkflowSummary(ListedRow):
    workflow_id: UUID
    name: str
    version: int | None
    """The current version, with which runs start that ask for none. Null: only a draft so far."""
    description: str
    """Of the current version, or else of the draft."""
    command: Json = None
    """How a line that begins with `/` and the name starts it. Null: it does not."""
    deprecated: WorkflowDeprecation | None = None
    """Of the whole workflow."""
    has_draft: bool
    published_at: Timestamp | None
    """When the current version was published."""
    stream_version: int
    """Version of the workflow's stream, which `If-Match` takes."""


class WorkflowDraftView(BaseModel):
    definition: Json
    drafted_at: Timestamp
    drafted_by: str | None
    """Who drafted it: `key:` and the id of a key."""


class WorkflowView(WorkflowSummary):
    definition: Json = None
    """What the current version says."""
    draft: WorkflowDraftView | None = None


class WorkflowVersionSummary(ListedRow):
    name: str
    version: int
    note: str | None
    reverted_from: int | None
    """The older version that says the same, where this one was published to go back to it."""
    published_at: Timestamp
    published_by: str | None
    """`key:` and the id of a key."""
    deprecated: WorkflowDeprecation | None = None
    """Of this version."""


class WorkflowVersionView(WorkflowVersionSummary):
    definition: Json = None
