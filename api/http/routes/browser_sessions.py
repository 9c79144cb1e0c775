"""Browsers sign in by a key, or by a link that works once, and sign out. The cookie never has the key (decision 0122)."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, SecretStr
from starlette.responses import Response

from api.http.conventions import sites
from api.http.conventions.answers import answer
from api.http.conventions.audit import audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.callers import Callers
from api.http.conventions.permissions import Reach, needs, permission_of, signs_in
from api.http.conventions.request import Principal, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.documents.headers import headers
from application.engine.ports import log_context
from application.engine.ports.browser_sessions import BrowserSession, SignedBy
from application.engine.ports.views import Timestamp
from application.tenants import no_key
from domain.access import PERMISSIONS, Action, Role
from domain.errors import Forbidden, InvalidCommand, NotFound

router = APIRouter(tags=["sessions"], route_class=DirectRoute)

NOT_STORED = {"Cache-Control": "no-store"}


class SignInBody(Body):
    key: SecretStr | None = Field(default=None, min_length=1, max_length=1_000)
    """An API key. Either this or `link`."""
    link: SecretStr | None = Field(default=None, min_length=1, max_length=1_000)
    """What stands behind `#link=` in a link of `POST /v1/sessions/links`."""


class MakeLinkBody(Body):
    pass


class WhoAsks(BaseModel):
    session_id: UUID | None
    """The session of the browser. Null: the request is by key."""
    tenant_id: UUID
    key_id: UUID
    label: str
    """Of the key."""
    role: Role
    actions: list[str]
    """What the role may do."""
    projects: list[UUID] | None
    """The only projects that the key is for. Null: the whole tenant."""
    signed_in_at: Timestamp | None
    expires_at: Timestamp | None
    """The end of the session or of the key, whichever comes first. Null: the key does not expire."""


class LinkMade(openapi.Shown):
    link: str
    path: str
    """The page that signs in with the link."""
    expires_in_s: int


@router.post(
    "/v1/sessions",
    status_code=201,
    summary="Sign a browser in",
    responses={201: openapi.gives(WhoAsks, "Set-Cookie", "Cache-Control")},
    openapi_extra=openapi.body(SignInBody, {"key": "tl_owner_…"}, {"link": "…"}),
)
@signs_in(Action.SESSIONS_BEGIN)
async def post_session(request: Request) -> Response:
    """The answer has a cookie that a page cannot read. The browser asks by the cookie for 12 hours, or up to the end of the key."""
    scope, callers = request.scope, callers_of(request)
    callers.must_be_of_this_site(scope)
    body = await body_of(request, SignInBody)
    if (body.key is None) == (body.link is None):
        raise InvalidCommand("give either `key` or `link`")
    if body.key is not None:
        found = await callers.keys.owner_of(body.key.get_secret_value().strip().encode())
    else:
        assert body.link is not None
        _must_be_local(request)
        found = await callers.take_link(body.link.get_secret_value())
    principal, key_sha256 = found
    state: dict[str, Any] = scope["state"]
    state["principal"] = principal
    log_context.of_request(principal.tenant_id, state["trace_id"])
    permission_of(post_session).check(principal)
    before = await callers.session_of(scope)
    by = SignedBy(principal.tenant_id, principal.key_id, key_sha256)
    async with audited(request, Action.SESSIONS_BEGIN, "key", principal.key_id, operation="key" if body.key else "link") as entry:
        await entry.begin()
        session, cookie = await callers.sign_in(scope, by)
    if before is not None:  # of the same browser, whose cookie is replaced
        await callers.sign_out(before)
    return await _who(request, principal, session, 201, {**NOT_STORED, "Set-Cookie": cookie})


@router.get("/v1/sessions/self", summary="Who is signed in", responses={200: openapi.gives(WhoAsks, "Cache-Control")})
@needs(Action.SELF_READ, Reach.LIMITED)
async def get_own_session(request: Request) -> Response:
    """The key with which the browser is signed in, and what it may do."""
    return await _who(request, principal_of(request), request.scope["state"].get("session"), 200, NOT_STORED)


@router.delete(
    "/v1/sessions/self",
    status_code=204,
    summary="Sign the browser out",
    responses={204: {"description": "The session has ended, with its streams", "headers": headers("Set-Cookie")}},
)
@needs(Action.SESSIONS_END, Reach.LIMITED)
async def delete_own_session(request: Request) -> Response:
    callers = callers_of(request)
    session: BrowserSession | None = request.scope["state"].get("session")
    if session is None:
        raise NotFound("the request is by key: there is no session to end")
    async with audited(request, Action.SESSIONS_END, "session", session.session_id) as entry:
        await entry.begin()
        await callers.sign_out(session)
    return Response(status_code=204, headers={"Set-Cookie": callers.no_cookie(request.scope)})


@router.post(
    "/v1/sessions/links",
    status_code=201,
    summary="Make a link that signs a browser of this machine in",
    responses={201: openapi.gives(LinkMade, "Cache-Control")},
    openapi_extra=openapi.body(MakeLinkBody),
)
@needs(Action.SESSIONS_BEGIN, Reach.LIMITED, by_key=True)
async def post_link(request: Request) -> Response:
    """The link works once, within ten minutes, on the machine of a server that serves its own machine alone. The browser is signed
    in with the key of the request.
    """
    await body_of(request, MakeLinkBody)
    _must_be_local(request)
    principal = principal_of(request)
    by = SignedBy(principal.tenant_id, principal.key_id, request.scope["state"]["key"])
    link, life_s = await callers_of(request).make_link(by)
    return answer({"link": link, "path": f"/console/#link={link}", "expires_in_s": life_s}, 201, headers=NOT_STORED)


def callers_of(request: Request) -> Callers:
    callers: Callers = request.app.state.callers
    return callers


def _must_be_local(request: Request) -> None:
    """Raises Forbidden."""
    if not sites.is_local(request.scope, request.scope["state"]["headers"], container_of(request).settings.host):
        raise Forbidden("links sign in on the machine of the server alone, and only if it listens at 127.0.0.1: sign in by a key")


async def _who(
    request: Request, principal: Principal, session: BrowserSession | None, status: int, given: dict[str, str]
) -> Response:
    """Raises NotFound."""
    key = (await container_of(request).reads.keys.get(principal.tenant_id, principal.key_id)).value
    if key is None:
        raise no_key(principal.key_id)
    ends = [end for end in (session and session.ends_at, key.expires_at) if end is not None]
    who = WhoAsks(
        session_id=session and session.session_id,
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        label=key.label,
        role=principal.role,
        actions=sorted(PERMISSIONS[principal.role]),
        projects=None if principal.projects is None else sorted(principal.projects),
        signed_in_at=session and session.made_at,
        expires_at=min(ends, default=None),
    )
    return answer(who, status, headers=given)
