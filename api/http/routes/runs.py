"""Runs over HTTP: start, list, read at any position, cancel, their messages."""

import re
import time
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.afterwards import PATIENCE_S, afterwards
from api.http.conventions.deps import (
    Body,
    RawRoute,
    accepted,
    answer,
    body_of,
    command_request,
    container_of,
    expected_version,
    header,
    must_be_a_run,
    next_link,
    position_of,
    precondition,
    principal_of,
    reading,
)
from api.http.conventions.errors import STATUS
from api.http.conventions.idempotency import StillRunning, once
from api.http.documents import openapi
from application.engine.commands.request import CommandOutcome
from application.engine.reading.watches import Watch
from application.runs.start import UnknownAgent, start_run
from domain import runs as rules
from domain.errors import InvalidCommand, NotFound, PayloadTooLarge
from domain.kernel import Json, Name, ShortText
from domain.projects import default_project_id
from projections import messages, runs
from projections.engine.pages import MAX_LIMIT, parse_position, position_cursor, uuid_cursor

router = APIRouter(tags=["runs"])
busy = APIRouter(tags=["runs"], route_class=RawRoute)
STATUS[StillRunning] = 409

MAX_REPLAY_EVENTS = 200_000
LONGEST_WAIT_S = 60


class SequentialPlan(Body):
    """Each agent after the one before; each finds the results of the one before in `ctx.results`."""

    kind: Literal["sequential"]
    agents: tuple[Name, ...] = Field(min_length=1, max_length=rules.MAX_STEPS)

    def plan(self) -> rules.Plan:
        return rules.sequential(self.agents)


class ParallelPlan(Body):
    """All agents side by side, then the aggregator with all their results. A member that fails is left out and reported."""

    kind: Literal["parallel"]
    agents: tuple[Name, ...] = Field(min_length=1, max_length=rules.MAX_STEPS - 1)
    aggregator: Name | None = None

    def plan(self) -> rules.Plan:
        return rules.parallel(self.agents, self.aggregator)


class GraphPlan(Body):
    """Any graph of steps without cycles."""

    kind: Literal["graph"]
    steps: tuple[rules.Step, ...] = Field(min_length=1, max_length=rules.MAX_STEPS)

    @field_validator("steps")
    @classmethod
    def _is_a_graph(cls, steps: tuple[rules.Step, ...]) -> tuple[rules.Step, ...]:
        try:
            return rules.Plan(steps=steps).steps
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    def plan(self) -> rules.Plan:
        return rules.Plan(steps=self.steps)


class StartRunBody(Body):
    plan: Annotated[SequentialPlan | ParallelPlan | GraphPlan, Field(discriminator="kind")] | None = None
    agent: Name | None = None
    """Short for a plan of one agent."""
    input: Json = None
    project_id: UUID | None = None
    run_id: UUID | None = None
    """Made by the client, it makes the request repeatable without an Idempotency-Key."""
    metadata: dict[str, Json] = {}

    @model_validator(mode="after")
    def _one_plan(self) -> "StartRunBody":
        if (self.plan is None) == (self.agent is None):
            raise ValueError("give either `plan` or `agent`")
        return self

    def to_plan(self) -> rules.Plan:
        """Raises InvalidCommand: keys that are made of agents' names may be too long where an agent comes twice."""
        try:
            return self.plan.plan() if self.plan is not None else rules.sequential((self.agent or "",))
        except ValidationError as error:
            raise InvalidCommand(f"the plan is not valid: {error.errors()[0]['msg']}", pointer="/plan/agents") from None

    def place_of(self, step: int) -> str:
        """JSON Pointer to where this body names the agent of a step of the plan."""
        match self.plan:
            case None:
                return "/agent"
            case GraphPlan():
                return f"/plan/steps/{step}/agent"
            case ParallelPlan() if step == len(self.plan.agents):
                return "/plan/aggregator"
            case _:
                return f"/plan/agents/{step}"


class RunAccepted(BaseModel):
    run_id: UUID
    position: int
    version: int


class CancelBody(Body):
    reason: ShortText | None = None
    expected_version: int | None = None


class RunPage(BaseModel):
    data: list[runs.RunSummary]
    next_cursor: str | None


class MessagePage(BaseModel):
    data: list[messages.MessageView]
    next_cursor: str | None


@busy.post(
    "/v1/runs",
    status_code=201,
    summary="Start a run",
    responses={201: {"model": RunAccepted}},
    openapi_extra=openapi.body(
        StartRunBody,
        {"agent": "greeter", "input": {"name": "Ada"}},
        {"plan": {"kind": "parallel", "agents": ["historian", "surveyor"], "aggregator": "editor"}, "input": {}},
    ),
)
async def post_run(request: Request) -> Response:
    """Durable when answered. `Prefer: wait=30` waits up to so many seconds (60 at most) for the outcome."""
    body = await body_of(request, StartRunBody)
    wait_s = _wait_seconds(request)

    async def execute(key_id: UUID | None) -> Response:
        run_id = body.run_id or key_id or uuid7()
        if not wait_s:
            return _started(await _start(request, body, run_id, key_id), run_id)
        with container_of(request).live.watch(run_id, rules.ENDS) as watch:  # from before the append, so that no end is missed
            outcome = await _start(request, body, run_id, key_id)
            waiting = _view_at_end(request, run_id, watch, wait_s, over=not outcome.events)
            seconds = wait_s + PATIENCE_S
            shown = await afterwards(container_of(request), waiting, what="waiting for a run's end", seconds=seconds)
        response = _started(outcome, run_id, shown)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        return response

    return await once(request, execute)


