"""Operations on read models for operators: view, rebuild, check, and exchange of versions."""

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
    """A job on a read model, as the HTTP interface shows it."""

    kind: Kind
    status: Status
    swap: bool
    position: int
    target: int
    progress: float
    """Fraction of the events that the job has read, 0 to 1."""
    events: int
    """Number of events that the projection has applied."""
    rows: int
    """Number of compared rows."""
    rate: float | None
    eta_s: float | None
    requested_at: Timestamp
    started_at: Timestamp | None
    updated_at: Timestamp
    finished_at: Timestamp | None
    error: str | None
    difference: Json
    earlier_rows: int
    """Of the compared rows, those that are documents of an earlier release. A rebuild writes them in the present form."""


class PreviousView(BaseModel):
    position: int
    replaced_at: Timestamp


class ProjectionView(BaseModel):
    name: str
    tables: list[str]
    plugin: str | None
    """The distribution that provides the read model. Null: the server itself."""
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
    """Read models by name.

    Methods raise NotFound if no read model has the name. Methods that use the database raise Unavailable.
    """

    def must_know(self, name: str) -> None: ...

    async def list(self) -> Sequence[ProjectionView]:
        """All read models, in the order of their declaration."""
        ...

    def problems(self) -> Sequence[ProblemView]:
        """Plug-ins that provide no read model, and the reasons."""
        ...

    async def view(self, name: str) -> ProjectionView: ...

    async def ask(self, name: str, kind: Kind, *, swap: bool = False) -> ProjectionView:
        """Requests a job. `swap`: the new version goes live as soon as it is ready. Raises InvalidState."""
        ...

    async def ask_swap(self, name: str) -> ProjectionView:
        """Lets a version go live as soon as it is ready. Raises InvalidState."""
        ...

    async def cancel(self, name: str, purpose: Purpose) -> ProjectionView:
        """Cancels a job and drops the tables that it has built. Raises InvalidState."""
        ...

    async def drop_previous(self, name: str) -> ProjectionView:
        """Drops the version that was kept for a rollback. Raises InvalidState."""
        ...

    async def retry_parked(self, name: str, root_id: UUID) -> Retried:
        """Applies the parked events of a root in order, in one transaction, or changes nothing."""
        ...
