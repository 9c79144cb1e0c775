"""Registered agents as people see them."""

from uuid import UUID

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json


class AgentView(ListedRow):
    agent_id: UUID
    name: str
    version: str
    revision: int
    description: str
    capabilities: list[str]
    input_schema: Json
    output_schema: Json
    registered_at: Timestamp
    workers: int | None = None
    """Number of workers with a session that offers it. Null: not asked."""
