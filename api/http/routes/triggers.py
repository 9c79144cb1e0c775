"""Triggers over HTTP: what starts when something happens, what came of it, and what would have come of it."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, next_link, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import project_for, projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.releases import must_all_know_triggers
from api.http.conventions.request import command_request, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.budgets.books import fault_of_unit
from application.engine.commands.request import CommandOutcome
from application.engine.ports.pages import MAX_LIMIT, decode_cursor, encode_cursor, position_cursor
from application.engine.reading.as_of import time_of
from application.starting import SHORT_FORMS as SHORT_FORMS_OF_STARTS
from application.starting import START, spelled_start
from application.triggers.definitions import define, load_trigger, must_have_none, no_trigger
from application.triggers.firing import KnownTrigger
from application.triggers.firings import read_firings
from application.triggers.index import definition_of
from application.triggers.signatures import make_secret
from application.triggers.trying import within_of
from application.views.triggers import FiringView, TriggerView
from domain.access import Action, KeyIsNarrowed, must_be_allowed
from domain.errors import InvalidCommand, InvalidState
from domain.kernel import Json, Name, ShortText
from domain.projects import UnknownProject
from domain.starting import FiringLimits, Target
from domain.triggers import (
    ChangeTrigger,
    CreateTrigger,
    EventFilter,
    PauseTrigger,
    RemoveTrigger,
    ResumeTrigger,
    TriggerCreated,
    TriggerDefinition,
    Webhook,
    trigger_id_of,
)

router = APIRouter(tags=["triggers"], route_class=DirectRoute)

MOST_EXAMPLES = 20
OVERLAP_S = 86_400.0
LONGEST_OVERLAP_S = 30 * 86_400.0
EXAMPLE: dict[str, Any] = {
    "on": {"topics": ["run.failed"], "when": "event.actor != 'system'"},
    "start": {"agent": "reviewer", "input_from": {"run": "event.subject"}},
}
HOOK_EXAMPLE: dict[str, Any] = {
    "hook": {"scheme": "github", "headers": ["x-github-event"], "when": "headers['x-github-event'] == 'push'"},
    "start": {"agent": "builder", "input_from": {"commit": "body.after"}},
}
Status = Literal["active", "paused"]


class TriggerBody(Body):
    """What a trigger is about, exactly one of `on` and `hook`, and what it starts.

    In its `start`, `agent: "critic@2"` is short for an agent and its version; so with a workflow. A plan may have a kind.
    """

    SHORT_FORMS = SHORT_FORMS_OF_STARTS
    description: ShortText = ""
    on: EventFilter | None = None
    hook: Webhook | None = None
    start: Target
    project_id: UUID | None = None
    """Of the runs that it starts. The trigger belongs to it."""
    max_per_minute: int = Field(default=FiringLimits.model_fields["max_per_minute"].default, ge=1, le=6_000)
    """Firings for the events of one minute. What is more starts nothing, and is counted."""
    max_depth: int = Field(default=FiringLimits.model_fields["max_depth"].default, ge=1, le=32)
    """How many firings of triggers may lead from one to the next. So a loop of triggers ends."""

    @classmethod
    def in_full(cls, written: dict[str, Any]) -> dict[str, Any]:
        return spelled_start(written)


class CreateTriggerBody(TriggerBody):
    name: Name


class ChangeTriggerBody(TriggerBody):
    """The whole definition: what is left out has its default."""


class PauseTriggerBody(Body):
    reason: ShortText | None = None


class RotateSecretBody(Body):
    overlap_s: float = Field(default=OVERLAP_S, ge=0, le=LONGEST_OVERLAP_S, allow_inf_nan=False)
    """Seconds for which the secrets of before are valid beside the new one."""


class DryRunBody(Body):
    """Either the `name` of a trigger on events, or a definition of one that need not exist."""

    SHORT_FORMS = SHORT_FORMS_OF_STARTS
    name: Name | None = None
    definition: TriggerBody | None = None
    since: str | None = Field(default=None, max_length=100)
    """An RFC 3339 time: only events of then and later. Without one: the last seven days."""
    cursor: str | None = Field(default=None, max_length=200)
    """The `next_cursor` of the page before."""
    examples: int = Field(default=5, ge=0, le=MOST_EXAMPLES)

    @classmethod
    def in_full(cls, written: dict[str, Any]) -> dict[str, Any]:
        definition = written.get("definition")
        return {**written, "definition": spelled_start(definition)} if isinstance(definition, dict) else written


class TriggerAccepted(openapi.Shown):
    name: str
    position: int
    version: int
    """Version of the trigger's stream, which `If-Match` takes."""


