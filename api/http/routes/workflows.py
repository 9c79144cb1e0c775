"""Workflows over HTTP: drafts, versions that never change, and what differs between them."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import Key, key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.releases import must_all_know_workflows
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.pages import MAX_LIMIT, MAX_POSITION, decode_cursor, parse_position, position_cursor
from application.reads import WorkflowsWanted
from application.views.workflows import WorkflowSummary, WorkflowVersionSummary, WorkflowVersionView, WorkflowView
from application.workflows.differences import WorkflowDifference, differences
from application.workflows.written import read_workflow, write_workflow
from domain.access import Action
from domain.concurrency import Concurrency
from domain.errors import InvalidCommand
from domain.kernel import Command, Deadline, Json, Name, Priority, ShortText, Text
from domain.plans import Plan
from domain.workflows import (
    DECIDER,
    Compensate,
    DeprecateWorkflow,
    DiscardDraft,
    DraftWorkflow,
    ReinstateWorkflow,
    SlashCommand,
    Workflow,
    WorkflowDefinition,
    WorkflowPublished,
    no_version,
    no_workflow,
    workflow_id_of,
)
from domain.written_budgets import WrittenBudget

router = APIRouter(tags=["workflows"], route_class=DirectRoute)

MOST_VERSION = MAX_POSITION
Version = Annotated[int, Path(ge=1, le=MOST_VERSION)]
OF_DIFF = "A version, or `draft`. Without `to`: the draft, or else the current version. Without `from`: the version before `to`"
_PREFIX = re.compile(r"[a-z0-9_.-]*")
DEFINITION_EXAMPLE: dict[str, Any] = {
    "description": "Reads a text, and writes a summary if the text is long.",
    "parameters": {
        "type": "object",
        "properties": {"text": {"type": "string"}, "words": {"type": "integer", "default": 100}},
        "required": ["text"],
    },
    "plan": {
        "steps": [
            {"key": "read", "agent": "reader", "agent_version": "2"},
            {"key": "write", "agent": "writer", "after": ["read"], "when": "steps.read.result.words > input.words"},
        ]
    },
}
TAKES = ("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)


class DefinitionBody(Body):
    """What a workflow says. In its plan `agent: "critic@2"` is short for an agent and its version."""

    SHORT_FORMS = (b"@",)
    description: Text = ""
    parameters: dict[str, Json] | None = None
    """JSON Schema (2020-12) of the run's input. Null: any input."""
    plan: Plan
    priority: Priority = "normal"
    compensate: Compensate = "never"
    deadline_s: Deadline | None = None
    """Seconds after which a run fails that has not ended. Null: it has no deadline."""
    metadata: dict[str, Json] = {}
    budget: WrittenBudget | None = None
    """What each run may spend, unless the start says another."""
    concurrency: Concurrency | None = None
    """The key that its runs share. Null: they go on side by side."""
    command: SlashCommand | None = None

    @classmethod
    def in_full(cls, written: dict[str, Json]) -> dict[str, Json]:
        return read_workflow(written)

    def definition(self) -> WorkflowDefinition:
        return WorkflowDefinition(
            description=self.description, parameters=self.parameters, plan=self.plan, priority=self.priority,
            compensate=self.compensate, deadline_s=self.deadline_s, budget=self.budget, metadata=self.metadata,
            command=self.command,
            concurrency=self.concurrency,
        )  # fmt: skip


class WorkflowBody(DefinitionBody):
    name: Name
    note: ShortText | None = None
    """What the version changes."""
    expected_version: int | None = Field(default=None, ge=0)
    """As `If-Match`: the version of the workflow's stream. 0: the workflow must be new."""


class PublishBody(Body):
    note: ShortText | None = None


class RevertBody(Body):
    version: int = Field(ge=1, le=MOST_VERSION)
    note: ShortText | None = None


class DeprecateBody(Body):
    version: int | None = Field(default=None, ge=1, le=MOST_VERSION)
    """Null: the whole workflow."""
    reason: ShortText | None = None


