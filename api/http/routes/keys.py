"""API keys over HTTP.

Who issues or rotates a key may make it: the body then has its id and its SHA-256. So the server never has the key, and a lost
answer loses nothing. Without the two the server makes the key, and says it in the first answer alone. The log does not know the
key, so a repeat with the same `Idempotency-Key` is answered without (decision 0079).
"""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.releases import must_all_know_projects, must_all_know_roles
from api.http.conventions.request import Principal, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.commands.request import CommandOutcome
from application.engine.ports.pages import MAX_LIMIT, uuid_cursor
from application.tenants import must_be_projects, no_key, present, revoke_key
from application.views.tenants import ApiKeyView
from domain.access import Action, Role
from domain.errors import InvalidCommand
from domain.kernel import ShortText
from domain.tenants import (
    LONGEST_OVERLAP_S,
    MOST_PROJECTS,
    OVERLAP_S,
    ApiKeyIssued,
    IssueApiKey,
    RevokeApiKey,
    RotateApiKey,
    Sha256,
)
from tidelog.keys import make_key, new_key_id

router = APIRouter(tags=["keys"], route_class=DirectRoute)


class MadeByClient(Body):
    key_id: UUID | None = None
    """The id of the new key, with `sha256`. Missing: the server makes the key."""
    sha256: Sha256 | None = None
    """SHA-256 in hex of the key that the client has made."""


class IssueKeyBody(MadeByClient):
    label: ShortText = Field(min_length=1)
    role: Role
    expires_at: AwareDatetime | None = None
    projects: tuple[UUID, ...] | None = Field(default=None, min_length=1, max_length=MOST_PROJECTS)
    """The ids of the only projects that the key is for. Missing: it is for the whole tenant."""


class RotateKeyBody(MadeByClient):
    overlap_s: float = Field(default=OVERLAP_S, ge=0, le=LONGEST_OVERLAP_S, allow_inf_nan=False)
    expires_at: AwareDatetime | None = None


class RevokeKeyBody(Body):
    reason: ShortText | None = None


class KeyIssued(openapi.Shown):
    key_id: UUID
    key: str | None
    """The key, in the first answer of a key that the server made. Else null: the server does not know it."""
    position: int
    version: int


class KeyRevoked(openapi.Shown):
    key_id: UUID
    position: int
    version: int


class KeyPage(BaseModel):
    data: list[ApiKeyView]
    next_cursor: str | None


@router.post(
    "/v1/keys",
    status_code=201,
    summary="Issue an API key",
    responses={201: openapi.gives(KeyIssued, "Location", "Cache-Control", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        IssueKeyBody,
        {"label": "deploy", "role": "developer", "expires_at": "2027-01-31T00:00:00Z"},
        {"label": "auditor of reviews", "role": "auditor", "projects": ["01920000-0000-7000-8000-000000000001"]},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON),
    ),
)
@needs(Action.KEYS_ISSUE)
async def post_key(request: Request) -> Response:
    principal, body = principal_of(request), await body_of(request, IssueKeyBody)
    key_id, sha256, text = _made(body, body.role)
    command = IssueApiKey(
        tenant_id=principal.tenant_id,
        key_id=key_id,
        label=body.label,
        sha256=sha256,
        role=body.role,
        expires_at=body.expires_at,
        projects=body.projects,
        giver=principal.role,
        giver_projects=projects_of(request),
        at=present(),
    )
    if command.projects is not None:
        await must_all_know_projects(container_of(request))
        await must_be_projects(container_of(request).commands, principal.tenant_id, command.projects)
    elif command.role is not Role.OWNER or command.expires_at is not None:
        await must_all_know_roles(container_of(request))
    key = key_of(request, body)
    async with audited(request, Action.KEYS_ISSUE, "key", key_id, operation=body.role) as entry:
        with one_content(key):
            outcome = await container_of(request).commands.execute(entry.along(keyed_request(request, key)), command)
    return _issued(outcome, principal, key_id, text)


