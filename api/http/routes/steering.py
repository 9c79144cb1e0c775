"""Steering runs over HTTP: pause, resume; skip a step, force its outcome, dispatch its work again."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, model_validator
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, accepted
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.releases import must_all_know_pauses
from api.http.conventions.request import caller_of, container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.runs import RunAccepted
from application.runs.dispatching import dispatch_again
from domain.access import Action
from domain.failures import Failure
from domain.invocations import Reason
from domain.kernel import Json, Priority, ShortText
from domain.runs import ByPerson, ChangePriority, ForceStep, PauseRun, ResumeRun, SkipStep

router = APIRouter(tags=["runs"], route_class=DirectRoute)
TAKES = ("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)


class SteeringBody(Body):
    reason: ShortText | None = None
    expected_version: int | None = Field(default=None, ge=0)


class PriorityBody(SteeringBody):
    priority: Priority


class SkipBody(Body):
    reason: Reason
    expected_version: int | None = Field(default=None, ge=0)


def _one_outcome(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [one]} for one in ("result", "error")]


class ForceBody(SkipBody):
    """Exactly one of `result` and `error` is given. A result may be null."""

    model_config = ConfigDict(json_schema_extra=_one_outcome)

    result: Json = None
    error: Failure | None = None

    @model_validator(mode="after")
    def _either(self) -> "ForceBody":
        given = self.model_fields_set & {"result", "error"}
        if len(given) != 1 or (given == {"error"} and self.error is None):
            raise ValueError("give either `result` (it may be null) or `error`")
        return self


class DispatchBody(Body):
    reason: Reason
    invocation_id: UUID | None = None
    """A call of the step. Null: its agent."""


class Dispatched(RunAccepted):
    id: UUID
    """Of the agent run or the call that was dispatched again. `version` is that of its stream."""


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
    if kind is PauseRun:
        await must_all_know_pauses(container_of(request))
    command = kind(run_id=run_id, reason=body.reason, by=caller.actor, on_behalf_of=caller.on_behalf_of)
    return await _given(request, run_id, body, command, operation)


@router.post(
    "/v1/runs/{run_id}/priority",
    status_code=202,
    summary="Change the priority of a run",
    responses={202: openapi.gives(RunAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(PriorityBody, {"priority": "high", "reason": "The customer waits."}, takes=TAKES),
)
@needs(Action.RUNS_STEER, Reach.RUN)
async def change_priority(request: Request, run_id: UUID) -> Response:
    """What the run dispatches from now on has the priority, and so has what waits for a worker. Child runs get it, too. What a
    worker has goes on there, and a step with a priority of its own keeps it."""
    body, caller = await body_of(request, PriorityBody), caller_of(request)
    await must_all_know_pauses(container_of(request))
    command = ChangePriority(
        run_id=run_id, priority=body.priority, reason=body.reason, by=caller.actor, on_behalf_of=caller.on_behalf_of
    )
    return await _given(request, run_id, body, command, "priority")


async def _given(
    request: Request, run_id: UUID, body: SteeringBody, command: PauseRun | ResumeRun | ChangePriority, operation: str
) -> Response:
    key = key_of(request, body)
    version = expected_version(request) if body.expected_version is None else body.expected_version
    command_for, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_STEER, "run", run_id, operation=operation, reason=body.reason) as entry:
        with one_content(key):
            async with precondition(version):
                outcome = await commands.execute(entry.along(command_for), command, expected_version=version)
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id)})


@router.post(
    "/v1/runs/{run_id}/steps/{step}/skip",
    status_code=202,
    summary="Skip a step of a run, or an item of a list",
    responses={202: openapi.gives(RunAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(SkipBody, {"reason": "The supplier is closed today."}, takes=TAKES),
)
@needs(Action.RUNS_FORCE, Reach.RUN)
async def skip_step(request: Request, run_id: UUID, step: str) -> Response:
    """What is under way is cancelled. The steps after it see a skipped step, as where a condition was false."""
    body = await body_of(request, SkipBody)
    person = _person(request, body.reason)
    return await _forced(request, run_id, body, SkipStep(run_id=run_id, step=step, person=person), "skip")


@router.post(
    "/v1/runs/{run_id}/steps/{step}/force",
    status_code=202,
    summary="Say how a step of a run ends, or a part of one",
    responses={202: openapi.gives(RunAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ForceBody,
        {"result": {"price": 12}, "reason": "Looked it up by hand."},
        {"error": {"type": "NoAnswer", "message": "they do not answer"}, "reason": "Called them twice."},
        takes=TAKES,
    ),
)
@needs(Action.RUNS_FORCE, Reach.RUN)
async def force_step(request: Request, run_id: UUID, step: str) -> Response:
    """What is under way is cancelled. With `error`, the plan says what follows (`on_failure`); no fallback is tried."""
    body = await body_of(request, ForceBody)
    person = _person(request, body.reason)
    command = ForceStep(run_id=run_id, step=step, result=body.result, error=body.error, person=person)
    return await _forced(request, run_id, body, command, "force")


async def _forced(request: Request, run_id: UUID, body: SkipBody, command: SkipStep | ForceStep, operation: str) -> Response:
    await must_all_know_pauses(container_of(request))
    key = key_of(request, body)
    version = expected_version(request) if body.expected_version is None else body.expected_version
    command_for, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_FORCE, "run", run_id, operation=operation, reason=body.reason) as entry:
        with one_content(key):
            async with precondition(version):
                outcome = await commands.execute(entry.along(command_for), command, expected_version=version)
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id)})


@router.post(
    "/v1/runs/{run_id}/steps/{step}/dispatch",
    status_code=202,
    summary="Dispatch the work of a step again: its agent, or one of its calls",
    responses={202: openapi.gives(Dispatched, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        DispatchBody, {"reason": "Its worker hangs."},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON),
    ),
)  # fmt: skip
@needs(Action.RUNS_STEER, Reach.RUN)
async def dispatch_step(request: Request, run_id: UUID, step: str) -> Response:
    """An agent that a worker has is taken from it. A retry does not wait for its delay. A call that a worker has begun is left."""
    body = await body_of(request, DispatchBody)
    key, person = key_of(request, body), _person(request, body.reason)
    command_for, commands = keyed_request(request, key, correlation_id=run_id), container_of(request).commands
    async with audited(request, Action.RUNS_STEER, "run", run_id, operation="dispatch", reason=body.reason) as entry:
        with one_content(key):
            outcome, changed = await dispatch_again(
                commands, command_for, entry.along, run_id=run_id, step=step, call=body.invocation_id, person=person
            )
    return accepted(outcome, outcome.versions[changed], {"run_id": str(run_id), "id": str(changed)})


def _person(request: Request, reason: str) -> ByPerson:
    caller = caller_of(request)
    return ByPerson(by=caller.actor, reason=reason, on_behalf_of=caller.on_behalf_of)
