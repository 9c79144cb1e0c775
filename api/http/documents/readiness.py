"""The answers of `/health/…`, as the OpenAPI document describes them."""

from typing import Literal

from api.http.documents.openapi import Shown
from application.engine.ports.views import Timestamp


class Liveness(Shown):
    status: Literal["ok"]
    version: str


class Progress(Shown):
    position: int
    lag: int
    """Number of positions up to the head of the log."""


class HistoryShown(Shown):
    id: str
    began_at: Timestamp
    cause: str
    last_common_position: int


class MemberShown(Shown):
    place: str | None = None
    """Host and process id. Only for callers with a valid API key."""
    joined_at: Timestamp
    alive: bool
    units: list[str]
    """The parts of the engine's work that the process does."""
    release: str | None
    """Null: the process is of a release that does not say it."""
    formats: list[int] | None


class ChoreShown(Shown):
    """The last run of a chore of the upkeep. Ages and durations are in seconds."""

    name: str
    every_s: float
    ended_at: Timestamp
    age_s: float
    success_age_s: float | None
    """Null: no run has succeeded yet."""
    seconds: float
    removed: int
    removed_in_all: int
    error: str | None


class Trouble(Shown):
    """Something that cannot go on, or not for long, while the process serves."""

    code: Literal["ambiguous-calls", "no-worker", "work-waits", "import-problems", "parked", "little-room", "many-open-runs"]
    count: int
    detail: str


class QueueThatWaits(Shown):
    """An agent or tool whose work has waited for long."""

    kind: Literal["agent", "tool"]
    name: str
    waiting: int
    running: int
    oldest_waiting_s: float


class QueueWithoutWorker(Shown):
    """An agent or tool with waiting work that no session of a worker offers."""

    kind: Literal["agent", "tool"]
    name: str
    waiting: int
    oldest_waiting_s: float


class WorkSums(Shown):
    """Numbers of agent runs and calls by state, and of running runs."""

    waiting: int
    running: int
    retrying: int
    ambiguous: int
    paused: int
    held: int
    suspended: int
    runs: int
    max_runs: int
    """With so many running runs, further starts are refused."""
    oldest_waiting_s: float | None
    oldest_ambiguous_s: float | None
    oldest_held_s: float | None
    waits_long: list[QueueThatWaits]
    unoffered: list[QueueWithoutWorker]


class Readiness(Shown):
    """`head` and all that follows are missing while PostgreSQL is away."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    dependencies: dict[str, str]
    """Name → `ok`, or what is wrong."""
    degraded: list[Trouble]
    consumers: dict[str, Progress]
    head: int | None = None
    """The position of the newest event."""
    durable: bool | None = None
    """Whether an answered append is on disk."""
    row_level_security: bool | None = None
    """Whether the database itself shows the reads of requests one tenant at a time."""
    history: HistoryShown | None = None
    streams: dict[str, Progress] | None = None
    """The copies of the log in JetStream."""
    parked: dict[str, int] | None = None
    """Consumer → number of its parked events."""
    members: list[MemberShown] | None = None
    upkeep: list[ChoreShown] | None = None
    work: WorkSums | None = None
    import_problems: int | None = None
    """Number of files and definitions that workers have reported."""
    free_bytes: int | None = None
    """Room on the disk of the data folder."""
