"""Entries in the audit trail: one call around an action of an operator, and the count of refused requests.

    async with audited(request, Action.RUNS_CANCEL, "run", run_id, reason=body.reason) as entry:
        outcome = await commands.execute(entry.along(command_request), command)

The entry of a command goes into the append of the command, and is written only if the command changes something. An action that is
no command calls `await entry.begin()` before it acts. What is refused or fails gets an entry with the code of the error.
"""

import ipaddress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import structlog
from fastapi import Request
from starlette.types import Scope

from api.container import Container
from api.http.conventions.door import Network, is_proxy, network_of
from api.http.conventions.errors import status_of
from api.http.conventions.request import Principal, command_request, container_of
from api.metrics import AUDIT_REFUSALS, AUDITED
from application.audit import RefusedGroup
from application.engine.commands.request import CommandRequest
from domain import access
from domain.access import Action
from domain.audit import UNKNOWN, RecordAction, Result
from domain.errors import InvalidCommand, TidelogError
from domain.kernel import derive_id
from domain.tenants import DEFAULT_TENANT_ID

REASON = "Tidelog-Reason"
MOST_CHARACTERS = 500
RECORDED = "refusal_recorded"
"""Name in the state of a request: its refusal has an entry."""
COUNTED = (401, 403)
"""Statuses of refusals that are counted."""
LAST_PROXIES = 20
"""Addresses of `X-Forwarded-For` that are looked at."""

log = structlog.get_logger(__name__)


class audited:  # reads as what it does: `async with audited(request, …) as entry:`
    """The entry of one action. `operation`: which one, where an action covers several. `reason`: of the body; else of the header.

    Entering raises InvalidCommand for a header that is no reason.
    """

    def __init__(
        self, request: Request, action: Action, kind: str, target: UUID | str | None = None, *,
        operation: str | None = None, reason: str | None = None,
    ) -> None:  # fmt: skip
        if action not in access.AUDITED:
            raise TypeError(f"{action} is not in the table of audited actions")
        self._request = request
        self._action, self._operation = action, operation
        self._kind, self._target = kind, None if target is None else _readable(str(target))
        self._reason = reason
        self._named: CommandRequest | None = None
        """The request of the action itself, if it is a command."""
        self._begun = False

    async def __aenter__(self) -> Self:
        given = reason_of(self._request)
        self._reason = self._reason or given
        if self._reason is not None and _shows_key(self._request, self._reason):
            raise InvalidCommand("the reason has the API key in it, which must not be recorded")
        return self

    def along(self, request: CommandRequest) -> CommandRequest:
        """The request of the action's command, with the entry. A repeat under the same command id leaves no second entry."""
        self._named = request
        return request._replace(along=self._entry(request, "done"))

    async def begin(self) -> None:
        """Records the entry before an action that is no command. Raises Unavailable: then the action must not be done."""
        await self._record("begun", None)
        self._begun = True

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            AUDITED.labels(self._action, "begun" if self._begun else "done").inc()
        elif isinstance(error, TidelogError) and status_of(error) < 500:
            await self._ended("refused", error.code)
        elif self._begun and isinstance(error, Exception):  # a command that failed is recorded with its entry, or not at all
            await self._ended("failed", error.code if isinstance(error, TidelogError) else "internal")

    async def _ended(self, result: Result, code: str) -> None:
        AUDITED.labels(self._action, result).inc()
        try:
            await self._record(result, code)
        except TidelogError as error:  # the caller gets the first error
            log.warning("audit_entry_not_recorded", action=self._action, result=result, code=code, error=error.message)

    async def _record(self, result: Result, code: str | None) -> None:
        """A refusal of a repeated command is recorded once: the id of the entry follows from the id of the command."""
        request = command_request(self._request)
        if self._named is not None and self._named.repeatable:
            request = request._replace(command_id=derive_id(self._named.command_id, f"audit:{result}:{code}"))
        entry = self._entry(request, result, code)
        await container_of(self._request).commands.execute(request, entry)
        self._request.scope["state"][RECORDED] = result == "refused"

    def _entry(self, request: CommandRequest, result: Result, code: str | None = None) -> RecordAction:
        return RecordAction(
            entry_id=derive_id(request.command_id, "audit"), tenant_id=request.tenant_id, action=self._action,
            operation=self._operation, actor=request.actor, on_behalf_of=request.on_behalf_of,
            target_kind=self._kind, target_id=self._target, reason=self._reason,
            address=address_of(self._request.scope, container_of(self._request)), result=result, code=code,
        )  # fmt: skip


def _readable(text: str) -> str:
    """A text of a path, which may be of anything that does not exist."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])


def reason_of(request: Request) -> str | None:
    """The header `Tidelog-Reason`: UTF-8, one line. Raises InvalidCommand."""
    raw: bytes = request.scope["state"]["headers"].get(REASON.lower().encode(), b"")
    if not raw:
        return None
    try:
        reason = raw.decode().strip()
    except UnicodeDecodeError:
        raise InvalidCommand(f"{REASON} must be UTF-8") from None
    if not reason or len(reason) > MOST_CHARACTERS or not reason.isprintable():
        raise InvalidCommand(f"{REASON} must be one line of 1 to {MOST_CHARACTERS} characters")
    return reason


def _shows_key(request: Request, reason: str) -> bool:
    headers: dict[bytes, bytes] = request.scope["state"]["headers"]
    keys = (headers.get(name, b"").strip().rpartition(b" ")[2] for name in (b"authorization", b"x-api-key"))
    return any(key and key in reason.encode() for key in keys)


def action_of(route: object) -> Action | None:
    """The action that a route names."""
    action: Action | None = getattr(getattr(route, "permission", None), "action", None)
    return action


def count_refusal(container: Container, scope: Scope, action: Action | None) -> None:
    """Counts a request, or a message of a worker's session, that was answered with 401 or 403. No text of it is kept. What has an
    entry of its own is not counted.
    """
    state: dict[str, Any] = scope["state"]
    if state.get(RECORDED):
        return
    principal: Principal | None = state.get("principal")
    address = address_of(scope, container)
    network = None if address is None else network_of(address)
    tenant_id, actor = (DEFAULT_TENANT_ID, UNKNOWN) if principal is None else (principal.tenant_id, principal.actor)
    AUDIT_REFUSALS.labels("unknown" if principal is None else "known").inc()
    container.refusals.count(tenant_id, RefusedGroup(actor, network, action))


def address_of(scope: Scope, container: Container) -> str | None:
    """The address of the caller: of the connection, or as trusted proxies tell it in `X-Forwarded-For`."""
    client = scope.get("client")
    host = _address(client[0]) if client else None
    proxies = container.settings.trusted_proxies
    if host is None or not proxies or not is_proxy(proxies, host):
        return host
    given = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    return _behind(proxies, host, given.rsplit(",", LAST_PROXIES)[-LAST_PROXIES:])


def _behind(proxies: tuple[Network, ...], host: str, forwarded: list[str]) -> str:
    """The last address that no trusted proxy has: each proxy adds, at the end, the address that it was asked from."""
    for text in reversed(forwarded):
        address = _address(text.strip())
        if address is None:
            break
        host = address
        if not is_proxy(proxies, host):
            break
    return host


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None
