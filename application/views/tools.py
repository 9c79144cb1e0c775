"""Registered tools as people see them."""

from uuid import UUID

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json


class ToolView(ListedRow):
    tool_id: UUID
    name: str
    version: str
    revision: int
    description: str
    capabilities: list[str]
    parameters: Json
    idempotent: bool
    timeout_s: float
    max_attempts: int
    registered_at: Timestamp
    workers: int | None = None
    """Number of workers with a session that offers it. Null: not asked."""
