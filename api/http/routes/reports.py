"""What stays of the protocol of workers of 0.1.0, for one minor release: the reports that end an attempt which they had begun.

All else of that protocol answers that it is replaced. New workers open a session.
"""

from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import answer, replayed
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.permissions import needs
from api.http.conventions.positions import POSITION
from api.http.conventions.request import caller_of, container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.commands.request import CommandOutcome
from application.workers.earlier import WorkerProtocolReplaced
from domain import agent_runs, invocations
from domain.access import Action
from domain.failures import Failure
from domain.kernel import Json, ShortText

router = APIRouter(tags=["workers"], route_class=DirectRoute)

GONE = (
    ("POST", "/v1/workers"), ("POST", "/v1/agent-runs/{agent_run_id}/claim"), ("GET", "/v1/agent-runs/{agent_run_id}/journal"),
    ("POST", "/v1/agent-runs/{agent_run_id}/journal"), ("POST", "/v1/agent-runs/{agent_run_id}/calls"),
    ("POST", "/v1/agent-runs/{agent_run_id}/messages"), ("POST", "/v1/agent-runs/{agent_run_id}/receipts"),
    ("POST", "/v1/agent-runs/{agent_run_id}/state"), ("POST", "/v1/invocations/{invocation_id}/claim"),
)  # fmt: skip
"""Routes of workers of 0.1.0 that are no more."""


class CompleteBody(Body):
    attempt: int
    result: Json = None
    unused_keys: tuple[ShortText, ...] = Field(default=(), max_length=1000)


class CompleteInvocationBody(Body):
    attempt: int
    result: Json = None


class FailBody(Body):
    attempt: int
    error: Failure


class Reported(openapi.Shown):
    version: int
    """The version of the stream after the report."""


class FailAnswer(Reported):
    retry: bool
    """Whether the agent run is tried again."""


OF_REPORTS = (POSITION, "Idempotency-Replayed")
"""Headers of the answer to a report."""


def _reported(outcome: CommandOutcome, stream_id: UUID, **told: bool) -> Response:
    return answer({**told, "version": outcome.versions[stream_id]}, position=outcome.position, headers=replayed(outcome))


@router.post(
    "/v1/agent-runs/{agent_run_id}/complete",
    summary="Report a result of an attempt without a session",
    deprecated=True,
    responses={200: openapi.gives(Reported, *OF_REPORTS)},
    openapi_extra=openapi.body(CompleteBody),
)
@needs(Action.WORKERS_WORK)
async def complete_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body, workers, caller = await body_of(request, CompleteBody), container_of(request).workers, caller_of(request)
    await workers.earlier.must_be_of_agent_run(caller.tenant_id, agent_run_id, body.attempt)
    command = agent_runs.CompleteAgentRun(
        agent_run_id=agent_run_id, attempt=body.attempt, result=body.result, unused_keys=body.unused_keys
    )
    return _reported(await workers.outcomes.complete(caller, command), agent_run_id)


@router.post(
    "/v1/agent-runs/{agent_run_id}/fail",
    summary="Report a failure of an attempt without a session",
    deprecated=True,
    responses={200: openapi.gives(FailAnswer, *OF_REPORTS)},
    openapi_extra=openapi.body(FailBody),
)
@needs(Action.WORKERS_WORK)
async def fail_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body, workers, caller = await body_of(request, FailBody), container_of(request).workers, caller_of(request)
    await workers.earlier.must_be_of_agent_run(caller.tenant_id, agent_run_id, body.attempt)
    command = agent_runs.FailAgentRun(agent_run_id=agent_run_id, attempt=body.attempt, error=body.error)
    outcome, retry = await workers.outcomes.fail(caller, command)
    return _reported(outcome, agent_run_id, retry=retry)


@router.post(
    "/v1/invocations/{invocation_id}/complete",
    summary="Report a tool's result of an attempt without a session",
    deprecated=True,
    responses={200: openapi.gives(Reported, *OF_REPORTS)},
    openapi_extra=openapi.body(CompleteInvocationBody),
)
@needs(Action.WORKERS_WORK)
async def complete_invocation(request: Request, invocation_id: UUID) -> Response:
    body, workers, caller = await body_of(request, CompleteInvocationBody), container_of(request).workers, caller_of(request)
    await workers.earlier.must_be_of_call(caller.tenant_id, invocation_id, body.attempt)
    command = invocations.CompleteInvocation(invocation_id=invocation_id, attempt=body.attempt, result=body.result)
    return _reported(await workers.invocations.complete(caller, command), invocation_id)


@router.post(
    "/v1/invocations/{invocation_id}/fail",
    summary="Report a tool's failure of an attempt without a session",
    deprecated=True,
    responses={200: openapi.gives(Reported, *OF_REPORTS)},
    openapi_extra=openapi.body(FailBody),
)
@needs(Action.WORKERS_WORK)
async def fail_invocation(request: Request, invocation_id: UUID) -> Response:
    body, workers, caller = await body_of(request, FailBody), container_of(request).workers, caller_of(request)
    await workers.earlier.must_be_of_call(caller.tenant_id, invocation_id, body.attempt)
    command = invocations.FailInvocation(invocation_id=invocation_id, attempt=body.attempt, error=body.error)
    return _reported(await workers.invocations.fail(caller, command), invocation_id)


@needs(Action.WORKERS_WORK)
async def gone(request: Request) -> Response:
    raise WorkerProtocolReplaced


for method, path in GONE:
    router.add_api_route(path, gone, methods=[method], include_in_schema=False)
