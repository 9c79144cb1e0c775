"""Forks of runs over HTTP: a new run that begins with what another one was, and the forks that a run has."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field, model_validator
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of, seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION
from api.http.conventions.releases import must_all_know_forks
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.plans import must_be_valid
from api.http.routes.run_bodies import AgentName, GraphPlan, ParallelPlan, SequentialPlan
from api.http.routes.run_contents import ListAsOf
from api.http.routes.runs import RunAccepted, RunPage, listed
from application.engine.ports.pages import MAX_LIMIT, MAX_POSITION, uuid_cursor
from application.reads import RunsWanted
from application.runs.forking.fork import UNCHANGED, AskedFork
from application.runs.lookup import must_be_a_run
from domain.access import Action
from domain.errors import AlreadyExists
from domain.kernel import Json, Name, ShortText

router = APIRouter(tags=["runs"], route_class=DirectRoute)

MAX_CHANGED = 100


class ForkPoint(Body):
    """Where the fork begins. At most one is given."""

    position: int | None = Field(default=None, ge=1, le=MAX_POSITION)
    """The run as it was at this position: what had ended by then is taken over, what was under way goes on from there."""
    step: Name | None = None
    """This step runs again, with all that come after it, and goes on from what it had recorded."""
    before: Name | None = None
    """As `step`, but the step begins without what it had recorded."""

    @model_validator(mode="after")
    def _is_one(self) -> "ForkPoint":
        if sum(given is not None for given in (self.position, self.step, self.before)) != 1:
            raise ValueError("give exactly one of `position`, `step` and `before`")
        return self


class ForkBody(Body):
    at: ForkPoint | None = None
    """Null: as the run is now. The steps that failed run again, and go on from what they had recorded."""
    input: Json = None
    """Missing: as the run's."""
    plan: Annotated[SequentialPlan | ParallelPlan | GraphPlan, Field(discriminator="kind")] | None = None
    """Null: as the run's. It must have the steps that are taken over."""
    agents: dict[Name, AgentName] = Field(default={}, max_length=MAX_CHANGED)
    """Step → another agent, or a version of it: `{"review": "critic@3"}`. Other steps get the version that is registered now,
    unless the run asked for one."""
    metadata: dict[str, Json] | None = None
    """Null: as the run's."""
    reason: ShortText | None = None
    run_id: UUID | None = None
    """An id that the client makes for the fork. With this id the request is repeatable without an Idempotency-Key."""

    def asked(self) -> AskedFork:
        at = self.at or ForkPoint.model_construct()
        return AskedFork(
            position=at.position, step=at.step or at.before, anew=at.before is not None,
            input=self.input if "input" in self.model_fields_set else UNCHANGED,
            plan=None if self.plan is None else self.plan.plan(), agents=self.agents, metadata=self.metadata,
        )  # fmt: skip


@router.post(
    "/v1/runs/{run_id}/fork",
    status_code=201,
    summary="Fork a run: a new one that begins with what the run was",
    responses={201: openapi.gives(RunAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ForkBody,
        {"reason": "the service is back"},
        {"at": {"before": "review"}, "agents": {"review": "critic@3"}, "reason": "a new prompt"},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON),
    ),
)
@needs(Action.RUNS_FORK, Reach.RUN)
async def fork_run(request: Request, run_id: UUID) -> Response:
    """What had ended is taken over, and does not run again. What the fork takes over stays an effect of the first run: a
    compensation of the fork does not take it back."""
    body = await body_of(request, ForkBody)
    if body.plan is not None:
        await must_be_valid(request)
    await must_all_know_forks(request)
    key, container = key_of(request, body), container_of(request)
    await must_be_a_run(container.feed, principal_of(request).tenant_id, run_id)
    fork_id = body.run_id or uuid7()
    asked_for = keyed_request(request, key, correlation_id=fork_id, otherwise=fork_id)
    async with audited(request, Action.RUNS_FORK, "run", run_id, reason=body.reason) as entry:
        try:
            with one_content(key):
                outcome = await container.forks.fork(
                    entry.along(asked_for), run_id, body.asked(), fork_id=fork_id, known=container.reads.agents,
                    admission=container.admission,
                )  # fmt: skip
        except AlreadyExists as error:
            if (seen := seen_by(request)) is not None and not await seen.has(fork_id):
                raise AlreadyExists(f"the id {fork_id} is taken by something else") from error  # a secret of another project
            raise
    begun, version = outcome.begun(fork_id)
    return accepted(outcome, version, {"run_id": str(begun)}, status=201, headers={"Location": f"/v1/runs/{begun}"})


@router.get(
    "/v1/runs/{run_id}/forks",
    summary="Runs that were forked from a run, newest first",
    responses={200: openapi.gives(RunPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_forks(
    request: Request,
    run_id: UUID,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled", "degraded"] | None = None,
    as_of: ListAsOf = None,
) -> Response:
    """A fork says where it began in `forked_from`."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    await must_be_a_run(container.feed, tenant_id, run_id)
    wanted = RunsWanted(limit, uuid_cursor(cursor), status, within=projects_of(request), forked_from=run_id)
    return await listed(request, wanted, as_of)
