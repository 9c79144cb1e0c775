"""Approvals over HTTP: what waits for people, what exactly is asked, and their word."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of, seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.approvals.deciding import Approver, Decisions
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.reads import ApprovalsWanted, Mine
from application.views.approvals import ApprovalSummary, ApprovalView, Status
from domain.access import Action, may
from domain.approvals import DecideApproval
from domain.invocations import Reason
from domain.kernel import Json, Name, ShortText
from domain.written_budgets import WrittenAmounts

router = APIRouter(tags=["approvals"], route_class=DirectRoute)


class DecisionBody(Body):
    """With `arguments` a call is approved with other arguments than it asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"decision": "approve", "reason": "The customer asked for it."}]})

    decision: Literal["approve", "deny"]
    reason: Reason | None = None
    """Why, in the person's own words. A denial tells it to who asked for the call."""
    arguments: dict[str, Json] | None = None
    """Other arguments for the call. They must fit the tool, and need no more than this approval. Null: as they are."""
    arguments_hash: ShortText | None = None
    """`arguments_hash` of the approval that the person has seen. If the arguments were changed since, the decision is refused."""
    add: WrittenAmounts | None = None
    """Of an approval of a budget: how much more there is. Null: as much as `budget.add` of the approval says."""


class DecisionAccepted(openapi.Shown):
    approval_id: UUID
    status: Status
    position: int
    version: int


class ApprovalPage(BaseModel):
    data: list[ApprovalSummary]
    next_cursor: str | None


@router.get(
    "/v1/approvals",
    summary="What waits for people, and what they have said, the newest first",
    responses={200: openapi.gives(ApprovalPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.APPROVALS_READ, Reach.LIMITED)
async def get_approvals(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: Status | None = None,
    tool: Name | None = None,
    run_id: UUID | None = None,
    project_id: UUID | None = None,
    mine: bool = False,
) -> Response:
    """With `mine=true`: the open ones that the caller's key may decide, and has not approved yet."""
    container, principal = container_of(request), principal_of(request)
    within = projects_of(request)
    if project_id is not None:
        within = [project_id] if within is None or project_id in within else []
    elif run_id is not None and (seen := seen_by(request)) is not None:
        within = None if await seen.has(run_id) else []
    who = Mine(principal.role, principal.actor) if mine else None
    wanted = ApprovalsWanted(limit, position_cursor(cursor), status, tool, run_id, within, who)
    await caught_up(request, "approvals")
    return page_answer(request, ApprovalPage, await container.reads.approvals.list(principal.tenant_id, wanted))


@router.get(
    "/v1/approvals/{approval_id}",
    summary="An approval: the exact call, why it waits, and whether the caller may decide",
    responses={200: openapi.gives(ApprovalView, POSITION, "ETag")},
)
@needs(Action.APPROVALS_READ, Reach.APPROVAL)
async def get_approval(request: Request, approval_id: UUID) -> Response:
    """As the log has it. `arguments` are those with which the call would begin."""
    principal = principal_of(request)
    who = Approver(principal.actor, principal.role, request.scope["state"].get("on_behalf_of"))
    found = await deciding(request).view(principal.tenant_id, approval_id, who)
    found.value.may_decide = found.value.may_decide and may(principal.role, Action.APPROVALS_DECIDE)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.version}"'})


@router.post(
    "/v1/approvals/{approval_id}/decision",
    summary="Approve or deny, with other arguments if need be",
    responses={200: openapi.gives(DecisionAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        DecisionBody,
        {"decision": "approve", "reason": "The customer asked for it."},
        {"decision": "approve", "arguments": {"to": "ada@example.com"}, "reason": "It went to the wrong address."},
        {"decision": "approve", "add": {"money": "5"}, "reason": "The report must be out today."},
        {"decision": "deny", "reason": "Not before Monday."},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of"),
    ),
)
@needs(Action.APPROVALS_DECIDE, Reach.APPROVAL)
async def post_decision(request: Request, approval_id: UUID) -> Response:
    """The call begins, or fails, in the same append as the word that settles the approval; of a budget, all calls that wait for it
    go on, or end with their agent runs. The same word again changes nothing;
    another one gets 409 `already-decided`, which says who decided. Who may not decide this approval gets 403 `not-an-approver`.
    """
    body, principal = await body_of(request, DecisionBody), principal_of(request)
    key = key_of(request, body)
    command = DecideApproval(
        approval_id=approval_id,
        decision=body.decision,
        by=principal.actor,
        role=principal.role,
        on_behalf_of=request.scope["state"].get("on_behalf_of"),
        reason=body.reason,
        arguments=body.arguments,
        arguments_hash=body.arguments_hash,
        add=None if body.add is None else body.add.amounts(),
    )
    async with audited(
        request, Action.APPROVALS_DECIDE, "approval", approval_id, operation=body.decision, reason=body.reason
    ) as entry:
        with one_content(key):
            outcome = await deciding(request).decide(keyed_request(request, key, correlation_id=approval_id), command, entry.along)
    status = await deciding(request).status(principal.tenant_id, approval_id)
    told = {"approval_id": str(approval_id), "status": status}
    return accepted(outcome, outcome.versions[approval_id], told, status=200)


def deciding(request: Request) -> Decisions:
    container = container_of(request)
    workers = container.workers
    return Decisions(container.commands, container.feed, container.reads.approvals, workers.schemas, workers.chains)
