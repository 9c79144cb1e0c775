"""Approval policies over HTTP: the rules that say which calls need an approval."""

from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, accepted, answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION
from api.http.conventions.releases import must_all_know_approvals
from api.http.conventions.request import caller_of, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.approvals.policies import check_notices, check_policy, listed, no_policy, policies_of, versions_of
from application.views.approvals import PolicyVersionView, PolicyView
from domain.access import Action
from domain.approval_policies import PolicyDefinition, PublishPolicy, RemovePolicy, policies_id_of
from domain.approval_rules import MOST_RULES, ApprovalRule
from domain.invocations import Reason
from domain.kernel import Name, Text
from domain.notices import MOST_NOTICES, PolicyNotice
from domain.projects import UseProject

router = APIRouter(tags=["approvals"], route_class=DirectRoute)
TAKES = ("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)


class PolicyBody(Body):
    description: Text = ""
    project_id: UUID | None = None
    """Only calls in runs of this project. Null: all calls of the tenant, those without a run included."""
    rules: tuple[ApprovalRule, ...] = Field(default=(), max_length=MOST_RULES)
    """All rules count that are true for a call."""
    notices: tuple[PolicyNotice, ...] = Field(default=(), max_length=MOST_NOTICES)
    """Who is told of an approval that waits, whatever has asked for it. At least a rule or a notice."""
    reason: Reason | None = None


class PolicyAccepted(openapi.Shown):
    name: str
    policy_version: int
    position: int
    version: int
    """Version of the stream of all policies."""


class PolicyRemoved(openapi.Shown):
    name: str
    position: int
    version: int


class PolicyList(BaseModel):
    data: list[PolicyView]


class PolicyVersions(BaseModel):
    data: list[PolicyVersionView]


@router.get(
    "/v1/approval-policies",
    summary="The approval policies, by name",
    responses={200: openapi.gives(PolicyList, POSITION)},
)
@needs(Action.APPROVALS_READ, Reach.LIMITED)
async def get_policies(request: Request) -> Response:
    """As the log has them. A tenant has at most 100."""
    policies, position = await policies_of(container_of(request).commands, principal_of(request).tenant_id)
    return answer(PolicyList(data=listed(policies, projects_of(request))), position=position)


@router.get(
    "/v1/approval-policies/{name}",
    summary="The versions of an approval policy, the newest first",
    responses={200: openapi.gives(PolicyVersions)},
)
@needs(Action.APPROVALS_READ, Reach.LIMITED)
async def get_policy(request: Request, name: Name) -> Response:
    """Also of a policy that was removed: an approval names the version that asked for it."""
    within = projects_of(request)
    found = await versions_of(container_of(request).commands, principal_of(request).tenant_id, name)
    seen = [each for each in found if within is None or each.project_id is None or each.project_id in within]
    if not seen:
        raise no_policy(name)
    return answer(PolicyVersions(data=seen))


@router.put(
    "/v1/approval-policies/{name}",
    summary="Publish a version of an approval policy",
    responses={200: openapi.gives(PolicyAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        PolicyBody,
        {"rules": [{"tools": ["mail.*"], "when": "tainted"}], "reason": "Strangers must not write our mails."},
        {
            "description": "Refunds",
            "rules": [
                {"tools": ["refund"], "when": "arguments.eur > 100", "roles": ["operator"], "deadline_s": 86_400},
                {"tools": ["refund"], "when": "arguments.eur > 10000", "approvers": 2, "four_eyes": True},
            ],
        },
        {
            "notices": [
                {"tool": "tell", "to": [{"key": "01900000-0000-7000-8000-000000000002", "address": "ada@example.com"}]},
                {"about": ["deploy.*"], "after_s": 900, "tool": "chat", "arguments": {"body": {"text": "Still open: {{title}}"}}},
            ]
        },
        takes=TAKES,
    ),
)
@needs(Action.APPROVALS_DEFINE)
async def put_policy(request: Request, name: Name) -> Response:
    """It counts for each call that is requested from now on, whichever process gets it. What waits already goes on waiting."""
    body, caller, container = await body_of(request, PolicyBody), caller_of(request), container_of(request)
    tenant_id, key = principal_of(request).tenant_id, key_of(request, body)
    await must_all_know_approvals(container)
    definition = PolicyDefinition(description=body.description, project_id=body.project_id, rules=body.rules, notices=body.notices)
    policies_id = policies_id_of(tenant_id)
    command = PublishPolicy(
        policies_id=policies_id, name=name, definition=definition, by=caller.actor, on_behalf_of=caller.on_behalf_of,
        reason=body.reason,
    )  # fmt: skip
    async with audited(request, Action.APPROVALS_DEFINE, "approval_policy", name, operation="publish", reason=body.reason) as entry:
        workers = container.workers
        check_policy(workers.expressions, definition)
        await check_notices(container.commands, workers.schemas, tenant_id, definition, workers.links.public_url)
        of_project = [] if body.project_id is None else [UseProject(project_id=body.project_id)]
        with one_content(key):
            outcome = await container.commands.execute(entry.along(keyed_request(request, key)), command, *of_project)
    policies, _ = await policies_of(container.commands, tenant_id)
    told = {"name": name, "policy_version": policies.versions[name]}
    return accepted(outcome, outcome.versions[policies_id], told, status=200)


@router.delete(
    "/v1/approval-policies/{name}",
    summary="Remove an approval policy",
    responses={200: openapi.gives(PolicyRemoved, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", REASON),
)
@needs(Action.APPROVALS_DEFINE)
async def delete_policy(request: Request, name: Name) -> Response:
    """Calls that are requested from now on do not need it any more. What waits already goes on waiting."""
    caller, container, tenant_id = caller_of(request), container_of(request), principal_of(request).tenant_id
    policies_id = policies_id_of(tenant_id)
    command = RemovePolicy(policies_id=policies_id, name=name, by=caller.actor, on_behalf_of=caller.on_behalf_of)
    async with audited(request, Action.APPROVALS_DEFINE, "approval_policy", name, operation="remove") as entry:
        outcome = await container.commands.execute(entry.along(keyed_request(request, None)), command)
    return accepted(outcome, outcome.versions[policies_id], {"name": name}, status=200)
