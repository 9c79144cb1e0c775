"""Projects as people see them."""

from uuid import UUID

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json


class ProjectView(ListedRow):
    project_id: UUID
    name: str
    metadata: dict[str, Json]
    created_at: Timestamp
