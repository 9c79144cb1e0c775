"""Steering runs over HTTP: pause, resume."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, accepted
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.request import caller_of, container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.runs import RunAccepted
from domain.access import Action
from domain.kernel import ShortText
from domain.runs import PauseRun, ResumeRun

router = APIRouter(tags=["runs"], route_class=DirectRoute)
TAKES = ("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)


class SteeringBody(Body):
    reason: ShortText | None = None
    expected_version: int | None = Field(default=None, ge=0)


@router.post(
    "/v1/runs/{run_id}/pause",
    status_code=202,
    summary="Pause a run: nothing begins until it is resumed",
    responses={202: openapi.gives(RunAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(SteeringBody, {"reason": "The supplier's prices look wrong."}, takes=TAKES),
)
@needs(Action.RUNS_STEER, Reach.RUN)
async def pause_run(request: Request, run_id: UUID) -> Response:
    """Agents are taken from their workers and go on from their journals later. A call that has begun ends, and its outcome is
    recorded. Child runs are paused, too."""
    return await _steered(request, run_id, PauseRun, "pause")


@router.post(
    "/v1/runs/{run_id}/resume",
    status_code=202,
    summary="Let a paused run go on where it was",
    responses={202: openapi.gives(RunAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(SteeringBody, {"reason": "The prices are right again."}, takes=TAKES),
)
@needs(Action.RUNS_STEER, Reach.RUN)
async def resume_run(request: Request, run_id: UUID) -> Response:
    """Time-outs of the agents under way begin anew. What was due meanwhile is done at once."""
    return await _steered(request, run_id, ResumeRun, "resume")


async def _steered(request: Request, run_id: UUID, kind: type[PauseRun] | type[ResumeRun], operation: str) -> Response:
    body, caller = await body_of(request, SteeringBody), caller_of(request)
    key = key_of(request, body)
    version = expected_version(request) if body.expected_version is None else body.expected_version
    command: Any = kind(run_id=run_id, reason=body.reason, by=caller.actor, on_behalf_of=caller.on_behalf_of)
    command_for, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_STEER, "run", run_id, operation=operation, reason=body.reason) as entry:
        with one_content(key):
            async with precondition(version):
                outcome = await commands.execute(entry.along(command_for), command, expected_version=version)
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id)})