async def _start(request: Request, body: StartRunBody, run_id: UUID, key_id: UUID | None) -> CommandOutcome:
    try:
        return await start_run(
            container_of(request).commands,
            command_request(request, correlation_id=run_id, command_id=key_id or run_id),
            run_id=run_id,
            project_id=body.project_id or default_project_id(principal_of(request).tenant_id),
            plan=body.to_plan(),
            input=body.input,
            metadata=body.metadata,
        )
    except UnknownAgent as error:
        error.pointer = body.place_of(error.step)
        raise


def _started(outcome: CommandOutcome, run_id: UUID, shown: dict[str, Any] | None = None) -> Response:
    body = {"run_id": str(run_id)} if shown is None else {"run_id": str(run_id), "run": shown}
    return accepted(outcome, run_id, body, status=201, location=f"/v1/runs/{run_id}")


_WAIT = re.compile(r'wait\s*=\s*(?:"([0-9]+)"|([0-9]+))\s*(?:;.*)?', re.IGNORECASE)


def _wait_seconds(request: Request) -> int:
    """The first `wait` of `Prefer` (RFC 7240), at most a minute; 0 without one that is a number of seconds."""
    if not header(request, b"prefer"):
        return 0
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        if (match := _WAIT.fullmatch(preference.strip())) is not None:
            return min(parse_position(match[1] or match[2]) or 0, LONGEST_WAIT_S)
    return 0


async def _view_at_end(request: Request, run_id: UUID, watch: Watch, seconds: float, *, over: bool) -> dict[str, Any] | None:
    """The run as it is shown when it has ended, or after the time. `over`: it may have ended already."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    deadline = time.monotonic() + seconds
    while True:
        if not over and not container.live.closed:
            await watch.next(max(deadline - time.monotonic(), 0))
        view = await container.replays.now(tenant_id, run_id)
        if view is None or view.status != "running" or time.monotonic() >= deadline or container.live.closed:
            return None if view is None else _shown(view)
        over = False


@router.get("/v1/runs", summary="List runs, newest first", responses={200: {"model": RunPage}})
async def get_runs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: Literal["running", "completed", "failed", "cancelled"] | None = None,
    project_id: UUID | None = None,
) -> Response:
    tenant_id = principal_of(request).tenant_id
    async with reading(request, "runs") as (connection, position):
        page = await runs.list_runs(
            connection, tenant_id, limit=limit, before=uuid_cursor(cursor), status=status, project_id=project_id
        )
    return answer(
        RunPage(data=page.data, next_cursor=page.next_cursor), position=position, headers=next_link(request, page.next_cursor)
    )


@router.get("/v1/runs/{run_id}", summary="A run, now or at any position or time", responses={200: {"model": runs.RunView}})
async def get_run(request: Request, run_id: UUID, as_of: str | None = None) -> Response:
    """`as_of` is a position or an RFC 3339 time: the answer is then the replay of the log up to there."""
    if as_of is not None:
        position = await position_of(request, as_of, root_id=run_id)
        view = await _replayed(request, run_id, position)
    else:
        async with reading(request, "runs") as (connection, position):
            view = await runs.get_run(connection, principal_of(request).tenant_id, run_id)
    if view is None:
        raise NotFound(f"there is no run {run_id}" + (f" at position {position}" if as_of else ""))
    return answer(_shown(view), position=position, headers={"ETag": f'"v{view.version}"'})


def _shown(view: runs.RunView) -> dict[str, Any]:
    shown: dict[str, Any] = view.model_dump(mode="json")
    shown["result"] = view.result
    return shown


async def _replayed(request: Request, run_id: UUID, until: int) -> runs.RunView | None:
    """The fold of the run's events up to a position, page by page."""
    feed, tenant_id, after, seen = container_of(request).feed, principal_of(request).tenant_id, 0, 0
    view: runs.RunView | None = None
    while True:
        page = await feed.read_tenant(tenant_id, after=after, until=until, limit=1000, root_id=run_id)
        for recorded in page:
            view = runs.evolve_view(view, recorded)
        seen += len(page)
        if len(page) < 1000:
            return view
        if seen > MAX_REPLAY_EVENTS:
            raise PayloadTooLarge(f"the run has more than {MAX_REPLAY_EVENTS:,} events; replay it over the event stream")
        after = page[-1].position


@router.post(
    "/v1/runs/{run_id}/cancel",
    status_code=202,
    summary="Cancel a run",
    responses={202: {"model": RunAccepted}},
    openapi_extra=openapi.body(CancelBody, {"reason": "no longer needed"}),
)
async def cancel_run(request: Request, run_id: UUID) -> Response:
    body = await body_of(request, CancelBody)
    version = expected_version(request) if body.expected_version is None else body.expected_version

    async def execute(key_id: UUID | None) -> Response:
        command = rules.CancelRun(run_id=run_id, reason=body.reason)
        command_for = command_request(request, correlation_id=run_id, command_id=key_id)
        async with precondition(version):
            outcome = await container_of(request).commands.execute(command_for, command, expected_version=version)
        return accepted(outcome, run_id, {"run_id": str(run_id)})

    return await once(request, execute)


@router.get("/v1/runs/{run_id}/messages", summary="Messages of a run", responses={200: {"model": MessagePage}})
async def get_messages(
    request: Request, run_id: UUID, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    after, tenant_id = position_cursor(cursor), principal_of(request).tenant_id
    await must_be_a_run(request, run_id)
    async with reading(request, "messages") as (connection, position):
        page = await messages.list_messages(connection, tenant_id, run_id, limit=limit, after=after)
    body = MessagePage(data=page.data, next_cursor=page.next_cursor)
    return answer(body, position=position, headers=next_link(request, page.next_cursor))
