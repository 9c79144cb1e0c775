"""The audit trail as people see it."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp
from domain.audit import Result


class AuditEntryView(BaseModel):
    entry_id: UUID
    position: int
    recorded_at: Timestamp
    kind: Literal["action", "refusals"]
    """`refusals`: a number of requests that were refused."""
    actor: str
    on_behalf_of: str | None
    action: str | None
    operation: str | None
    target_kind: str | None
    target_id: str | None
    reason: str | None
    address: str | None
    result: Result
    code: str | None
    count: int
    since: Timestamp | None
    until: Timestamp | None
    others: bool
