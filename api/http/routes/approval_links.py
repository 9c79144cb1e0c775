"""The page of a notice's link: it shows a call and two buttons, and what is sent by a button decides.

Scanners of mail and previews of chats follow links, so a GET decides nothing, ever. The link names a person. What the person may do
is asked again each time: the key, its role and its projects, four eyes. Errors are pages, too: neither route is one for programs.
"""

from collections.abc import Mapping
from time import time
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from api.http.conventions.audit import audited
from api.http.conventions.bodies import takes_content
from api.http.conventions.errors import status_of
from api.http.conventions.idempotency import keyed_request
from api.http.conventions.narrowing import must_be_seen
from api.http.conventions.permissions import Reach, public
from api.http.conventions.request import Principal, container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents.link_pages import STYLE_HASH, Fact, decided_page, notice_page, worthless_page
from api.http.routes.approvals import deciding
from application.approvals.asked import agent_of, reason_of, title_of
from application.approvals.deciding import Approver
from application.approvals.links import LENGTH, PATH, Link, fingerprint_of
from application.tenants import present
from application.views.approvals import ApprovalView
from domain import approvals, tenants
from domain.access import Action, may
from domain.approvals import Approval, DecideApproval
from domain.errors import AlreadyExists, InvalidCommand, NotFound, PayloadTooLarge, TidelogError
from domain.kernel import timestamp
from domain.tenants import Tenant

router = APIRouter(tags=["approvals"], route_class=DirectRoute)

MOST_BYTES = 8 * 1024
MOST_REASON = 500
FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src '{STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Worthless(NotFound):
    """The link is worth nothing, or nothing any more. What it is about is not told."""


@router.get(PATH, include_in_schema=False)
@public
async def get_link(request: Request, link: str = "") -> Response:
    """Shows what is asked. Decides nothing, however often it is asked for."""
    try:
        said = await _proven(request, link)
        return _page(await _shown(request, said, link))
    except TidelogError as error:
        return _refused(error)


@router.post(PATH, include_in_schema=False)
@public
@takes_content(MOST_BYTES)
async def post_link(request: Request) -> Response:
    """Decides, once, as the person whom the link names. Afterwards the page says what was decided."""
    try:
        form = await _form(request)
        said = await _proven(request, form.get("link", ""))
        if (decision := form.get("decision")) not in ("approve", "deny"):
            raise InvalidCommand("press one of the buttons")
        return await _decided(request, said, decision, form.get("reason", "").strip() or None)
    except TidelogError as error:
        return _refused(error)


async def _form(request: Request) -> Mapping[str, str]:
    """Raises InvalidCommand, PayloadTooLarge."""
    body = await request.body()
    if len(body) > MOST_BYTES:
        raise PayloadTooLarge(f"a form has at most {MOST_BYTES:,} bytes")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise InvalidCommand(f"a decision is sent as {FORM}")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=10, errors="strict"))
    except ValueError:
        raise InvalidCommand("the form cannot be read") from None


async def _proven(request: Request, token: str) -> Link:
    """What the link says, and from here on the request is the person's. Raises Worthless, Unavailable.

    Nothing is looked up for a link that this installation has not made.
    """
    said = await container_of(request).workers.links.read(token) if len(token) == LENGTH else None
    if said is None:
        raise Worthless("This link is not one of ours: it may have been cut off on its way.")
    tenant: Tenant = (await container_of(request).commands.load(tenants.DECIDER, said.tenant_id, said.tenant_id)).state
    key = tenant.keys.get(said.key_id)
    if key is None or key.has_expired(present()):
        raise Worthless("This link is worth nothing any more: the key of the person whom it names has ended.")
    projects = None if key.projects is None else frozenset(key.projects)
    request.scope["state"]["principal"] = Principal(said.tenant_id, said.key_id, f"key:{said.key_id}", key.role, projects)
    if not (may(key.role, Action.APPROVALS_DECIDE) and may(key.role, Action.APPROVALS_READ)):
        raise Worthless("This link is worth nothing any more: the person whom it names does not decide.")
    try:
        await must_be_seen(request, Reach.APPROVAL, {Reach.APPROVAL.value: said.approval_id})
    except NotFound:
        raise Worthless("This link is worth nothing any more: the person whom it names does not decide.") from None
    return said


