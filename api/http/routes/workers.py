"""Workers over HTTP: registration, and the bodies that their requests share. The contract of the SDK's worker runtime."""

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from api.http.conventions.answers import answer, next_link, replayed
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.positions import POSITION
from api.http.conventions.request import command_request, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.commands.request import CommandOutcome
from application.engine.ports.pages import MAX_LIMIT, decode_cursor
from application.engine.ports.problems import MAX_PROBLEMS, WorkerProblem
from application.engine.ports.views import Timestamp
from application.views.workers import WorkerView
from application.workers.listing import list_workers
from domain import agents, tools
from domain.failures import Failure
from domain.kernel import Json, Name, ShortText, Text

router = APIRouter(tags=["workers"], route_class=DirectRoute)


class AgentOffer(Body):
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    input_schema: Json = None
    output_schema: Json = None


class ToolOffer(Body):
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    parameters: dict[str, Json]
    idempotent: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    max_attempts: int = Field(default=3, ge=1, le=20)


class ProblemReport(Body):
    path: ShortText
    kind: ShortText
    message: Annotated[Text, StringConstraints(max_length=4_000)]


class RegisterBody(Body):
    worker_id: ShortText
    agents: tuple[AgentOffer, ...] = Field(default=(), max_length=500)
    tools: tuple[ToolOffer, ...] = Field(default=(), max_length=500)
    problems: tuple[ProblemReport, ...] = Field(default=(), max_length=MAX_PROBLEMS)
    """Files, or definitions in them, that the worker cannot use. Kept until the worker registers again, or for three minutes."""


class NatsView(openapi.Shown):
    """How a worker reaches the work queue."""

    url: str
    inbox_prefix: str


class QueueView(openapi.Shown):
    kind: Literal["agent", "tool"]
    pool: str
    stream: str
    consumer: str
    log_id: str


class RegisterAnswer(openapi.Shown):
    worker_id: str
    nats: NatsView
    queues: list[QueueView]
    ack_wait_s: float
    """Seconds of silence after which a worker loses its work."""


@router.post(
    "/v1/workers",
    summary="Register a worker, its agents and its tools",
    responses={200: openapi.gives(RegisterAnswer)},
    openapi_extra=openapi.body(RegisterBody),
)
async def register(request: Request) -> Response:
    """Idempotent. The answer names the queues to pull from."""
    body, container, tenant_id = await body_of(request, RegisterBody), container_of(request), principal_of(request).tenant_id
    registered = await container.workers.registration.register(
        partial(command_request, request),
        [agents.RegisterAgent(agent_id=agents.agent_id_of(tenant_id, a.name), **a.model_dump()) for a in body.agents],
        [tools.RegisterTool(tool_id=tools.tool_id_of(tenant_id, t.name), **t.model_dump()) for t in body.tools],
    )
    problems = [WorkerProblem(**problem.model_dump()) for problem in body.problems]
    await container.workers.registration.report(tenant_id, body.worker_id, problems)
    return answer(
        {
            "worker_id": body.worker_id,
            "nats": asdict(container.nats_access),
            "queues": [{name: getattr(queue, name) for name in QueueView.model_fields} for queue in registered.queues],
            "ack_wait_s": registered.ack_wait_s,
        }
    )


class WorkerPage(BaseModel):
    data: list[WorkerView]
    next_cursor: str | None


@router.get(
    "/v1/workers",
    summary="Workers that have a session, by their ids",
    responses={200: openapi.gives(WorkerPage, "Link")},
)
async def get_workers(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    """A worker without a session, of an earlier release, is not listed."""
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    page = await list_workers(container_of(request).listed_sessions, tenant_id, limit=limit, after=after)
    return answer(WorkerPage(data=page.data, next_cursor=page.next_cursor), headers=next_link(request, page.next_cursor))


class WorkerProblemView(BaseModel):
    worker_id: str
    reported_at: Timestamp
    path: str
    kind: str
    message: str


class ProblemList(BaseModel):
    data: list[WorkerProblemView]


@router.get(
    "/v1/workers/problems",
    summary="Files that workers cannot use, by their newest reports",
    responses={200: openapi.gives(ProblemList)},
)
async def get_problems(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100) -> Response:
    """A report expires three minutes after the worker has vanished."""
    found = await container_of(request).problems.of_tenant(principal_of(request).tenant_id, limit)
    views = [WorkerProblemView(worker_id=f.worker_id, reported_at=f.reported_at, **asdict(f.problem)) for f in found]
    return answer(ProblemList(data=views))


class ClaimBody(Body):
    worker_id: ShortText
    dispatch: int = Field(ge=1)
    claim_id: ShortText | None = None
    """An id that the worker makes for each delivery. A repeat of the request with the same id is the same claim."""
    delivery: int = Field(default=1, ge=1)
    """Replaces the claim id if the worker sends no claim id."""

    def claim(self) -> str:
        """The name of the claim."""
        return self.claim_id or str(self.delivery)


class FailBody(Body):
    attempt: int
    error: Failure


OF_REPORTS = (POSITION, "Idempotency-Replayed")
"""Headers of the answer to a report."""


class Reported(openapi.Shown):
    version: int
    """The version of the stream after the report."""


def reported(outcome: CommandOutcome, stream_id: UUID, body: dict[str, Any] | None = None) -> Response:
    """The answer to a worker's report: `body` and the version of the stream."""
    told = {**(body or {}), "version": outcome.versions[stream_id]}
    return answer(told, position=outcome.position, headers=replayed(outcome))
