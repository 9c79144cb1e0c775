"""Schedules over HTTP: runs that begin by the clock."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints, ValidationError, model_validator
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import REASON, audited, reason_of
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.causes import HEADER as CAUSED_BY
from api.http.conventions.causes import find_cause
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import project_for, projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.releases import must_all_know_schedules
from api.http.conventions.request import caller_of, command_request, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, decode_cursor
from application.engine.ports.views import Timestamp
from application.reads import SchedulesWanted
from application.starting import SHORT_FORMS as SHORT_FORMS_OF_STARTS
from application.starting import spelled_start
from application.views.schedules import ScheduleStatus, ScheduleSummary, ScheduleView
from application.wording import told
from domain import schedules
from domain.access import Action
from domain.errors import InvalidCommand, NotFound, json_pointer
from domain.kernel import Name, ShortText
from domain.schedules import CatchUp, Definition, Moment, Overlap, When, schedule_id_of
from domain.starting import Target

router = APIRouter(tags=["schedules"], route_class=DirectRoute)

SHOWN_TIMES = 10
MOST_TIMES = 100
MOST_NAME = 100


class TimesBody(Body):
    when: When
    start_at: Moment | None = None
    """No time before this one counts."""
    end_at: Moment | None = None
    """No time after this one counts."""
    jitter_s: int = Field(default=0, ge=0, le=86_400)
    """Each run starts up to so many seconds after its time."""


class ScheduleBody(TimesBody):
    """In its `start`, `agent: "critic@2"` is short for an agent and its version; so with a workflow. A plan may have a kind."""

    SHORT_FORMS = SHORT_FORMS_OF_STARTS
    name: Annotated[Name, StringConstraints(min_length=1)]
    start: Target
    project_id: UUID | None = None
    catch_up: CatchUp = "last"
    catch_up_s: int = Field(default=86_400, ge=1, le=366 * 86_400)
    late_after_s: int = Field(default=60, ge=1, le=86_400)
    overlap: Overlap = "skip"
    description: ShortText | None = None
    paused: bool = False

    @classmethod
    def in_full(cls, written: dict[str, Any]) -> dict[str, Any]:
        return spelled_start(written)

    def definition(self) -> Definition:
        """Raises InvalidCommand."""
        return _definition(self, {}, exclude={"name", "project_id", "paused"})


class ChangeBody(Body):
    """Fields that are missing stay as they are."""

    SHORT_FORMS = SHORT_FORMS_OF_STARTS
    when: When | None = None
    start: Target | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None
    jitter_s: int | None = Field(default=None, ge=0, le=86_400)
    catch_up: CatchUp | None = None
    catch_up_s: int | None = Field(default=None, ge=1, le=366 * 86_400)
    late_after_s: int | None = Field(default=None, ge=1, le=86_400)
    overlap: Overlap | None = None
    description: ShortText | None = None

    @classmethod
    def in_full(cls, written: dict[str, Any]) -> dict[str, Any]:
        return spelled_start(written)

    @model_validator(mode="after")
    def _takes_nothing_away(self) -> Self:
        for name in self.model_fields_set - {"start_at", "end_at", "description"}:
            if getattr(self, name) is None:
                raise ValueError(f"`{name}` must not be null")
        return self

    def changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class ReasonBody(Body):
    reason: ShortText | None = None


class RunNowBody(Body):
    pass


class PreviewBody(TimesBody):
    name: Annotated[Name, StringConstraints(min_length=1)] | None = None
    """Whose jitter is shown."""
    after: AwareDatetime | None = None
    """Null: the present."""
    count: int = Field(default=SHOWN_TIMES, ge=1, le=MOST_TIMES)


class PreviewedTime(openapi.Shown):
    due_at: Timestamp
    starts_at: Timestamp
    """With the jitter."""
    local: str
    """`due_at` in the time zone of the schedule."""


class Preview(openapi.Shown):
    times: list[PreviewedTime]


class ScheduleAccepted(openapi.Shown):
    name: str
    schedule_id: UUID
    position: int
    version: int


class ScheduleRunAccepted(ScheduleAccepted):
    run_id: UUID


class SchedulePage(BaseModel):
    data: list[ScheduleSummary]
    next_cursor: str | None


EXAMPLE = {
    "name": "nightly-review",
    "when": {"cron": "30 2 * * 1-5", "time_zone": "Europe/Berlin"},
    "start": {"agent": "reviewer", "input": {"depth": "full"}},
}
BY_INTERVAL = {
    "name": "sync",
    "when": {"every_s": 900},
    "start": {"plan": {"kind": "sequential", "agents": ["fetch", "store"]}, "input_from": {"until": "due_at"}},
    "catch_up": "skip",
    "overlap": "queue",
}


def _definition(body: TimesBody, more: dict[str, Any], exclude: set[str]) -> Definition:
    said = {name: getattr(body, name) for name in body.model_fields_set - exclude}
    try:
        return Definition(**said, **more)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidCommand(told(first), pointer=json_pointer(first["loc"]) or "/start_at") from None


async def _seen(request: Request, name: str) -> tuple[UUID, schedules.Schedule]:
    """The id and the state of a schedule that the caller's key sees. Raises NotFound."""
    tenant_id = principal_of(request).tenant_id
    schedule, _ = await container_of(request).schedules.get(tenant_id, name)
    _must_see(request, name, None if schedule.created is None else schedule.created.project_id)
    return schedule_id_of(tenant_id, name), schedule


