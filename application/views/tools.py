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


class ToolView(Declared):
    deprecated: Deprecation | None = None
    stream_version: int
    """Version of the tool's stream, which `If-Match` takes."""
    workers: int | None = None
    """Number of workers with a session that offers it. Null: not asked."""


class ToolVersionView(Declared):
    last_registered_at: Timestamp
