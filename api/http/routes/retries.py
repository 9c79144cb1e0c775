"""Retries and deadlines of runs over HTTP: what failed runs again, and a run must have ended by a time."""

from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, accepted
from api.http.conventions.audit import audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.releases import must_all_know_retries
from api.http.conventions.request import container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.runs.retry import retry_run
from application.runs.terms import Terms
from domain.access import Action
from domain.invocations import Reason
from domain.kernel import Name, ShortText
from domain.runs import MAX_DEADLINE_S, MAX_STEPS, RetryRun, SetDeadline

router = APIRouter(tags=["runs"], route_class=DirectRoute)


class RetryBody(Body):
    steps: tuple[Name, ...] = Field(default=(), max_length=MAX_STEPS)
    """Failed steps. Empty: all that failed. What the end of the run has interrupted goes on in either case."""
    reason: Reason
    """Why the run is retried."""
    fresh: bool = False
    """Whether the agents begin from nothing. Otherwise they go on with their journals: what they finished is not done again."""
    versions: dict[Name, ShortText] = Field(default={}, max_length=MAX_STEPS)
    """Step → the version of its agent. Steps that are not named run as the plan says: in any version, or in the one asked for."""
    deadline_s: float | None = Field(default=None, gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)
    """Seconds from now by which the run must have ended. Null: a run that had ended has no deadline any more."""
    expected_version: int | None = Field(default=None, ge=0)


class DeadlineBody(Body):
    deadline_s: float | None = Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)
    """Seconds from now. Null: the run has no deadline any more."""
    reason: Reason
    """Why the run gets more time, or less."""


class RetryAccepted(openapi.Shown):
    run_id: UUID
    position: int
    version: int


@router.post(
    "/v1/runs/{run_id}/retry",
    status_code=202,
    summary="Run again what failed in a run",
    responses={202: openapi.gives(RetryAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        RetryBody,
        {"reason": "The agent was mended."},
        {"steps": ["review"], "reason": "Version 2 reads such files.", "versions": {"review": "2.0.0"}},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match"),
    ),
)
@needs(Action.RUNS_RETRY, Reach.RUN)
async def post_retry(request: Request, run_id: UUID) -> Response:
    """Of a run that failed, was cancelled, ended degraded, or still goes on. Finished steps keep their results and effects."""
    body = await body_of(request, RetryBody)
    await must_all_know_retries(request)
    key = key_of(request, body)
    version = expected_version(request) if body.expected_version is None else body.expected_version
    command = RetryRun(run_id=run_id, steps=body.steps, reason=body.reason, fresh=body.fresh, versions=body.versions)
    container, asked = container_of(request), keyed_request(request, key, correlation_id=run_id)
    async with audited(request, Action.RUNS_RETRY, "run", run_id, reason=body.reason) as entry:
        with one_content(key):
            async with precondition(version):
                outcome = await retry_run(
                    container.commands, container.feed, asked, command, entry.along, version, Terms(body.deadline_s),
                    container.admission,
                )  # fmt: skip
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id)})


@router.post(
    "/v1/runs/{run_id}/deadline",
    status_code=202,
    summary="Give a run more time, or less",
    responses={202: openapi.gives(RetryAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        DeadlineBody,
        {"deadline_s": 3600, "reason": "The service is slow today."},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of"),
    ),
)
@needs(Action.RUNS_DEADLINE, Reach.RUN)
async def post_deadline(request: Request, run_id: UUID) -> Response:
    """Counted from now. At the deadline the run fails with `RunDeadline`, and all that is under way in it is cancelled."""
    body = await body_of(request, DeadlineBody)
    await must_all_know_retries(request)
    key = key_of(request, body)
    command = SetDeadline(run_id=run_id, deadline_s=body.deadline_s, reason=body.reason)
    asked, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_DEADLINE, "run", run_id, reason=body.reason) as entry:
        with one_content(key):
            outcome = await commands.execute(entry.along(asked), command)
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id)})