class ReinstateBody(Body):
    version: int | None = Field(default=None, ge=1, le=MOST_VERSION)


class WorkflowAccepted(openapi.Shown):
    name: str
    workflow_version: int | None
    """The current version. Null: there is only a draft."""
    position: int
    version: int
    """Version of the workflow's stream, which `If-Match` takes."""


class WorkflowPage(BaseModel):
    data: list[WorkflowSummary]
    next_cursor: str | None


class WorkflowVersionPage(BaseModel):
    data: list[WorkflowVersionSummary]
    next_cursor: str | None


class WorkflowDifferences(BaseModel):
    name: str
    from_: str = Field(serialization_alias="from")
    to: str
    differences: list[WorkflowDifference]
    """Empty: both say the same."""


@router.post(
    "/v1/workflows",
    status_code=201,
    summary="Create a workflow, or publish a new version of it",
    responses={201: openapi.gives(WorkflowAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(WorkflowBody, {"name": "digest", **DEFINITION_EXAMPLE, "note": "first"}, takes=TAKES),
)
@needs(Action.WORKFLOWS_DEFINE)
async def post_workflow(request: Request) -> Response:
    """The definition that the current version has already changes nothing. `errors` of a refusal has all faults, each with its
    place."""
    body = await body_of(request, WorkflowBody)
    version = expected_version(request) if body.expected_version is None else body.expected_version
    changes = container_of(request).workflow_changes

    def publish(asked: CommandRequest) -> Awaitable[CommandOutcome]:
        return changes.publish(asked, body.name, body.definition(), body.note, version)

    return await _changed(request, body.name, "publish", key_of(request, body), version, publish, status=201)


@router.get(
    "/v1/workflows",
    summary="Workflows, by name",
    responses={200: openapi.gives(WorkflowPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_workflows(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    prefix: Annotated[str, Query(max_length=100, description="What their names begin with")] = "",
    deprecated: Annotated[bool | None, Query(description="Only the deprecated ones, or only the others")] = None,
) -> Response:
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    if not _PREFIX.fullmatch(prefix):
        raise InvalidCommand("names have lower-case letters, digits, `_`, `-` and `.`", pointer="/prefix")
    await caught_up(request, "workflows")
    wanted = WorkflowsWanted(limit, after, prefix, deprecated)
    return page_answer(request, WorkflowPage, await container_of(request).reads.workflows.list(tenant_id, wanted))


@router.get(
    "/v1/workflows/{name}",
    summary="A workflow: its current version and its draft",
    responses={200: openapi.gives(WorkflowView, POSITION, "ETag")},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_workflow(request: Request, name: Name) -> Response:
    await caught_up(request, "workflows")
    found = await container_of(request).reads.workflows.get(principal_of(request).tenant_id, name)
    if found.value is None:
        raise no_workflow(name)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.stream_version}"'})


@router.get(
    "/v1/workflows/{name}/versions",
    summary="Versions of a workflow, the newest first",
    responses={200: openapi.gives(WorkflowVersionPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_versions(
    request: Request, name: Name, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    before, tenant_id = position_cursor(cursor), principal_of(request).tenant_id
    await caught_up(request, "workflows")
    reads = container_of(request).reads.workflows
    found = await reads.versions(tenant_id, workflow_id_of(tenant_id, name), limit=limit, before=before)
    if not found.value.data and before is None and (await reads.get(tenant_id, name)).value is None:
        raise no_workflow(name)
    return page_answer(request, WorkflowVersionPage, found)


@router.get(
    "/v1/workflows/{name}/versions/{version}",
    summary="A version of a workflow",
    responses={200: openapi.gives(WorkflowVersionView, POSITION)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_version(request: Request, name: Name, version: Version) -> Response:
    tenant_id = principal_of(request).tenant_id
    await caught_up(request, "workflows")
    found = await container_of(request).reads.workflows.version(tenant_id, workflow_id_of(tenant_id, name), version)
    if found.value is None:
        raise no_version(name, version)
    return answer(found.value, position=found.position)


@router.get(
    "/v1/workflows/{name}/diff",
    summary="What differs between two versions of a workflow, or a version and the draft",
    responses={200: openapi.gives(WorkflowDifferences)},
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_diff(
    request: Request,
    name: Name,
    before: Annotated[str | None, Query(alias="from", max_length=20, description=OF_DIFF)] = None,
    after: Annotated[str | None, Query(alias="to", max_length=20, description=OF_DIFF)] = None,
) -> Response:
    """Steps are compared by their keys. The log is asked, so what was changed just now is there."""
    tenant_id, changes = principal_of(request).tenant_id, container_of(request).workflow_changes
    old, new = sides_of(name, await changes.current(tenant_id, name), before, after)
    said_before, said_after = [
        write_workflow(None, (await changes.definition(tenant_id, name, side)).said()) for side in (old, new)
    ]
    found = differences(said_before, said_after)
    said = WorkflowDifferences(name=name, from_=_side(old), to=_side(new), differences=found)
    return Response(said.model_dump_json(by_alias=True), media_type="application/json")


@router.put(
    "/v1/workflows/{name}/draft",
    summary="Write the draft of a workflow, in the place of the one before",
    responses={200: openapi.gives(WorkflowAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(DefinitionBody, DEFINITION_EXAMPLE, takes=TAKES),
)
@needs(Action.WORKFLOWS_DEFINE)
async def put_draft(request: Request, name: Name) -> Response:
    """The workflow need not be there. Only the form of a draft is checked; the rest when it is published."""
    body = await body_of(request, DefinitionBody)
    command = DraftWorkflow(workflow_id=_id(request, name), name=name, definition=body.definition())
    return await _commanded(request, name, "draft", command, key_of(request, body))


@router.delete(
    "/v1/workflows/{name}/draft",
    summary="Discard the draft of a workflow",
    responses={200: openapi.gives(WorkflowAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", "If-Match", REASON),
)
@needs(Action.WORKFLOWS_DEFINE)
async def delete_draft(request: Request, name: Name) -> Response:
    """A second time changes nothing."""
    return await _commanded(request, name, "discard", DiscardDraft(workflow_id=_id(request, name), name=name), None)


@router.post(
    "/v1/workflows/{name}/publish",
    status_code=201,
    summary="Publish the draft of a workflow: it becomes a version, the current one from then on",
    responses={201: openapi.gives(WorkflowAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(PublishBody, {"note": "a second reader"}, takes=TAKES),
)
@needs(Action.WORKFLOWS_DEFINE)
async def post_publish(request: Request, name: Name) -> Response:
    """A draft that says the same as the current version is discarded, and there is no new version."""
    body, version = await body_of(request, PublishBody), expected_version(request)
    changes = container_of(request).workflow_changes

    def publish(asked: CommandRequest) -> Awaitable[CommandOutcome]:
        return changes.publish_draft(asked, name, body.note, version)

    return await _changed(request, name, "publish", key_of(request, body), version, publish, status=201)


@router.post(
    "/v1/workflows/{name}/revert",
    status_code=201,
    summary="Publish what an older version says as a new version",
    responses={201: openapi.gives(WorkflowAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(RevertBody, {"version": 2, "note": "version 3 skips reviews"}, takes=TAKES),
)
@needs(Action.WORKFLOWS_DEFINE)
async def post_revert(request: Request, name: Name) -> Response:
    """Nothing happens if the current version says the same."""
    body, version = await body_of(request, RevertBody), expected_version(request)
    changes = container_of(request).workflow_changes

    def revert(asked: CommandRequest) -> Awaitable[CommandOutcome]:
        return changes.revert(asked, name, body.version, body.note, version)

    return await _changed(request, name, "revert", key_of(request, body), version, revert, status=201)


@router.post(
    "/v1/workflows/{name}/deprecate",
    summary="Deprecate a workflow, or one version of it: no new run starts with it",
    responses={200: openapi.gives(WorkflowAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(DeprecateBody, {"version": 3, "reason": "it skips reviews"}, takes=TAKES),
)
@needs(Action.WORKFLOWS_DEFINE)
async def post_deprecate(request: Request, name: Name) -> Response:
    """Runs that are under way go on."""
    body = await body_of(request, DeprecateBody)
    command = DeprecateWorkflow(workflow_id=_id(request, name), name=name, version=body.version, reason=body.reason)
    return await _commanded(request, name, "deprecate", command, key_of(request, body), reason=body.reason)


@router.post(
    "/v1/workflows/{name}/reinstate",
    summary="Take back that a workflow, or one version of it, is deprecated",
    responses={200: openapi.gives(WorkflowAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(ReinstateBody, {"version": 3}, takes=TAKES),
)
@needs(Action.WORKFLOWS_DEFINE)
async def post_reinstate(request: Request, name: Name) -> Response:
    body = await body_of(request, ReinstateBody)
    command = ReinstateWorkflow(workflow_id=_id(request, name), name=name, version=body.version)
    return await _commanded(request, name, "reinstate", command, key_of(request, body))


def sides_of(name: str, workflow: Workflow, before: str | None, after: str | None) -> tuple[int | None, int | None]:
    """The two sides of a comparison: versions, or None for the draft. Raises InvalidCommand, NotFound."""
    if after is not None:
        new = _version_of(name, workflow, "to", after)
    else:
        new = None if workflow.draft is not None else workflow.versions
    if before is not None:
        return _version_of(name, workflow, "from", before), new
    old = workflow.versions if new is None else new - 1
    if old == 0:
        raise InvalidCommand("there is no version before it to compare with: give `from`", pointer="/from")
    return old, new


def _version_of(name: str, workflow: Workflow, parameter: str, given: str) -> int | None:
    """A version; None for the draft. Raises InvalidCommand, NotFound."""
    if given == "draft":
        return None
    number = parse_position(given)
    if number is None:
        raise InvalidCommand("must be a version (1, 2, 3 …) or `draft`", pointer=f"/{parameter}")
    if not 1 <= number <= workflow.versions:
        raise no_version(name, given)
    return number


def _side(version: int | None) -> str:
    return "draft" if version is None else str(version)


def _id(request: Request, name: str) -> UUID:
    return workflow_id_of(principal_of(request).tenant_id, name)


async def _commanded(
    request: Request, name: str, operation: str, command: Command, key: Key | None, *, reason: str | None = None
) -> Response:
    version, commands = expected_version(request), container_of(request).commands

    def execute(asked: CommandRequest) -> Awaitable[CommandOutcome]:
        return commands.execute(asked, command, expected_version=version)

    return await _changed(request, name, operation, key, version, execute, reason=reason)


async def _changed(
    request: Request,
    name: str,
    operation: str,
    key: Key | None,
    version: int | None,
    change: Callable[[CommandRequest], Awaitable[CommandOutcome]],
    *,
    status: int = 200,
    reason: str | None = None,
) -> Response:
    """The answer to a change, which leaves an entry in the audit trail."""
    await must_all_know_workflows(request)
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    async with audited(request, Action.WORKFLOWS_DEFINE, "workflow", name, operation=operation, reason=reason) as entry:
        with one_content(key):
            async with precondition(version):
                outcome = await change(entry.along(keyed_request(request, key)))
    events = outcome.events or [container.commands.registry.decoded(recorded) for recorded in outcome.recorded]
    published = [event.version for event in events if isinstance(event, WorkflowPublished)]
    if published:
        current = published[-1]
    else:
        workflow_id = workflow_id_of(tenant_id, name)
        current = (await container.commands.load(DECIDER, tenant_id, workflow_id, fresh=False)).state.versions
    body = {"name": name, "workflow_version": current or None}
    headers = {"Location": f"/v1/workflows/{name}"} if status == 201 else {}
    return accepted(outcome, outcome.versions[workflow_id_of(tenant_id, name)], body, status=status, headers=headers)
