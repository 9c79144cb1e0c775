"""What the lines of a task's log are about: ids that stand on each line.

Each report of a worker says what it is about, and nearly none writes a line. So the ids become text only where a line is written.
"""

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any
from uuid import UUID

_ABOUT: ContextVar[Mapping[str, UUID]] = ContextVar("log_about", default={})  # noqa: B039  # never changed

_REQUEST: ContextVar[tuple[UUID, str] | None] = ContextVar("log_request", default=None)


def about(**ids: UUID) -> None:
    """The lines that the present task logs from now on have these ids, and none that were given before."""
    _ABOUT.set(ids)


def of_request(tenant_id: UUID, trace_id: str) -> None:
    """The lines that the present task logs from now on are of this request."""
    _REQUEST.set((tenant_id, trace_id))


def with_ids(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: adds the ids to a line."""
    for name, id in _ABOUT.get().items():
        fields.setdefault(name, str(id))
    if (request := _REQUEST.get()) is not None:
        fields.setdefault("tenant_id", str(request[0]))
        fields.setdefault("trace_id", request[1])
    return fields
