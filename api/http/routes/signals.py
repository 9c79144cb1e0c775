"""Signals to the agents of a run over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, accepted
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.request import container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.runs.signals import signal_of
from domain.access import Action
from domain.kernel import Json, ShortText

router = APIRouter(tags=["runs"], route_class=DirectRoute)


class SignalBody(Body):
    name: Annotated[ShortText, Field(min_length=1)]
    """Agents wait for it by this name."""
    payload: Json = None
    step: Annotated[ShortText, Field(min_length=1)] | None = None
    """Only the agent of this step receives it. Null: any agent of the run."""
    id: Annotated[ShortText, Field(min_length=1)] | None = None
    """The sender's name for this signal. The run takes a signal with a name that it knows once."""
    reason: ShortText | None = None


class SignalAccepted(openapi.Shown):
    run_id: UUID
    signal_id: UUID
    position: int
    version: int


@router.post(
    "/v1/runs/{run_id}/signals",
    status_code=202,
    summary="Send a signal to the agents of a run",
    responses={202: openapi.gives(SignalAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        SignalBody, {"name": "go", "payload": {"by": "Ada"}}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)
    ),
)
@needs(Action.RUNS_SIGNAL, Reach.RUN)
async def signal_run(request: Request, run_id: UUID) -> Response:
    body = await body_of(request, SignalBody)
    key = key_of(request, body)
    command_for = keyed_request(request, key, correlation_id=run_id)
    command = signal_of(run_id, body.name, body.payload, body.step, body.id, command_for.command_id)
    async with audited(request, Action.RUNS_SIGNAL, "run", run_id, reason=body.reason) as entry:
        with one_content(key):
            outcome = await container_of(request).commands.execute(entry.along(command_for), command)
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id), "signal_id": str(command.signal_id)})