async def _view(request: Request, said: Link) -> tuple[Approval, ApprovalView]:
    """The approval, as the link's person sees it. Raises Worthless, Unavailable."""
    state: Approval = (await container_of(request).commands.load(approvals.DECIDER, said.tenant_id, said.approval_id)).state
    principal = request.scope["state"]["principal"]
    try:
        found = await deciding(request).view(said.tenant_id, said.approval_id, Approver(principal.actor, principal.role))
    except NotFound:
        raise Worthless("What this link is about is not there any more.") from None
    return state, found.value


def _must_still_hold(said: Link, state: Approval) -> None:
    """Of an approval that is open. Raises Worthless."""
    if said.expires_at <= time():
        raise Worthless("This link has expired. What waits for you is shown by: tidelog inbox")
    if said.fingerprint != fingerprint_of(said.approval_id, state):
        raise Worthless("The call was changed since you were told of it. Look at it as it is now: tidelog inbox")


async def _shown(request: Request, said: Link, token: str) -> bytes:
    state, view = await _view(request, said)
    if state.status != "open":
        return decided_page(_what_was_decided(view), said.key_id)
    _must_still_hold(said, state)
    if not view.may_decide:
        return worthless_page(f"You do not decide this one: {view.why_not}")
    assert state.requested is not None
    agent = await agent_of(container_of(request).commands, said.tenant_id, state.requested)
    title = title_of(state.requested)
    return notice_page(title, _facts(view, agent), view.arguments, token, PATH, of_call=view.kind == "call")


def _facts(view: ApprovalView, agent: str) -> list[Fact]:
    four_eyes = "; not whoever started the run, or for whom it works" if view.four_eyes else ""
    found = [
        Fact("Why", "; ".join(reason_of(each) for each in view.because) or "the agent asks"),
        Fact("Asked by", agent),
        Fact("For", view.on_behalf_of or "nobody"),
        Fact("Run", str(view.run_id)),
        Fact("Until", f"{timestamp(view.deadline_at)}, then: {view.default}" if view.deadline_at else "no deadline"),
        Fact("Needed", f"{view.needed} of {', '.join(view.roles)}{four_eyes}"),
        Fact("Said so far", f"{view.approvals} have approved"),
    ]
    if view.kind == "call":
        found.insert(0, Fact("Tool", view.tool + (f", version {view.tool_version}" if view.tool_version else "")))
    if view.tainted:
        found.append(Fact("Careful", "the arguments may come from strangers"))
    if view.asked_arguments is not None:
        found.append(Fact("Changed", "somebody has changed the arguments; these are those that count"))
    return found


async def _decided(request: Request, said: Link, decision: Any, reason: str | None) -> Response:
    state, view = await _view(request, said)
    if state.status == "open":
        _must_still_hold(said, state)
        if reason is not None and (len(reason) > MOST_REASON or not all(each.isprintable() or each in "\r\n\t" for each in reason)):
            raise InvalidCommand(f"a reason has at most {MOST_REASON} characters")
        principal = request.scope["state"]["principal"]
        command = DecideApproval(
            approval_id=said.approval_id, decision=decision, by=principal.actor, role=principal.role, reason=reason,
            arguments_hash=state.arguments_hash, via="link",
        )  # fmt: skip
        action = Action.APPROVALS_DECIDE
        async with audited(request, action, "approval", said.approval_id, operation=decision, reason=reason) as entry:
            asked = keyed_request(request, None, correlation_id=said.approval_id)
            await deciding(request).decide(asked, command, entry.along)
        _, view = await _view(request, said)
    return _page(decided_page(_what_was_decided(view), said.key_id))


def _what_was_decided(view: ApprovalView) -> list[Fact]:
    if view.status == "open":
        found = [Fact("Status", f"open: {view.approvals} of {view.needed} have approved")]
    else:
        found = [Fact("Status", f"{view.status}{': nobody decided in time' if view.expired else ''}")]
    for word in view.words:
        found.append(Fact(f"{word.by}", f"{word.decision}, {timestamp(word.at)}" + (f": {word.reason}" if word.reason else "")))
    return found


def _refused(error: TidelogError) -> Response:
    """The problem as a page. It shows nothing of what the link is about."""
    status = status_of(error)
    if status == 409 or isinstance(error, AlreadyExists):
        return _page(worthless_page(f"Nothing was decided by this: {error.message}."), 409)
    return _page(worthless_page(error.message), status)


def _page(content: bytes, status: int = 200) -> Response:
    return HTMLResponse(content, status, HEADERS)
