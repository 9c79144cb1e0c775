"""Plans over HTTP: all that is wrong with one, before a run has it."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.conventions.answers import answer
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.errors import InvalidBody
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.plans.refusal import InvalidPlan
from application.plans.registry import TenantRegistry
from application.views.plans import CheckedPlanView
from domain.access import Action
from domain.errors import InvalidCommand
from domain.kernel import Json

router = APIRouter(tags=["plans"], route_class=DirectRoute)


class CheckPlanBody(Body):
    plan: Json = None
    """A plan, as the start of a run has it."""
    workflow: Json = None
    """A workflow, with its plan in `plan`. Either this or `plan` is given."""


EXAMPLE = {"steps": [{"key": "draft", "agent": "writer"}, {"key": "review", "agent": "critic", "after": ["darft"]}]}


@router.post(
    "/v1/plans:check",
    summary="All that is wrong with a plan, or with a workflow, without any effect",
    responses={200: openapi.gives(CheckedPlanView)},
    openapi_extra=openapi.body(CheckPlanBody, {"plan": EXAMPLE}, {"workflow": {"plan": EXAMPLE, "parameters": {"type": "object"}}}),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def check_plan(request: Request) -> Response:
    """Each fault has the JSON Pointer of its place in the plan or workflow, and says what to do about it."""
    body = await body_of(request, CheckPlanBody)
    if len(body.model_fields_set) != 1:
        raise InvalidCommand("give either `plan` or `workflow`", pointer="")
    if "workflow" in body.model_fields_set and not (isinstance(body.workflow, dict) and "plan" in body.workflow):
        raise InvalidCommand("a workflow is an object with a `plan`", pointer="/workflow")
    return answer(await _checked(request, body.plan if "plan" in body.model_fields_set else body.workflow))


async def must_be_valid(request: Request) -> None:
    """Raises InvalidPlan for the plan in the body of a start, which has all of its faults."""
    found = await _checked(request, orjson.loads(await request.body())["plan"])
    if not found.valid:
        raise InvalidPlan(found.faults, at="/plan")


async def with_all_faults(request: Request, error: InvalidBody) -> InvalidBody:
    """The refusal of the body of a start, with all faults of its plan if that is a graph."""
    try:
        body: Any = orjson.loads(error.body)
    except orjson.JSONDecodeError:
        return error
    plan = body.get("plan") if isinstance(body, dict) else None
    if isinstance(plan, dict) and isinstance(plan.get("steps"), list) and plan.get("kind") == "graph":
        found = await _checked(request, plan)
        if not found.valid:
            error.looked_through = "plan"
            error.cured = [(f"/plan{fault.pointer}", fault.detail, fault.cure) for fault in found.faults]
    return error


async def _checked(request: Request, document: Json) -> CheckedPlanView:
    container = container_of(request)
    registry = TenantRegistry(
        container.commands, container.reads.agents, container.workflow_lookup, principal_of(request).tenant_id
    )
    return await container.plan_checks.check(document, registry)
