"""Runs over HTTP: start, list, read at any position, cancel, their messages."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.container import Container
from api.http.conventions.afterwards import afterwards
from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, next_link, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.causes import HEADER as CAUSED_BY
from api.http.conventions.causes import find_cause
from api.http.conventions.errors import InvalidBody
from api.http.conventions.idempotency import Key, key_of, keyed_request, one_content
from api.http.conventions.narrowing import project_for, projects_of, seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up, listed_as_of, wanted_position
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.preferences import wait_seconds
from api.http.conventions.releases import must_all_know_budgets, must_all_know_keys, must_all_know_retries, must_all_know_workflows
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.plans import must_be_valid, with_all_faults
from api.http.routes.run_bodies import StartRunBody
from api.http.routes.run_contents import ListAsOf
from api.http.routes.run_filters import MAX_NAME, STATUSES, Filters, Status
from application.budgets.books import budget_of
from application.engine.commands.request import CommandOutcome
from application.engine.ports.pages import MAX_LIMIT, MAX_POSITION, position_cursor, uuid_cursor
from application.engine.ports.work_logs import Level
from application.reads import Positioned, RunsWanted
from application.runs.await_end import RunEnd, ended_run, watching_end
from application.runs.logs import lines_of_run
from application.runs.lookup import current_run, must_be_a_run, written_run
from application.runs.replay_at import run_as_of
from application.runs.start import UnknownAgent, start_run
from application.views.runs import RunSummary, RunView
from application.views.work_logs import WorkLineView
from application.workflows.children import has_children
from domain import runs as rules
from domain.access import Action
from domain.errors import AlreadyExists
from domain.kernel import ShortText

router = APIRouter(tags=["runs"], route_class=DirectRoute)

AsOf = Annotated[str | None, Query(description="A position, or an RFC 3339 time: the run as replayed from the log up to there")]


class RunAccepted(openapi.Shown):
    run_id: UUID
    position: int
    version: int


class StartedRun(RunAccepted):
    run: RunView | None = None
    """The run at the end of the wait that `Prefer` asked for. Missing without such a wait."""


class CancelBody(Body):
    reason: ShortText | None = None
    compensate: bool | None = None
    """Whether the effects of the run are taken back. Null: as the start of the run said."""
    expected_version: int | None = Field(default=None, ge=0)


class RunPage(BaseModel):
    data: list[RunSummary]
    next_cursor: str | None


class LogPage(BaseModel):
    data: list[WorkLineView]
    next_cursor: str | None


@router.post(
    "/v1/runs",
    status_code=201,
    summary="Start a run",
    responses={201: openapi.gives(StartedRun, "Location", "Preference-Applied", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        StartRunBody,
        {"agent": "greeter", "input": {"name": "Ada"}},
        {"plan": {"kind": "parallel", "agents": ["historian", "surveyor"], "aggregator": "editor"}, "input": {}},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", CAUSED_BY, "Prefer"),
    ),
)
@needs(Action.RUNS_START, Reach.LIMITED)
async def post_run(request: Request) -> Response:
    """The run is durable when the request is answered. `Prefer: wait=30` waits up to 30 seconds (60 at most) for the outcome."""
    try:
        body = await body_of(request, StartRunBody)
    except InvalidBody as error:
        raise await with_all_faults(request, error) from error
    if body.has_rich_plan:
        await must_be_valid(request)
    key, wait_s = key_of(request, body), wait_seconds(request)
    run_id = body.run_id or uuid7()
    if not wait_s:
        outcome = await _start(request, body, run_id, key)
        return _started(outcome, *outcome.begun(run_id))
    container = container_of(request)
    end_of = partial(watching_end, container.live, container.replays, principal_of(request).tenant_id)
    async with end_of(run_id) as end:
        outcome = await _start(request, body, run_id, key)
        begun, version = outcome.begun(run_id)
        may_be_over, outcome = not outcome.events, outcome.without_events()
        del body, key  # the wait is long, and thousands may wait
        if begun == run_id:
            return await _answered(container, outcome, begun, version, end, wait_s, may_be_over=may_be_over)
    async with end_of(begun) as end:  # a repeat: the run has the id that was made for the first request
        return await _answered(container, outcome, begun, version, end, wait_s, may_be_over=may_be_over)


async def _answered(
    container: Container, outcome: CommandOutcome, run_id: UUID, version: int, end: RunEnd, wait_s: int, *, may_be_over: bool
) -> Response:
    """The answer to a start after the wait for the run's end."""
    waiting = _shown_at_end(end, wait_s, may_be_over=may_be_over)
    shown = await afterwards(container, waiting, what="waiting for a run's end")
    return _started(outcome, run_id, version, shown, {"Preference-Applied": f"wait={wait_s}"})