@router.get(
    "/v1/keys",
    summary="API keys, newest first, also those that are not valid any more",
    responses={200: openapi.gives(KeyPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.KEYS_READ)
async def get_keys(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None) -> Response:
    principal = principal_of(request)
    await caught_up(request, "tenants")
    found = await container_of(request).reads.keys.list(principal.tenant_id, limit=limit, before=uuid_cursor(cursor))
    return page_answer(request, KeyPage, found)


@router.get(
    "/v1/keys/self",
    summary="The API key of the request",
    responses={200: openapi.gives(ApiKeyView, POSITION)},
)
@needs(Action.SELF_READ, Reach.LIMITED)
async def get_own_key(request: Request) -> Response:
    """Its role, its projects, and when it expires: also for a key that may list no keys."""
    principal = principal_of(request)
    return await _shown(request, principal.tenant_id, principal.key_id)


@router.get(
    "/v1/keys/{key_id}",
    summary="An API key",
    responses={200: openapi.gives(ApiKeyView, POSITION)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.KEYS_READ)
async def get_key(request: Request, key_id: UUID) -> Response:
    await caught_up(request, "tenants")
    return await _shown(request, principal_of(request).tenant_id, key_id)


async def _shown(request: Request, tenant_id: UUID, key_id: UUID) -> Response:
    """Raises NotFound."""
    found = await container_of(request).reads.keys.get(tenant_id, key_id)
    if found.value is None:
        raise no_key(key_id)
    return answer(found.value, position=found.position)


@router.post(
    "/v1/keys/{key_id}/rotate",
    status_code=201,
    summary="Issue a key that takes the place of another",
    responses={201: openapi.gives(KeyIssued, "Location", "Cache-Control", *OF_COMMANDS)},
    openapi_extra=openapi.body(RotateKeyBody, {"overlap_s": 3600}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)),
)
@needs(Action.KEYS_ROTATE)
async def post_rotate(request: Request, key_id: UUID) -> Response:
    """The old key is valid for `overlap_s` more seconds; 0: it is revoked at once. The new key has the same label, role and
    projects, and the same expiry unless the body has another one.
    """
    principal, body = principal_of(request), await body_of(request, RotateKeyBody)
    commands, tenant_id = container_of(request).commands, principal.tenant_id
    to_key_id, sha256, text = _made(body, await _role_of(request, tenant_id, key_id) if body.sha256 is None else Role.OWNER)
    command = RotateApiKey(
        tenant_id=tenant_id,
        key_id=key_id,
        to_key_id=to_key_id,
        sha256=sha256,
        at=present(),
        overlap_s=body.overlap_s,
        expires_at=body.expires_at,
        giver=principal.role,
        giver_projects=projects_of(request),
    )
    await must_all_know_roles(container_of(request))
    key = key_of(request, body)
    async with audited(request, Action.KEYS_ROTATE, "key", key_id) as entry:
        with one_content(key):
            outcome = await commands.execute(entry.along(keyed_request(request, key)), command)
    return _issued(outcome, principal, to_key_id, text)


@router.post(
    "/v1/keys/{key_id}/revoke",
    status_code=202,
    summary="Revoke an API key",
    responses={202: openapi.gives(KeyRevoked, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        RevokeKeyBody, {"reason": "the laptop was lost"}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)
    ),
)
@needs(Action.KEYS_REVOKE)
async def post_revoke(request: Request, key_id: UUID) -> Response:
    """The key ends within a second, in every process, with its event streams and worker sessions. The last key of an owner that
    does not expire is kept: 409.
    """
    principal, body = principal_of(request), await body_of(request, RevokeKeyBody)
    command = RevokeApiKey(
        tenant_id=principal.tenant_id,
        key_id=key_id,
        reason=body.reason,
        giver=principal.role,
        giver_projects=projects_of(request),
    )
    key = key_of(request, body)
    async with audited(request, Action.KEYS_REVOKE, "key", key_id, reason=body.reason) as entry:
        with one_content(key):
            outcome = await revoke_key(container_of(request).commands, entry.along(keyed_request(request, key)), command)
    return accepted(outcome, _version(outcome, principal), {"key_id": str(key_id)})


def _made(body: MadeByClient, role: Role) -> tuple[UUID, str, str | None]:
    """Id and SHA-256 of the new key, and the key itself if the server makes it."""
    if (body.key_id is None) != (body.sha256 is None):
        raise InvalidCommand("give both `key_id` and `sha256` of a key that you have made, or neither", pointer="/sha256")
    if body.key_id is not None and body.sha256 is not None:
        return body.key_id, body.sha256, None
    made = make_key(new_key_id(), role)
    return made.key_id, made.sha256, made.text


async def _role_of(request: Request, tenant_id: UUID, key_id: UUID) -> Role:
    found = await container_of(request).reads.keys.get(tenant_id, key_id)
    return found.value.role if found.value is not None else Role.OWNER


def _issued(outcome: CommandOutcome, principal: Principal, key_id: UUID, text: str | None) -> Response:
    """The answer. A repeat does not get the key that was made for it, which the log does not know."""
    if outcome.duplicate or not outcome.events:
        text = None
    if outcome.duplicate:
        commands_events = [event for event in outcome.recorded if event.topic == ApiKeyIssued.TOPIC]
        key_id = _key_id_in(commands_events[-1].state)
    # No cache may keep the secret.
    headers: Mapping[str, str] = {"Location": f"/v1/keys/{key_id}", "Cache-Control": "no-store"}
    body: dict[str, Any] = {"key_id": str(key_id), "key": text}
    return accepted(outcome, _version(outcome, principal), body, status=201, headers=headers)


def _key_id_in(state: bytes) -> UUID:
    return ApiKeyIssued.model_validate_json(state).key_id


def _version(outcome: CommandOutcome, principal: Principal) -> int:
    """The version of the tenant's stream."""
    if outcome.duplicate:
        return max(event.version for event in outcome.recorded)
    return outcome.versions[principal.tenant_id]
