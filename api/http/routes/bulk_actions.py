"""Bulk actions over HTTP: one command for all runs that a filter finds, a dry run of it, and its progress."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, json_text, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.releases import must_all_know_bulk_actions, must_all_know_pauses, must_all_know_retries
from api.http.conventions.request import caller_of, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.run_filters import MAX_NAME, MAX_ORIGIN, Status
from application.bulk_actions.orders import RIGHTS
from application.bulk_actions.starting import check_filter, check_order, find_runs
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.views.bulk_actions import BulkActionStatus, BulkActionView
from domain.access import Action, is_within, must_be_allowed
from domain.bulk_actions import (
    DECIDER,
    BulkAction,
    BulkOrder,
    BulkVerb,
    CancelBulkAction,
    RunFilter,
    SignalSaid,
    StartBulkAction,
)
from domain.errors import NotFound
from domain.invocations import Reason
from domain.kernel import Json, Priority, ShortText

router = APIRouter(tags=["runs"], route_class=DirectRoute)
Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
MOST_METADATA = 8


class FilterBody(Body):
    """The filters of `GET /v1/runs`. A run is meant if all of them hold."""

    status: Status | Annotated[list[Status], Field(min_length=1, max_length=7)] | None = None
    """One status, or several. Null: those in which the command can have an effect."""
    project_id: UUID | None = None
    agent: Text | None = None
    workflow: Text | None = None
    """`name`, or `name@version`."""
    actor: Text | None = None
    on_behalf_of: Text | None = None
    metadata: dict[Text, Json] = Field(default={}, max_length=MOST_METADATA)
    """Names and values that the run's metadata has."""
    error: Text | None = None
    """Words, all of which the errors of the run have."""
    started_after: datetime | None = None
    """The first time."""
    started_before: datetime | None = None
    """The end: runs of this time are not among them."""
    parent: UUID | None = None
    """Only runs that steps of this run started."""
    origin: Annotated[str, Field(min_length=1, max_length=MAX_ORIGIN)] | None = None
    """Only runs that this started: `schedule`, or `schedule:name`."""
    unmoved_s: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    """Only runs without an event for so many seconds."""

    @model_validator(mode="after")
    def _with_zones(self) -> "FilterBody":
        if any(time is not None and time.tzinfo is None for time in (self.started_after, self.started_before)):
            raise ValueError("a time needs its zone, such as Z")
        return self

    def asked(self) -> RunFilter:
        statuses = () if self.status is None else (self.status,) if isinstance(self.status, str) else tuple(self.status)
        metadata = tuple(
            (name, value if isinstance(value, str) else json_text(value).decode()) for name, value in self.metadata.items()
        )
        rest = self.model_dump(exclude={"status", "metadata"})
        return RunFilter(statuses=tuple(dict.fromkeys(statuses)), metadata=metadata, **rest)


class BulkActionBody(Body):
    action: BulkVerb
    filter: FilterBody = FilterBody()
    all: bool = False
    """Whether a filter that says nothing is meant so: all runs on which the command can have an effect."""
    reason: Reason | None = None
    """Why. Needed unless it is a dry run."""
    compensate: bool | None = None
    """Of `cancel`: whether the effects of the runs are taken back. Null: as the start of each run said."""
    fresh: bool = False
    """Of `retry`: whether the agents begin without their journals."""
    signal: SignalSaid | None = None
    """Of `signal`."""
    priority: Priority | None = None
    """Of `priority`: which."""
    dry_run: bool = False
    """Whether it is only told how many runs are meant. Nothing is written."""

    @model_validator(mode="after")
    def _fits(self) -> "BulkActionBody":
        if not self.all and not self.filter.model_dump(exclude_defaults=True):
            raise ValueError('the filter says nothing: give one, or "all": true')
        if (self.action == "signal") != (self.signal is not None):
            raise ValueError("`signal` goes with the action signal, which needs it")
        if (self.action == "priority") != (self.priority is not None):
            raise ValueError("`priority` goes with the action priority, which needs it")
        if self.compensate is not None and self.action != "cancel":
            raise ValueError("`compensate` goes with the action cancel")
        if self.fresh and self.action != "retry":
            raise ValueError("`fresh` goes with the action retry")
        if self.reason is None and not self.dry_run:
            raise ValueError("`reason` is needed")
        return self

    def order(self) -> BulkOrder:
        return BulkOrder(
            verb=self.action, reason=self.reason, compensate=self.compensate, fresh=self.fresh, signal=self.signal,
            priority=self.priority,
        )  # fmt: skip


class CancelBulkBody(Body):
    reason: ShortText | None = None


class BulkActionAccepted(openapi.Shown):
    id: UUID
    position: int
    version: int


class BulkDryRun(openapi.Shown):
    matched: int
    complete: bool
    """Whether all runs were counted. If not, there may be more: counting takes five seconds at most."""
    runs: list[UUID]
    """The first 20."""
    position: int


class BulkActionPage(BaseModel):
    data: list[BulkActionView]
    next_cursor: str | None


