"""What one process has at hand: built by api/bootstrap.py, used by HTTP and the roles. Ports and use cases only."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from api.settings import Settings
from application.dispatch import CommandLoop
from application.live import LiveFeed
from application.ports import EventFeed, WorkQueue
from projections.kernel import Database

if TYPE_CHECKING:
    from application.workers import Workers


class HealthCheck(Protocol):
    async def __call__(self) -> None:
        """Raises a TidelogError that says what is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """What a worker needs to reach the work queue."""

    url: str
    inbox_prefix: str


@dataclass(frozen=True, slots=True)
class Container:
    settings: Settings
    database: Database
    feed: EventFeed
    commands: CommandLoop
    workers: "Workers"
    live: LiveFeed
    work_queue: WorkQueue
    nats_access: NatsAccess
    dependencies: dict[str, HealthCheck] = field(default_factory=dict)
    """Name → a check with a time-out of its own."""
