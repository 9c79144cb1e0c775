"""Triggers as people see them."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json


class TriggerView(ListedRow):
    name: str
    status: str
    """`active` or `paused`."""
    project_id: UUID
    """Of the runs that it starts."""
    description: str = ""
    on: Json = None
    """The events that it is about."""
    hook: Json = None
    """The webhook that it is about."""
    start: Json = None
    max_per_minute: int = 600
    max_depth: int = 8
    hook_path: str | None = None
    """The path to which deliveries go."""
    within: list[UUID] | None = None
    """The projects whose events it sees at most. Null: of the whole tenant."""
    because: str | None = None
    """Why it is paused: `asked`, or `misfires`."""
    reason: str | None = None
    fired: int = 0
    misfired: int = 0
    limited: int = 0
    """How often it would have fired more often than it may."""
    fired_at: Timestamp | None = None
    last_error: str | None = None
    """Of the newest misfire."""
    created_at: Timestamp
    changed_at: Timestamp
    version: int
    """Version of its stream."""


class FiringView(BaseModel):
    """Something that came of a trigger: it fired, misfired, was limited, or paused itself."""

    at: Timestamp
    position: int
    kind: str
    """`fired`, `misfired`, `limited` or `paused`."""
    event: str | None = None
    """`<stream id>:<version>` of the event that it was about."""
    delivery: str | None = None
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    signal: str | None = None
    """The name of the signal that the run was sent. Null: what is named was started."""
    depth: int | None = None
    """How many firings of triggers led here, this one included."""
    code: str | None = None
    error: str | None = None
    count: int | None = None
    """Events or deliveries that were over the limit."""


def view_of(name: str, document: dict[str, Any], **columns: Any) -> TriggerView:
    """`document`: what the read model keeps as JSON: `definition`, and perhaps `hook_id`, `within`, `because` and `reason`."""
    definition, hook_id = document["definition"], document.get("hook_id")
    return TriggerView(
        name=name,
        description=definition.get("description", ""),
        on=definition.get("on"),
        hook=definition.get("hook"),
        start=definition.get("start"),
        max_per_minute=definition.get("max_per_minute", 600),
        max_depth=definition.get("max_depth", 8),
        hook_path=None if hook_id is None else f"/hooks/{hook_id}",
        within=document.get("within"),
        because=document.get("because"),
        reason=document.get("reason"),
        **columns,
    )