def _must_see(request: Request, name: str, project_id: UUID | None) -> None:
    within = projects_of(request)
    if within is not None and project_id not in within:
        raise _no_schedule(name)


def _no_schedule(name: str) -> NotFound:
    return NotFound(f"there is no schedule '{name}'")


@router.post(
    "/v1/schedules",
    status_code=201,
    summary="Create a schedule",
    responses={201: openapi.gives(ScheduleAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(ScheduleBody, EXAMPLE, BY_INTERVAL, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)),
)
@needs(Action.SCHEDULES_DEFINE, Reach.LIMITED)
async def post_schedule(request: Request) -> Response:
    """Each time of it starts a run in its project, once. A schedule of the name with the same content is left as it is."""
    body = await body_of(request, ScheduleBody)
    key, caller, container = key_of(request, body), caller_of(request), container_of(request)
    await must_all_know_schedules(container)
    command = schedules.CreateSchedule(
        schedule_id=schedule_id_of(caller.tenant_id, body.name), name=body.name,
        project_id=project_for(request, body.project_id), definition=body.definition(), paused=body.paused,
        at=datetime.now(UTC), by=caller.actor, on_behalf_of=caller.on_behalf_of,
    )  # fmt: skip
    async with audited(request, Action.SCHEDULES_DEFINE, "schedule", body.name, operation="create") as entry:
        with one_content(key):
            outcome = await container.schedules.create(entry.along(keyed_request(request, key)), command)
    version = outcome.versions[command.schedule_id]
    shown = {"name": body.name, "schedule_id": str(command.schedule_id)}
    return accepted(outcome, version, shown, status=201, headers={"Location": f"/v1/schedules/{body.name}"})


@router.post(
    "/v1/schedules:preview",
    summary="The times of a schedule that need not exist",
    responses={200: openapi.gives(Preview)},
    openapi_extra=openapi.body(PreviewBody, {"when": {"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}, "count": 3}),
)
@needs(Action.SCHEDULES_READ, Reach.LIMITED)
async def post_preview(request: Request) -> Response:
    """Nothing is recorded. The list is empty where no time is left."""
    body = await body_of(request, PreviewBody)
    more = {"start": Target(agent="any")}
    definition = _definition(body, more, exclude={"name", "after", "count"})
    after = datetime.now(UTC) if body.after is None else body.after.astimezone(UTC)
    if not 1970 <= after.year <= 2500:
        raise InvalidCommand("must be a time of the years 1970 to 2500", pointer="/after")
    if definition.when.every_s is not None and definition.when.anchored_at is None:
        anchored = definition.when.model_copy(update={"anchored_at": after.replace(microsecond=0)})
        definition = definition.model_copy(update={"when": anchored})
    zone = schedules.zone_of(definition.when.time_zone)
    schedule_id = schedule_id_of(principal_of(request).tenant_id, body.name or "")
    jitter_s = 0 if body.name is None else definition.jitter_s
    times = [
        PreviewedTime(
            due_at=due, starts_at=schedules.starts_at(schedule_id, jitter_s, due),
            local=due.astimezone(zone).isoformat(timespec="seconds"),
        )
        for due in schedules.next_times(definition, after, body.count)
    ]  # fmt: skip
    return answer(Preview(times=times))


@router.get(
    "/v1/schedules",
    summary="Schedules, by name",
    responses={200: openapi.gives(SchedulePage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.SCHEDULES_READ, Reach.LIMITED)
async def get_schedules(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    status: ScheduleStatus | None = None,
    project_id: UUID | None = None,
) -> Response:
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    if after is not None and (len(after) > MOST_NAME or "\x00" in after):
        raise InvalidCommand("not a cursor of this list", pointer="/cursor")
    await caught_up(request, "schedules")
    within = projects_of(request)
    if project_id is not None:
        within = [project_id] if within is None or project_id in within else []
    found = await container_of(request).reads.schedules.list(tenant_id, SchedulesWanted(limit, after, status, within))
    return page_answer(request, SchedulePage, found)


@router.get(
    "/v1/schedules/{name}",
    summary="A schedule, what came of its last times, and its next ones",
    responses={200: openapi.gives(ScheduleView, POSITION, "ETag")},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.SCHEDULES_READ, Reach.LIMITED)
async def get_schedule(request: Request, name: Name) -> Response:
    await caught_up(request, "schedules")
    tenant_id = principal_of(request).tenant_id
    found = await container_of(request).reads.schedules.get(tenant_id, name)
    view = found.value
    if view is None:
        raise _no_schedule(name)
    _must_see(request, name, view.project_id)
    view.next_times = view.times_after(datetime.now(UTC), SHOWN_TIMES)
    return answer(view, position=found.position, headers={"ETag": f'"v{view.version}"'})


@router.patch(
    "/v1/schedules/{name}",
    summary="Change a schedule",
    responses={200: openapi.gives(ScheduleAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ChangeBody, {"when": {"cron": "0 3 * * *"}, "overlap": "cancel"},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON),
    ),
)  # fmt: skip
@needs(Action.SCHEDULES_DEFINE, Reach.LIMITED)
async def patch_schedule(request: Request, name: Name) -> Response:
    """With other times, the first one that counts is the first after now. A finished schedule begins again."""
    body = await body_of(request, ChangeBody)
    key, caller, version = key_of(request, body), caller_of(request), expected_version(request)
    async with audited(request, Action.SCHEDULES_DEFINE, "schedule", name, operation="change") as entry:
        schedule_id, _ = await _seen(request, name)
        command = schedules.ChangeSchedule(
            schedule_id=schedule_id, changes=body.changes(), at=datetime.now(UTC), by=caller.actor,
            on_behalf_of=caller.on_behalf_of,
        )  # fmt: skip
        with one_content(key):
            async with precondition(version):
                container = container_of(request)
                outcome = await container.schedules.change(entry.along(keyed_request(request, key)), name, command, version)
    return accepted(outcome, outcome.versions[schedule_id], {"name": name, "schedule_id": str(schedule_id)}, status=200)


@router.post(
    "/v1/schedules/{name}/pause",
    summary="Pause a schedule",
    responses={200: openapi.gives(ScheduleAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ReasonBody, {"reason": "the source is down"}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)
    ),
)
@needs(Action.SCHEDULES_PAUSE, Reach.LIMITED)
async def post_pause(request: Request, name: Name) -> Response:
    """No time counts until it is resumed. What waits for the end of a run is dropped; runs go on."""
    return await _paused(request, name, "pause")


@router.post(
    "/v1/schedules/{name}/resume",
    summary="Resume a paused schedule",
    responses={200: openapi.gives(ScheduleAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(ReasonBody, {}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)),
)
@needs(Action.SCHEDULES_PAUSE, Reach.LIMITED)
async def post_resume(request: Request, name: Name) -> Response:
    """The first time that counts is the first after now."""
    return await _paused(request, name, "resume")


async def _paused(request: Request, name: str, operation: str) -> Response:
    body = await body_of(request, ReasonBody)
    key, caller, commands = key_of(request, body), caller_of(request), container_of(request).commands
    kind = schedules.PauseSchedule if operation == "pause" else schedules.ResumeSchedule
    reason = body.reason or reason_of(request)
    async with audited(request, Action.SCHEDULES_PAUSE, "schedule", name, operation=operation, reason=body.reason) as entry:
        schedule_id, _ = await _seen(request, name)
        command = kind(
            schedule_id=schedule_id, reason=reason, at=datetime.now(UTC), by=caller.actor, on_behalf_of=caller.on_behalf_of
        )
        with one_content(key):
            outcome = await commands.execute(entry.along(keyed_request(request, key)), command)
    return accepted(outcome, outcome.versions[schedule_id], {"name": name, "schedule_id": str(schedule_id)}, status=200)


@router.post(
    "/v1/schedules/{name}/run-now",
    status_code=201,
    summary="Start a run of a schedule out of turn",
    responses={201: openapi.gives(ScheduleRunAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(RunNowBody, {}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", CAUSED_BY, REASON)),
)
@needs(Action.SCHEDULES_DEFINE, Reach.LIMITED)
async def post_run_now(request: Request, name: Name) -> Response:
    """Also of a paused one. Its times stay as they are. Refused with 409 `schedule-busy` while a run of it goes on, unless its
    `overlap` is `cancel` or `allow`.
    """
    body = await body_of(request, RunNowBody)
    key, container = key_of(request, body), container_of(request)
    await find_cause(request)
    async with audited(request, Action.SCHEDULES_DEFINE, "schedule", name, operation="run-now") as entry:
        schedule_id, _ = await _seen(request, name)
        asked = entry.along(keyed_request(request, key))
        with one_content(key):
            outcome, run_id = await container.schedules.run_now(asked, name, uuid7(), datetime.now(UTC))
    shown = {"name": name, "schedule_id": str(schedule_id), "run_id": str(run_id)}
    headers = {"Location": f"/v1/runs/{run_id}"}
    own = [event.version for event in outcome.recorded if event.stream_id == schedule_id]
    version = max(own) if outcome.duplicate else outcome.versions[schedule_id]
    return accepted(outcome, version, shown, status=201, headers=headers)


@router.delete(
    "/v1/schedules/{name}",
    summary="Remove a schedule",
    responses={200: openapi.gives(ScheduleAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", REASON),
)
@needs(Action.SCHEDULES_DEFINE, Reach.LIMITED)
async def delete_schedule(request: Request, name: Name) -> Response:
    """Its runs go on and stay readable. Its name can be given again."""
    caller, commands = caller_of(request), container_of(request).commands
    async with audited(request, Action.SCHEDULES_DEFINE, "schedule", name, operation="remove") as entry:
        schedule_id, _ = await _seen(request, name)
        command = schedules.RemoveSchedule(
            schedule_id=schedule_id, reason=reason_of(request), at=datetime.now(UTC), by=caller.actor,
            on_behalf_of=caller.on_behalf_of,
        )  # fmt: skip
        outcome = await commands.execute(entry.along(command_request(request)), command)
    return accepted(outcome, outcome.versions[schedule_id], {"name": name, "schedule_id": str(schedule_id)}, status=200)
