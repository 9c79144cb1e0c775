"""Bulk actions as people see them."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from domain.bulk_actions import BulkVerb

BulkActionStatus = Literal["selecting", "acting", "completed", "cancelled", "failed"]


class RefusedView(BaseModel):
    code: str
    """Of the error, as for the command of one run."""
    count: int


class ExampleView(BaseModel):
    run_id: UUID
    code: str
    message: str


class BulkActionView(ListedRow):
    """A command for many runs, and how far it has come."""

    id: UUID
    status: BulkActionStatus
    """`selecting`: the runs are being found; `acting`: they get their commands. The others are over."""
    action: BulkVerb
    options: dict[str, Any] = {}
    """What else each run is told: `compensate`, `fresh`, `signal`."""
    filter: dict[str, Any] = {}
    """Empty: all runs that have a status on which the command can have an effect."""
    projects: list[UUID] | None = None
    """Only runs of these projects. Null: of the whole tenant."""
    reason: str | None = None
    by: str
    on_behalf_of: str | None = None
    matched: int = 0
    """Runs that were found, up to now."""
    handled: int = 0
    """Of them: those that have had their turn."""
    done: int = 0
    """Those that the command has changed."""
    unchanged: int = 0
    """Those that were already so."""
    refused: list[RefusedView] = []
    """Those that refused the command, by the code of the error."""
    examples: list[ExampleView] = []
    """Some of those that refused it."""
    started_at: Timestamp
    finished_at: Timestamp | None = None
    cancelled_by: str | None = None
    cancel_reason: str | None = None
    error: str | None = None
    """Why it failed."""
    position: int
    """Of its start: it is about runs that were started before."""
    version: int
