"""Parts of a request: its principal, its headers, and the metadata of its command."""

from dataclasses import dataclass
from uuid import UUID

from fastapi import Request
from uuid_utils.compat import uuid7

from api.container import Container
from application.engine.commands.request import Caller, CommandRequest, request_of_entrance
from domain.access import Role
from domain.errors import Forbidden
from domain.tenants import DEFAULT_TENANT_ID


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request: an API key of a tenant."""

    tenant_id: UUID
    key_id: UUID
    actor: str
    """The caller's name in the metadata of events."""
    role: Role = Role.OWNER
    projects: frozenset[UUID] | None = None
    """The projects to which the key is narrowed. None: it is for the whole tenant."""


def container_of(request: Request) -> Container:
    container: Container = request.scope["state"]["container"]
    return container


def principal_of(request: Request) -> Principal:
    principal: Principal = request.scope["state"]["principal"]
    return principal


def operator_of(request: Request, what: str) -> Principal:
    """The caller, an operator. `what`: subject and verb, such as "read models are". Raises Forbidden."""
    principal = principal_of(request)
    if principal.tenant_id != DEFAULT_TENANT_ID:
        raise Forbidden(f"{what} shared by all tenants: only a key of the default tenant may ask")
    return principal


def header(request: Request, name: bytes) -> str:
    """A header by its name in lower case.

    Empty if it is missing. The gate's table is faster than the framework's search of the list.
    """
    headers: dict[bytes, bytes] = request.scope["state"]["headers"]
    return headers.get(name, b"").decode("latin-1")


def caller_of(request: Request) -> Caller:
    """The caller of commands. The values of the commands come from a body that `body_of` has checked."""
    principal = principal_of(request)
    state = request.scope["state"]
    return Caller(principal.tenant_id, principal.actor, state.get("traceparent"), state.get("on_behalf_of"))


def command_request(
    request: Request, *, correlation_id: UUID | None = None, command_id: UUID | None = None, content: UUID | None = None
) -> CommandRequest:
    """The metadata of a command that comes in over HTTP. Its body has been checked by `body_of`.

    `command_id`: given if a repeat of the command has the same id. None: a new id. `content`: see `CommandRequest`.
    """
    principal, state = principal_of(request), request.scope["state"]
    repeatable, command_id = command_id is not None, command_id or uuid7()
    asked = request_of_entrance(
        principal.tenant_id, principal.actor, state.get("traceparent"), command_id, correlation_id, repeatable, content,
        state.get("on_behalf_of"),
    )  # fmt: skip
    cause = state.get("cause")  # of `causes.find_cause`
    return asked if cause is None else asked._replace(causation_id=cause)