class TriggerMade(TriggerAccepted):
    hook_path: str | None = None
    """The path to which the deliveries of its webhook go."""
    secret: str | None = None
    """What the sender of the webhook proves itself with: in the first answer alone."""


class SecretRotated(openapi.Shown):
    name: str
    hook_path: str
    secret: str
    number: int


class TriggerPage(BaseModel):
    data: list[TriggerView]
    next_cursor: str | None


class FiringPage(BaseModel):
    data: list[FiringView]
    next_cursor: str | None


class TriedEvent(openapi.Shown):
    event: str
    position: int
    type: str
    at: datetime
    input: Json = None
    """What would be started with it, or the payload of the signal."""
    run_id: UUID | None = None
    """The run that would have got the signal. Null: something would have been started."""
    code: str | None = None
    error: str | None = None
    """Why nothing would be started."""


class Tried(openapi.Shown):
    events: int
    """Events of its topics on this page."""
    fired: int
    misfired: int
    examples: list[TriedEvent]
    reached: int
    """The log was looked at up to this position."""
    until: int
    """Where the dry run ends."""
    next_cursor: str | None


@router.get(
    "/v1/triggers",
    summary="Triggers, by name",
    responses={200: openapi.gives(TriggerPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.TRIGGERS_READ, Reach.LIMITED)
async def get_triggers(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    status: Status | None = None,
) -> Response:
    """A key that is narrowed to projects gets the triggers of its projects that see no events of other projects."""
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    await caught_up(request, "triggers")
    reads = container_of(request).reads.triggers
    found = await reads.list(tenant_id, limit=limit, after=after, status=status, within=projects_of(request))
    return page_answer(request, TriggerPage, found)


@router.post(
    "/v1/triggers",
    status_code=201,
    summary="Create a trigger",
    responses={201: openapi.gives(TriggerMade, "Location", "Cache-Control", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        CreateTriggerBody,
        {"name": "review.failures", **EXAMPLE},
        {"name": "on.push", **HOOK_EXAMPLE},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON),
    ),
)
@needs(Action.TRIGGERS_DEFINE, Reach.LIMITED)
async def post_trigger(request: Request) -> Response:
    """It is about what happens from now on. The secret of a webhook is in this answer alone: nobody can read it later."""
    body, container, tenant_id = await body_of(request, CreateTriggerBody), container_of(request), principal_of(request).tenant_id
    definition, key, trigger_id = _defined(request, body), key_of(request, body), trigger_id_of(tenant_id, body.name)
    await must_all_know_triggers(container)
    hook_id, secret = (None, None) if definition.hook is None else (uuid7(), make_secret(definition.hook.scheme))
    command = CreateTrigger(
        trigger_id=trigger_id, name=body.name, definition=definition, hook_id=hook_id, within=within_of(projects_of(request))
    )
    kept = False
    async with audited(request, Action.TRIGGERS_DEFINE, "trigger", body.name, operation="create") as entry:
        await _must_be_right(request, definition)
        if hook_id is not None and secret is not None and definition.hook is not None:
            scheme = definition.hook.scheme
            await container.triggers.secrets.add(hook_id, tenant_id, body.name, scheme, secret.kept, overlap_s=0)
        try:
            with one_content(key):
                outcome = await define(container.commands, entry.along(keyed_request(request, key)), command)
            kept = not outcome.duplicate
        finally:
            if hook_id is not None and not kept:  # nobody will ever show it
                await container.triggers.secrets.remove(hook_id)
    if not kept:
        created = next(event for event in outcome.recorded if event.topic == TriggerCreated.TOPIC)
        hook_id = TriggerCreated.model_validate_json(created.state).hook_id
    return _made(outcome, body.name, trigger_id, hook_id, secret.shown if kept and secret else None)


def _made(outcome: CommandOutcome, name: str, trigger_id: UUID, hook_id: UUID | None, secret: str | None) -> Response:
    version = outcome.versions[trigger_id]
    headers: Mapping[str, str] = {"Location": f"/v1/triggers/{name}", "Cache-Control": "no-store"}
    said = {"name": name, "hook_path": None if hook_id is None else f"/hooks/{hook_id}", "secret": secret}
    return accepted(outcome, version, said, status=201, headers=headers)


@router.get(
    "/v1/triggers/{name}",
    summary="A trigger",
    responses={200: openapi.gives(TriggerView, POSITION, "ETag")},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.TRIGGERS_READ, Reach.LIMITED)
async def get_trigger(request: Request, name: Name) -> Response:
    await caught_up(request, "triggers")
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    if (projects := projects_of(request)) is not None:
        await load_trigger(container.commands, tenant_id, name, projects)
    found = await container.reads.triggers.get(tenant_id, name)
    if found.value is None:
        raise no_trigger(name)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.version}"'})


@router.put(
    "/v1/triggers/{name}",
    summary="Change a trigger",
    responses={200: openapi.gives(TriggerAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(ChangeTriggerBody, EXAMPLE, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)),
)
@needs(Action.TRIGGERS_DEFINE, Reach.LIMITED)
async def put_trigger(request: Request, name: Name) -> Response:
    """From here on the new definition counts. From here on it sees what the key of this request sees."""
    body, container, tenant_id = await body_of(request, ChangeTriggerBody), container_of(request), principal_of(request).tenant_id
    definition, key, version = _defined(request, body), key_of(request, body), expected_version(request)
    command = ChangeTrigger(
        trigger_id=trigger_id_of(tenant_id, name), name=name, definition=definition, within=within_of(projects_of(request))
    )
    async with audited(request, Action.TRIGGERS_DEFINE, "trigger", name, operation="change") as entry:
        await load_trigger(container.commands, tenant_id, name, projects_of(request))
        await _must_be_right(request, definition)
        with one_content(key):
            async with precondition(version):
                along = entry.along(keyed_request(request, key))
                outcome = await define(container.commands, along, command, version=version)
    return accepted(outcome, outcome.versions[command.trigger_id], {"name": name}, status=200)


@router.delete(
    "/v1/triggers/{name}",
    summary="Remove a trigger",
    responses={200: openapi.gives(TriggerAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", "If-Match", REASON),
)
@needs(Action.TRIGGERS_DEFINE, Reach.LIMITED)
async def delete_trigger(request: Request, name: Name) -> Response:
    """It starts nothing any more, and deliveries of its webhook are refused. What it has started goes on."""
    container, tenant_id, version = container_of(request), principal_of(request).tenant_id, expected_version(request)
    command = RemoveTrigger(trigger_id=trigger_id_of(tenant_id, name), name=name)
    async with audited(request, Action.TRIGGERS_DEFINE, "trigger", name, operation="remove") as entry, precondition(version):
        trigger, _ = await load_trigger(container.commands, tenant_id, name, projects_of(request))
        along = entry.along(command_request(request))
        outcome = await container.commands.execute(along, command, expected_version=version)
    if trigger.hook_id is not None:
        await container.triggers.secrets.remove(trigger.hook_id)
    return accepted(outcome, outcome.versions[command.trigger_id], {"name": name}, status=200)


@router.post(
    "/v1/triggers/{name}/pause",
    summary="Pause a trigger",
    responses={200: openapi.gives(TriggerAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        PauseTriggerBody,
        {"reason": "the reviewer is being changed"},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON),
    ),
)
@needs(Action.TRIGGERS_PAUSE, Reach.LIMITED)
async def post_pause(request: Request, name: Name) -> Response:
    """What happens meanwhile starts nothing, also not later."""
    body, tenant_id = await body_of(request, PauseTriggerBody), principal_of(request).tenant_id
    command = PauseTrigger(trigger_id=trigger_id_of(tenant_id, name), name=name, reason=body.reason)
    return await _paused_or_resumed(request, name, body, command, body.reason)


@router.post(
    "/v1/triggers/{name}/resume",
    summary="Resume a trigger",
    responses={200: openapi.gives(TriggerAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(Body, {}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)),
)
@needs(Action.TRIGGERS_PAUSE, Reach.LIMITED)
async def post_resume(request: Request, name: Name) -> Response:
    body, tenant_id = await body_of(request, Body), principal_of(request).tenant_id
    command = ResumeTrigger(trigger_id=trigger_id_of(tenant_id, name), name=name)
    return await _paused_or_resumed(request, name, body, command, None)


async def _paused_or_resumed(
    request: Request, name: str, body: Body, command: PauseTrigger | ResumeTrigger, reason: str | None
) -> Response:
    container, key, version = container_of(request), key_of(request, body), expected_version(request)
    operation = "pause" if isinstance(command, PauseTrigger) else "resume"
    async with audited(request, Action.TRIGGERS_PAUSE, "trigger", name, operation=operation, reason=reason) as entry:
        await load_trigger(container.commands, principal_of(request).tenant_id, name, projects_of(request))
        with one_content(key):
            async with precondition(version):
                along = entry.along(keyed_request(request, key))
                outcome = await container.commands.execute(along, command, expected_version=version)
    return accepted(outcome, outcome.versions[command.trigger_id], {"name": name}, status=200)


@router.post(
    "/v1/triggers/{name}/rotate",
    status_code=201,
    summary="Make a new secret for the webhook of a trigger",
    responses={201: openapi.gives(SecretRotated, "Cache-Control")},
    openapi_extra=openapi.body(RotateSecretBody, {"overlap_s": 3600}, takes=("Tidelog-On-Behalf-Of", REASON)),
)
@needs(Action.TRIGGERS_DEFINE, Reach.LIMITED)
async def post_rotate_secret(request: Request, name: Name) -> Response:
    """The secrets of before are valid for `overlap_s` more seconds. Again: makes another one."""
    body, container, tenant_id = await body_of(request, RotateSecretBody), container_of(request), principal_of(request).tenant_id
    async with audited(request, Action.TRIGGERS_DEFINE, "trigger", name, operation="rotate") as entry:
        trigger, _ = await load_trigger(container.commands, tenant_id, name, projects_of(request))
        if trigger.hook_id is None:
            raise InvalidState(f"the trigger '{name}' is about events: it has no webhook, and no secret")
        scheme = trigger.definition["hook"]["scheme"]
        secret = make_secret(scheme)
        await entry.begin()
        hook_id = trigger.hook_id
        number = await container.triggers.secrets.add(
            hook_id, tenant_id, name, scheme, secret.kept, overlap_s=body.overlap_s
        )  # fmt: skip
    said = {"name": name, "hook_path": f"/hooks/{hook_id}", "secret": secret.shown, "number": number}
    return answer(said, 201, headers={"Cache-Control": "no-store"})


@router.get(
    "/v1/triggers/{name}/firings",
    summary="What has come of a trigger, newest first",
    responses={200: openapi.gives(FiringPage, "Link")},
)
@needs(Action.TRIGGERS_READ, Reach.LIMITED)
async def get_firings(
    request: Request, name: Name, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50, cursor: str | None = None
) -> Response:
    """As the log has it: what it fired on and what that started, misfires with their reasons, and how much was over its limit."""
    container, tenant_id, before = container_of(request), principal_of(request).tenant_id, position_cursor(cursor)
    await load_trigger(container.commands, tenant_id, name, projects_of(request))
    page = await read_firings(
        container.feed, container.commands.registry, tenant_id, trigger_id_of(tenant_id, name), limit=limit, before=before
    )
    return answer(FiringPage(data=page.data, next_cursor=page.next_cursor), headers=next_link(request, page.next_cursor))


@router.post(
    "/v1/triggers:dry-run",
    summary="What a trigger would have fired on",
    responses={200: openapi.gives(Tried)},
    openapi_extra=openapi.body(DryRunBody, {"definition": EXAMPLE, "since": "2026-11-01T00:00:00Z"}, {"name": "review.failures"}),
)
@needs(Action.TRIGGERS_READ, Reach.LIMITED)
async def post_dry_run(request: Request) -> Response:
    """A page looks at some 2,000 events of its topics; go on with `next_cursor`. Nothing is started, and nothing is recorded."""
    body, container = await body_of(request, DryRunBody), container_of(request)
    trigger = await _tried(request, body)
    after, until = await _span(request, body)
    page = await container.triggers.tries.page(trigger, after=after, until=until, examples=body.examples)
    following = encode_cursor(f"{page.reached}:{until}") if page.more else None
    said = {name: value for name, value in asdict(page).items() if name != "more"}
    return answer({**said, "until": until, "next_cursor": following})


async def _tried(request: Request, body: DryRunBody) -> KnownTrigger:
    container, tenant_id, projects = container_of(request), principal_of(request).tenant_id, projects_of(request)
    if (body.name is None) == (body.definition is None):
        raise InvalidCommand("give either a `name` or a `definition`", pointer="")
    within = within_of(projects)
    if body.definition is not None:
        definition = _defined(request, body.definition, "/definition")
        await _must_be_right(request, definition, "/definition")
    else:
        assert body.name is not None
        state, _ = await load_trigger(container.commands, tenant_id, body.name, projects)
        known = definition_of(state.definition)
        if known is None:
            raise InvalidState("the trigger is of a later release")
        definition = known
        within = state.within if within is None else within
    if definition.on is None:
        raise InvalidCommand(
            "a dry run is for a trigger on events: deliveries of webhooks are not kept", pointer="/definition/hook"
        )
    name = body.name or "dry-run"
    return KnownTrigger(tenant_id, trigger_id_of(tenant_id, name), name, definition, None, within)


async def _span(request: Request, body: DryRunBody) -> tuple[int, int]:
    """After which position, and up to which."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    if body.cursor is not None:
        after, _, until = decode_cursor(body.cursor).partition(":")
        positions = position_cursor(encode_cursor(after or "-")), position_cursor(encode_cursor(until or "-"))
        return positions[0] or 0, positions[1] or 0
    head = (await container.histories.fresh()).head
    since = time_of("since", body.since) or datetime.now().astimezone() - timedelta(days=7)
    try:
        before = since - timedelta(microseconds=1)
    except OverflowError:
        return 0, head
    return await container.feed.position_at(tenant_id, before), head


async def _must_be_right(request: Request, definition: TriggerDefinition, place: str = "") -> None:
    """Raises InvalidCommand, which has all faults. Agents and workflows are looked up when it starts: they may come later."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    faults = container.triggers.definitions.faults_of(definition)
    faults += await fault_of_unit(container.commands, tenant_id, definition.start.budget, START)
    if definition.start.plan is not None:
        told, found = {where for where, _ in faults}, await container.plan_checks.check(definition.start.plan)
        plan = [(f"/start/plan{fault.pointer}", f"{fault.detail}; {fault.cure}") for fault in found.faults]
        faults += [(where, text) for where, text in plan if where not in told]
    must_have_none([(f"{place}{where}", text) for where, text in faults])


def _defined(request: Request, body: TriggerBody, place: str = "") -> TriggerDefinition:
    """The definition that a body has. Raises InvalidCommand, UnknownProject, NotPermitted, KeyIsNarrowed."""
    projects, given = projects_of(request), body.on
    if projects is not None and given is not None and given.project_id is not None and given.project_id not in projects:
        raise UnknownProject(f"there is no project {given.project_id}", pointer=f"{place}/on/project_id")
    if body.start.tool is not None:
        must_be_allowed(principal_of(request).role, Action.TOOLS_CALL)
        if projects is not None:  # a call belongs to no project
            raise KeyIsNarrowed(Action.TOOLS_CALL)
    if (body.on is None) == (body.hook is None):
        raise InvalidCommand("give either `on`, for events, or `hook`, for a webhook", pointer=f"{place}/on")
    return TriggerDefinition(
        description=body.description, on=body.on, hook=body.hook, start=body.start,
        project_id=project_for(request, body.project_id), max_per_minute=body.max_per_minute, max_depth=body.max_depth,
    )  # fmt: skip