@router.post(
    "/v1/bulk-actions",
    status_code=202,
    summary="Give one command to all runs that a filter finds, or see how many there are",
    responses={
        202: openapi.gives(BulkActionAccepted, "Location", *OF_COMMANDS),
        200: openapi.gives(BulkDryRun, POSITION),
    },
    openapi_extra=openapi.body(
        BulkActionBody,
        {"action": "pause", "filter": {"agent": "critic", "status": "running"}, "reason": "The prices look wrong."},
        {"action": "cancel", "filter": {"metadata": {"ticket": "T-1"}}, "dry_run": True},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", POSITION, REASON),
    ),
)
@needs(Action.RUNS_BULK, Reach.LIMITED)
async def start_bulk_action(request: Request) -> Response:
    """The right to give the command to a run is needed, too. Only runs of the key's projects are meant, and only runs that were
    started before. The engine carries it out; `GET /v1/bulk-actions/{id}` shows how far it has come."""
    body, caller, container = await body_of(request, BulkActionBody), caller_of(request), container_of(request)
    must_be_allowed(principal_of(request).role, RIGHTS[body.action])
    order, asked, within, reads = body.order(), body.filter.asked(), _within(request, body.filter.project_id), container.reads.runs
    if body.dry_run:
        await caught_up(request, "runs", "run_terms")
        found = await find_runs(reads, caller.tenant_id, order, asked, within)
        told = {"matched": found.matched, "complete": found.complete, "runs": [str(each) for each in found.runs]}
        return answer({**told, "position": found.position}, position=found.position)
    await must_all_know_bulk_actions(container)
    if body.action in ("pause", "resume", "priority"):
        await must_all_know_pauses(container)
    if body.action == "retry":
        await must_all_know_retries(request)
    key, id = key_of(request, body), uuid7()
    command = StartBulkAction(
        bulk_action_id=id, order=order, filter=asked, within=within, by=caller.actor, on_behalf_of=caller.on_behalf_of
    )
    asking = keyed_request(request, key, correlation_id=id)
    async with audited(request, Action.RUNS_BULK, "bulk_action", id, operation=body.action, reason=body.reason) as entry:
        check_order(order, id)
        await check_filter(reads, caller.tenant_id, order, asked, within)
        with one_content(key):
            outcome = await container.commands.execute(entry.along(asking), command)
    begun, version = outcome.begun(id)
    return accepted(outcome, version, {"id": str(begun)}, headers={"Location": f"/v1/bulk-actions/{begun}"})


def _within(request: Request, project_id: UUID | None) -> tuple[UUID, ...] | None:
    """The projects whose runs are meant, sorted. None: of the whole tenant."""
    of_key = projects_of(request)
    if project_id is not None and (of_key is None or project_id in of_key):
        return (project_id,)
    return None if of_key is None else tuple(of_key)


@router.get(
    "/v1/bulk-actions",
    summary="Bulk actions, the newest first",
    responses={200: openapi.gives(BulkActionPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.LIMITED)
async def get_bulk_actions(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: BulkActionStatus | None = None,
) -> Response:
    """A key that is narrowed to projects sees those whose runs are all of its projects."""
    await caught_up(request, "bulk_actions")
    tenant_id, before = principal_of(request).tenant_id, position_cursor(cursor)
    found = await container_of(request).reads.bulk_actions.list(
        tenant_id, limit=limit, before=before, status=status, within=projects_of(request)
    )
    return page_answer(request, BulkActionPage, found)


@router.get(
    "/v1/bulk-actions/{bulk_action_id}",
    summary="A bulk action, and how far it has come",
    responses={200: openapi.gives(BulkActionView, POSITION, "ETag")},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.LIMITED)
async def get_bulk_action(request: Request, bulk_action_id: UUID) -> Response:
    await caught_up(request, "bulk_actions")
    found = await container_of(request).reads.bulk_actions.get(principal_of(request).tenant_id, bulk_action_id)
    if found.value is None or not _sees(request, found.value.projects):
        raise _none(bulk_action_id)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.version}"'})


@router.post(
    "/v1/bulk-actions/{bulk_action_id}/cancel",
    status_code=202,
    summary="End a bulk action: runs that have not had their turn are left alone",
    responses={202: openapi.gives(BulkActionAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        CancelBulkBody, {"reason": "the wrong agent"}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)
    ),
)
@needs(Action.RUNS_BULK, Reach.LIMITED)
async def cancel_bulk_action(request: Request, bulk_action_id: UUID) -> Response:
    """What the runs were told already is not taken back. A few more may get their commands, which had their turn in this moment."""
    body, caller, commands = await body_of(request, CancelBulkBody), caller_of(request), container_of(request).commands
    key = key_of(request, body)
    command = CancelBulkAction(bulk_action_id=bulk_action_id, by=caller.actor, on_behalf_of=caller.on_behalf_of, reason=body.reason)
    async with audited(
        request, Action.RUNS_BULK, "bulk_action", bulk_action_id, operation="end", reason=body.reason
    ) as entry:  # fmt: skip
        action: BulkAction = (await commands.load(DECIDER, caller.tenant_id, bulk_action_id)).state
        if action.status == "absent" or not _sees(request, action.within):
            raise _none(bulk_action_id)
        with one_content(key):
            asking = keyed_request(request, key, correlation_id=bulk_action_id)
            outcome = await commands.execute(entry.along(asking), command)
    return accepted(outcome, outcome.versions[bulk_action_id], {"id": str(bulk_action_id)})


def _sees(request: Request, within: Sequence[UUID] | None) -> bool:
    return is_within(within, principal_of(request).projects)


def _none(bulk_action_id: UUID) -> NotFound:
    return NotFound(f"there is no bulk action {bulk_action_id}")