async def _start(request: Request, body: StartRunBody, run_id: UUID, key: Key | None) -> CommandOutcome:
    try:
        with one_content(key):
            return await _begin(request, body, run_id, key)
    except UnknownAgent as error:
        error.faults = tuple((body.place_of(step, place), why) for step, place, why in error.refused)
        raise
    except AlreadyExists as error:
        if (seen := seen_by(request)) is not None and not await seen.has(run_id):
            raise AlreadyExists(f"the id {run_id} is taken by something else") from error  # a secret of another project
        raise


async def _begin(request: Request, body: StartRunBody, run_id: UUID, key: Key | None) -> CommandOutcome:
    await find_cause(request)
    container, asked = container_of(request), keyed_request(request, key, correlation_id=run_id, otherwise=run_id)
    project_id, known, admission = project_for(request, body.project_id), container.reads.agents, container.admission
    if body.deadline_s is not None:
        await must_all_know_retries(request)
    if body.concurrency is not None:
        await must_all_know_keys(request)
    budget = await _budget(request, body)
    if body.workflow is not None:
        await must_all_know_workflows(request)
        return await container.workflows.start(
            asked,
            body.asked(),
            run_id=run_id,
            project_id=project_id,
            terms=body.terms,
            budget=budget,
            known=known,
            admission=admission,
        )
    plan = body.to_plan()
    if has_children(plan):
        await must_all_know_workflows(request)
        return await container.workflows.start_plan(
            asked, run_id=run_id, project_id=project_id, plan=plan, input=body.input, metadata=body.metadata,
            priority=body.priority, compensate=body.compensate, terms=body.terms, budget=budget, known=known, admission=admission,
        )  # fmt: skip
    return await start_run(
        container.commands, asked, run_id=run_id, project_id=project_id, plan=plan, input=body.input, metadata=body.metadata,
        priority=body.priority, compensate=body.compensate, terms=body.terms, budget=budget, known=known, admission=admission,
    )  # fmt: skip


async def _budget(request: Request, body: StartRunBody) -> rules.RunBudget | None:
    """What the run is given. Raises InvalidCommand, Unavailable."""
    if body.budget is None:
        return None
    await must_all_know_budgets(request)
    return budget_of(body.budget, await container_of(request).budgets.unit(principal_of(request).tenant_id))


