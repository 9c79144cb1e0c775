"""What operators do with read models: look at them, rebuild them, check them, exchange their versions."""

from collections.abc import Sequence
from typing import Literal, Protocol
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.parked import Retried
from application.engine.ports.views import Timestamp
from domain.kernel import Json

Purpose = Literal["version", "check"]
"""`version`: a rebuild or rollback; `check`: a verification."""
Kind = Literal["rebuild", "rollback", "verify"]
Status = Literal[
    "requested", "building", "comparing", "ready", "swapped", "equal", "different", "cancelled", "failed"
]  # fmt: skip


class BuildView(BaseModel):
    """A job, as the HTTP interface shows it."""

    kind: Kind
    status: Status
    swap: bool
    position: int
    target: int
    progress: float
    """0 to 1: the part of the events that has been read."""
    events: int
    """Events that the projection took."""
    rows: int
    """Rows that were compared."""
    rate: float | None
    eta_s: float | None
    requested_at: Timestamp
    started_at: Timestamp | None
    updated_at: Timestamp
    finished_at: Timestamp | None
    error: str | None
    difference: Json


class PreviousView(BaseModel):
    position: int
    replaced_at: Timestamp


class ProjectionView(BaseModel):
    name: str
    tables: list[str]
    plugin: str | None
    """The distribution that brings it; null: the server itself."""
    position: int
    lag: int
    parked: int
    build: BuildView | None
    check: BuildView | None
    previous: PreviousView | None


class ProblemView(BaseModel):
    entry_point: str
    distribution: str
    error: str


class ProjectionOperations(Protocol):
    """Read models by name. All methods raise NotFound for a name that no read model has; those that ask, Unavailable."""

    def must_know(self, name: str) -> None: ...

    async def list(self) -> Sequence[ProjectionView]:
        """All read models, in the order in which they are declared."""
        ...

    def problems(self) -> Sequence[ProblemView]:
        """Plug-ins that give no read model, and why."""
        ...

    async def view(self, name: str) -> ProjectionView: ...

    async def ask(self, name: str, kind: Kind, *, swap: bool = False) -> ProjectionView:
        """Asks for a job. `swap`: the new version goes live as soon as it is ready. Raises InvalidState."""
        ...

    async def ask_swap(self, name: str) -> ProjectionView:
        """Lets a version go live as soon as it is ready. Raises InvalidState."""
        ...

    async def cancel(self, name: str, purpose: Purpose) -> ProjectionView:
        """Ends a job and drops what the job made. Raises InvalidState."""
        ...

    async def drop_previous(self, name: str) -> ProjectionView:
        """Drops the version that was kept for a rollback. Raises InvalidState."""
        ...

    async def retry_parked(self, name: str, root_id: UUID) -> Retried:
        """Applies the parked events of a root in order, in one transaction, or changes nothing."""
        ...
