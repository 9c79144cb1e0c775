"""The compensation of a run over HTTP: read it, begin it by hand, let it go on."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, next_link
from api.http.conventions.audit import audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.request import caller_of, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.compensations import begin_compensation, compensation_of_run, resume_compensation
from application.engine.commands.request import CommandOutcome
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.views.compensations import CompensationView
from domain.access import Action
from domain.compensations import MOST_SKIPPED, BeginCompensation, ResumeCompensation, compensation_id_of
from domain.invocations import Reason

router = APIRouter(tags=["runs"], route_class=DirectRoute)

TAKES = ("Idempotency-Key", "Tidelog-On-Behalf-Of")


class CompensateBody(Body):
    reason: Reason
    """Why the effects are taken back."""


class ResumeBody(Body):
    """Failed compensations are tried again, except those that are skipped."""

    skip: tuple[UUID, ...] = Field(default=(), max_length=MOST_SKIPPED)
    """Calls whose effects are not taken back, or whose outcome is not waited for."""
    go_on: bool = False
    """Failed compensations stay as they are, and the effects before them are taken back."""
    reason: Reason


class CompensationAccepted(openapi.Shown):
    run_id: UUID
    position: int
    version: int


@router.get(
    "/v1/runs/{run_id}/compensation",
    summary="Taking back the effects of a run: the state, and each effect",
    responses={200: openapi.gives(CompensationView, *OF_LISTS, "ETag")},
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_compensation(
    request: Request, run_id: UUID, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    """As the log has it. The effects come in the order in which they are taken back: the last one first."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    found = await compensation_of_run(
        container.commands, container.feed, tenant_id, run_id, limit=limit, below=position_cursor(cursor)
    )
    headers = {"ETag": f'"v{found.value.version}"', **next_link(request, found.value.next_cursor)}
    return answer(found.value, position=found.position, headers=headers)


@router.post(
    "/v1/runs/{run_id}/compensation",
    status_code=202,
    summary="Take back the effects of a run that has ended",
    responses={202: openapi.gives(CompensationAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(CompensateBody, {"reason": "The customer took the order back."}, takes=TAKES),
)
@needs(Action.RUNS_COMPENSATE, Reach.RUN)
async def post_compensation(request: Request, run_id: UUID) -> Response:
    """Also of a completed run. The effects are taken back in the reverse order, one after the other."""
    body, caller = await body_of(request, CompensateBody), caller_of(request)
    key = key_of(request, body)
    command = BeginCompensation(
        run_id=run_id, because="requested", reason=body.reason, by=caller.actor, on_behalf_of=caller.on_behalf_of
    )
    asked, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_COMPENSATE, "run", run_id, operation="begin", reason=body.reason) as entry:
        with one_content(key):
            outcome = await begin_compensation(commands, asked, command, entry.along)
    return _accepted(outcome, run_id)


@router.post(
    "/v1/runs/{run_id}/compensation/resume",
    status_code=202,
    summary="Say how a compensation goes on that waits for a person",
    responses={202: openapi.gives(CompensationAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ResumeBody,
        {"reason": "The payment service is up again."},
        {"skip": ["0198c0de-0000-7000-8000-000000000001"], "reason": "The parcel was sent back by hand."},
        {"go_on": True, "reason": "The mail cannot be taken back."},
        takes=TAKES,
    ),
)
@needs(Action.RUNS_COMPENSATE, Reach.RUN)
async def resume(request: Request, run_id: UUID) -> Response:
    """Effects in `skip` stay as they are. What failed is tried again, unless it is skipped or `go_on` leaves it."""
    body, caller = await body_of(request, ResumeBody), caller_of(request)
    key = key_of(request, body)
    command = ResumeCompensation(
        run_id=run_id, skip=body.skip, go_on=body.go_on, reason=body.reason, by=caller.actor, on_behalf_of=caller.on_behalf_of
    )
    asked, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_COMPENSATE, "run", run_id, operation="resume", reason=body.reason) as entry:
        with one_content(key):
            outcome = await resume_compensation(commands, asked, command, entry.along)
    return _accepted(outcome, run_id)


def _accepted(outcome: CommandOutcome, run_id: UUID) -> Response:
    return accepted(outcome, outcome.versions[compensation_id_of(run_id)], {"run_id": str(run_id)})