def _started(
    outcome: CommandOutcome,
    run_id: UUID,
    version: int,
    shown: orjson.Fragment | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    id = str(run_id)
    body = {"run_id": id} if shown is None else {"run_id": id, "run": shown}
    return accepted(outcome, version, body, status=201, headers={"Location": f"/v1/runs/{id}", **(headers or {})})


async def _shown_at_end(end: RunEnd, wait_s: int, *, may_be_over: bool) -> orjson.Fragment | None:
    view = await end.view(wait_s, may_be_over=may_be_over)
    return None if view is None else orjson.Fragment(view.__pydantic_serializer__.to_json(view))


@router.get(
    "/v1/runs",
    summary="List runs, newest first",
    responses={200: openapi.gives(RunPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.LIMITED)
async def get_runs(
    request: Request,
    filters: Filters,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: Annotated[str | None, Query(description=f"One of {', '.join(STATUSES)}, or several with commas between them")] = None,
    as_of: ListAsOf = None,
) -> Response:
    """A run is listed if all filters hold. `started_after` is the first time that counts, `started_before` the first that does not.

    With `status=degraded`: the completed runs whose `missing` steps failed. `status=failed,cancelled`: runs of several statuses.

    With `as_of`, a page looks at 20,000 runs at most. With one of the filters from `agent` to `error`, `parent`, `workflow`,
    `origin` or `concurrency_key`, and another filter, a page looks at 2,000. So a page may have fewer runs than `limit`, or none,
    and a `next_cursor`.
    `error`, `unmoved_s`, `longer_s` and `shorter_s` have no `as_of`. With `unmoved_s`, and without a `status`, the status is
    `running`.
    """
    wanted = filters.wanted(request, limit, uuid_cursor(cursor), status)
    return await listed(request, wanted, as_of)


class RunCount(BaseModel):
    count: int
    more: bool
    """There are more than were counted."""


class RunCountsView(BaseModel):
    queued: RunCount
    running: RunCount
    paused: RunCount
    completed: RunCount
    failed: RunCount
    cancelled: RunCount
    degraded: RunCount
    """They are among the completed ones, too."""


@router.get(
    "/v1/runs/counts",
    summary="How many runs of each status there are",
    responses={200: openapi.gives(RunCountsView, POSITION)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.LIMITED)
async def get_counts(request: Request, filters: Filters) -> Response:
    """Up to 1,000 of each status. With a filter for which a page of the list looks at 2,000 runs, these are counted."""
    wanted = filters.wanted(request, 1)
    await caught_up(request, *_read_models(wanted))
    found = await container_of(request).reads.runs.counts(principal_of(request).tenant_id, wanted)
    counts, more = found.value
    return answer({name: {"count": count, "more": name in more} for name, count in counts.items()}, position=found.position)


@router.get(
    "/v1/runs/{run_id}/children",
    summary="Runs that steps of a run started, newest first",
    responses={200: openapi.gives(RunPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_children(
    request: Request,
    run_id: UUID,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: Status | None = None,
    as_of: ListAsOf = None,
) -> Response:
    """The parts of the run's steps name them, too, in the order of the plan."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    await must_be_a_run(container.feed, tenant_id, run_id)
    wanted = RunsWanted(limit, uuid_cursor(cursor), status, within=projects_of(request), parent=run_id)
    return await listed(request, wanted, as_of)


async def listed(request: Request, wanted: RunsWanted, as_of: str | None) -> Response:
    reads, tenant_id = container_of(request).reads.runs, principal_of(request).tenant_id
    read_models = _read_models(wanted)
    if as_of is None:
        await caught_up(request, *read_models)
        return page_answer(request, RunPage, await reads.list(tenant_id, wanted))
    listed = await listed_as_of(request, read_models, as_of, lambda position: reads.list_as_of(tenant_id, position, wanted))
    return page_answer(request, RunPage, listed)


def _read_models(wanted: RunsWanted) -> tuple[str, ...]:
    return ("runs", "run_terms") if wanted.needs_terms else ("runs",)


@router.get(
    "/v1/runs/{run_id}",
    summary="A run, now or at any position or time",
    responses={200: openapi.gives(RunView, POSITION, "ETag", "Preference-Applied")},
    openapi_extra=openapi.takes_headers(POSITION, "Prefer"),
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_run(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    """`as_of`: a position or an RFC 3339 time. The answer is then the run as replayed from the log up to there.

    `Prefer: wait=30` waits up to 30 seconds (60 at most) for the end of the run. The answer is then the run as the log has it.
    """
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    found: Positioned[RunView]
    applied: dict[str, str] = {}
    if as_of is not None:
        found = await run_as_of(container.reads.runs, container.feed, container.histories, tenant_id, run_id, as_of)
    elif wait_s := wait_seconds(request):
        view = await ended_run(container.live, container.replays, tenant_id, run_id, wait_s)
        found, applied = Positioned(view, view.position), {"Preference-Applied": f"wait={wait_s}"}
    else:
        found = await _run_now(request, tenant_id, run_id)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.version}"', **applied})


async def _run_now(request: Request, tenant_id: UUID, run_id: UUID) -> Positioned[RunView]:
    container, position = container_of(request), wanted_position(request)
    reads = container.reads.runs
    if position is not None:
        written = await written_run(reads, container.feed, container.histories, tenant_id, run_id, position)
        if written is not None:
            return written
    await caught_up(request, "runs")
    return await current_run(reads, tenant_id, run_id)


@router.post(
    "/v1/runs/{run_id}/cancel",
    status_code=202,
    summary="Cancel a run",
    responses={202: openapi.gives(RunAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        CancelBody, {"reason": "no longer needed"}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)
    ),
)
@needs(Action.RUNS_CANCEL, Reach.RUN)
async def cancel_run(request: Request, run_id: UUID) -> Response:
    body = await body_of(request, CancelBody)
    key = key_of(request, body)
    version = expected_version(request) if body.expected_version is None else body.expected_version
    command = rules.CancelRun(run_id=run_id, reason=body.reason, compensate=body.compensate)
    command_for = keyed_request(request, key, correlation_id=run_id)
    commands = container_of(request).commands
    async with audited(request, Action.RUNS_CANCEL, "run", run_id, reason=body.reason) as entry:
        with one_content(key):
            async with precondition(version):
                outcome = await commands.execute(entry.along(command_for), command, expected_version=version)
    return accepted(outcome, outcome.versions[run_id], {"run_id": str(run_id)})


@router.get(
    "/v1/runs/{run_id}/logs",
    summary="What the agents and tools of a run have logged",
    responses={200: openapi.gives(LogPage, "Link")},
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_logs(
    request: Request,
    run_id: UUID,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    after: Annotated[int, Query(ge=0, le=MAX_POSITION, description="Only lines behind this number")] = 0,
    level: Annotated[Level | None, Query(description="Only lines of this level or a higher one")] = None,
    agent: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
    step: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
) -> Response:
    """Lines in the order of recording, a page of at most about 1 MiB of text. The last page ends with a line that says how many
    lines were dropped, if any were. To follow a run, ask again with the number of the last line as `after`."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    behind = after if cursor is None else position_cursor(cursor) or 0
    await must_be_a_run(container.feed, tenant_id, run_id)
    page = await lines_of_run(
        container.work_logs, tenant_id, run_id, after=behind, limit=limit, level=level, agent=agent, step=step
    )
    return answer(LogPage(data=page.data, next_cursor=page.next_cursor), headers=next_link(request, page.next_cursor))
