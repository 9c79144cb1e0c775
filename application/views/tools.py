"""Registered tools as people see them."""

from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json


class Declared(ListedRow):
    """What a version of a tool declares."""

    tool_id: UUID
    name: str
    version: str
    revision: int
    """Version of the tool's stream at the registration."""
    description: str
    capabilities: list[str]
    parameters: Json
    """JSON Schema of the arguments."""
    idempotent: bool
    timeout_s: float
    max_attempts: int
    registered_at: Timestamp
    reconcile_timeout_s: float | None = None
    """The limit of one call of the tool's `reconcile` function. Null: it has none."""
    kind: str = "python"
    result: Json = None
    """JSON Schema of the result. Null: any result."""
    examples: list[Json] = []
    needs_tools: list[str] = []
    needs_services: list[str] = []
    untrusted_output: bool = False
    """The result holds text of strangers: a model must not take it for instructions."""
    request: Json = None
    """The HTTP request of a tool of the kind `http`."""
    builtin: str | None = None
    chain: Json = None
    """The steps of a tool of the kind `chain`."""
    pinned: bool = False
    """Another declaration of this version is refused. False: the declaration follows the code of the workers."""
    policy: Json = None
    """What it declares about its calls. Null: nothing."""


class Deprecation(BaseModel):
    since: Timestamp
    replaced_by: str | None = None
    note: str | None = None


class LimitsInUse(BaseModel):
    """How far the limits of a tool's calls are used, over all processes."""

    in_use: int
    """Calls that go on."""
    held: int
    """Permits that processes hold, for these and for calls to come."""
    waiting: int
    """Calls that processes have at hand and that wait for a permit. More may wait in the queue."""
    waiting_since: Timestamp | None
    tokens: float | None
    """Calls that may begin at this moment. Below zero: so many are promised to calls that wait. Null: there is no rate."""
    held_until: Timestamp | None
    """Until when no call begins, because the service behind the tool asked for silence."""


class ToolView(Declared):
    deprecated: Deprecation | None = None
    limits: LimitsInUse | None = None
    """Of a single tool. Null: nothing limits its calls, or no call has met a limit yet."""
    stream_version: int
    """Version of the tool's stream, which `If-Match` takes."""
    workers: int | None = None
    """Number of workers with a session that offers it. Null: not asked."""


class ToolVersionView(Declared):
    last_registered_at: Timestamp
