"""Tools over HTTP: what they declare, in each version, and what operators change."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.preconditions import expected_version, precondition
from api.http.conventions.releases import must_all_know_chains, must_all_know_tools
from api.http.conventions.request import command_request, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, decode_cursor, position_cursor
from application.tools import faults_of_given, load_tool, no_tool, remove_tool
from application.views.tools import ToolVersionView, ToolView
from application.workers.listing import count_workers, limits_in_use
from domain.access import Action
from domain.errors import InvalidCommand, NotFound
from domain.kernel import Json, Name, ShortText, Text
from domain.tool_policy import ToolPolicy
from domain.tools import MOST_EXAMPLES, MOST_NEEDED, DeprecateTool, RegisterTool, ReinstateTool, VersionName, tool_id_of

router = APIRouter(tags=["agents and tools"], route_class=DirectRoute)

REQUEST_EXAMPLE = {"method": "GET", "url": "https://api.example.com/weather/{{city}}", "auth": {"secret": "weather"}}
VERSION_EXAMPLE: dict[str, Any] = {
    "version": "1",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "kind": "http",
    "request": REQUEST_EXAMPLE,
    "examples": [{"arguments": {"city": "Bergen"}}],
}


class VersionBody(Body):
    """A declaration. Its version never means something else."""

    version: VersionName
    kind: Literal["http", "builtin", "chain"]
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    parameters: dict[str, Json]
    result: Json = None
    idempotent: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=86_400, allow_inf_nan=False)
    max_attempts: int = Field(default=3, ge=1, le=20)
    examples: tuple[Json, ...] = Field(default=(), max_length=MOST_EXAMPLES)
    needs_tools: tuple[Name, ...] = Field(default=(), max_length=MOST_NEEDED)
    needs_services: tuple[ShortText, ...] = Field(default=(), max_length=MOST_NEEDED)
    untrusted_output: bool = False
    request: Json = None
    builtin: Name | None = None
    chain: Json = None
    policy: ToolPolicy | None = None


class ToolBody(VersionBody):
    name: Name


class PatchToolBody(Body):
    deprecated: bool
    replaced_by: Name | None = None
    note: ShortText | None = None


class ValidateBody(Body):
    arguments: Json = None
    """What a call would give."""
    declaration: dict[str, Json] | None = None
    """What a version would declare."""


class ToolAccepted(openapi.Shown):
    name: str
    position: int
    version: int
    """Version of the tool's stream, which `If-Match` takes."""


class ToolFault(openapi.Shown):
    pointer: str
    detail: str


class Validated(openapi.Shown):
    valid: bool
    errors: list[ToolFault]
    warning: str | None
    """Set for a tool that is deprecated."""


class ToolPage(BaseModel):
    data: list[ToolView]
    next_cursor: str | None


class ToolVersionPage(BaseModel):
    data: list[ToolVersionView]
    next_cursor: str | None


@router.get(
    "/v1/tools",
    summary="Tools, by name",
    responses={200: openapi.gives(ToolPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_tools(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    await caught_up(request, "tools")
    container = container_of(request)
    found = await container.reads.tools.list(tenant_id, limit=limit, after=after)
    await count_workers(container.listed_sessions, tenant_id, "tool", found.value.data)
    return page_answer(request, ToolPage, found)


@router.post(
    "/v1/tools",
    status_code=201,
    summary="Define a tool that is data: an HTTP request, a chain of other tools, or a part of Tidelog",
    responses={201: openapi.gives(ToolAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ToolBody, {"name": "weather", **VERSION_EXAMPLE}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)
    ),
)
@needs(Action.TOOLS_DEFINE)
async def post_tool(request: Request) -> Response:
    """Tools of the kind `python` are announced by their workers. `errors` of a refusal has all faults, each with its place."""
    body = await body_of(request, ToolBody)
    return await _register(request, body.name, body, "created", None)


@router.get(
    "/v1/tools/{name}",
    summary="A tool",
    responses={200: openapi.gives(ToolView, POSITION, "ETag")},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_tool(request: Request, name: Name) -> Response:
    await caught_up(request, "tools")
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    found = await container.reads.tools.get(tenant_id, name)
    if found.value is None:
        raise no_tool(name)
    await count_workers(container.listed_sessions, tenant_id, "tool", [found.value])
    found.value.limits = await limits_in_use(container.listed_permits, tenant_id, found.value)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.stream_version}"'})


@router.patch(
    "/v1/tools/{name}",
    summary="Deprecate a tool, or take that back",
    responses={200: openapi.gives(ToolAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        PatchToolBody,
        {"deprecated": True, "replaced_by": "forecast", "note": "the service ends in May"},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON),
    ),
)
@needs(Action.TOOLS_DEFINE)
async def patch_tool(request: Request, name: Name) -> Response:
    """A deprecated tool can still be called. Each call warns in the log of its run, and names what replaces the tool."""
    body = await body_of(request, PatchToolBody)
    tenant_id, commands = principal_of(request).tenant_id, container_of(request).commands
    tool_id, version, key = tool_id_of(tenant_id, name), expected_version(request), key_of(request, body)
    command: DeprecateTool | ReinstateTool = ReinstateTool(tool_id=tool_id, name=name)
    if body.deprecated:
        command = DeprecateTool(tool_id=tool_id, name=name, replaced_by=body.replaced_by, note=body.note)
    elif body.replaced_by is not None or body.note is not None:
        raise InvalidCommand("only a deprecated tool has a note and a replacement", pointer="/deprecated")
    await must_all_know_tools(container_of(request))
    operation = "deprecate" if body.deprecated else "reinstate"
    async with audited(request, Action.TOOLS_DEFINE, "tool", name, operation=operation) as entry:
        if body.replaced_by is not None and body.replaced_by != name:
            await _must_be_there(request, body.replaced_by)
        with one_content(key):
            async with precondition(version):
                outcome = await commands.execute(entry.along(keyed_request(request, key)), command, expected_version=version)
    return accepted(outcome, outcome.versions[tool_id], {"name": name}, status=200)


async def _must_be_there(request: Request, name: str) -> None:
    try:
        await load_tool(container_of(request).commands, principal_of(request).tenant_id, name)
    except NotFound as error:
        raise InvalidCommand(error.message, pointer="/replaced_by") from None


@router.delete(
    "/v1/tools/{name}",
    summary="Remove a tool",
    responses={200: openapi.gives(ToolAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", "If-Match", REASON),
)
@needs(Action.TOOLS_REMOVE)
async def delete_tool(request: Request, name: Name) -> Response:
    """It cannot be called any more. Calls that were made go on. Refused with 409 `tool-in-use` while workers offer the tool."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    version = expected_version(request)
    await must_all_know_tools(container)
    async with audited(request, Action.TOOLS_REMOVE, "tool", name) as entry, precondition(version):
        for_command = entry.along(command_request(request))
        outcome = await remove_tool(container.commands, container.listed_sessions, for_command, name, version)
    return accepted(outcome, outcome.versions[tool_id_of(tenant_id, name)], {"name": name}, status=200)


@router.get(
    "/v1/tools/{name}/versions",
    summary="The versions of a tool, the one that was registered last first",
    responses={200: openapi.gives(ToolVersionPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_versions(
    request: Request, name: Name, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    before, tenant_id = position_cursor(cursor), principal_of(request).tenant_id
    await caught_up(request, "tool_versions")
    reads = container_of(request).reads.tools
    found = await reads.versions(tenant_id, tool_id_of(tenant_id, name), limit=limit, before=before)
    if not found.value.data and before is None:
        raise no_tool(name)
    return page_answer(request, ToolVersionPage, found)


@router.post(
    "/v1/tools/{name}/versions",
    status_code=201,
    summary="Declare a new version of a tool, which is the current one from then on",
    responses={201: openapi.gives(ToolAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        VersionBody, {**VERSION_EXAMPLE, "version": "2"}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", "If-Match", REASON)
    ),
)
@needs(Action.TOOLS_DEFINE)
async def post_version(request: Request, name: Name) -> Response:
    """Another declaration of a known version is refused with 409 `version-taken`, and the same one again changes nothing."""
    return await _register(request, name, await body_of(request, VersionBody), "version", expected_version(request))


@router.get(
    "/v1/tools/{name}/versions/{version}",
    summary="A version of a tool",
    responses={200: openapi.gives(ToolVersionView, POSITION)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_version(request: Request, name: Name, version: VersionName) -> Response:
    tenant_id = principal_of(request).tenant_id
    await caught_up(request, "tool_versions")
    found = await container_of(request).reads.tools.version(tenant_id, tool_id_of(tenant_id, name), version)
    if found.value is None:
        raise NotFound(f"there is no version '{version}' of a tool '{name}'")
    return answer(found.value, position=found.position)


@router.post(
    "/v1/tools/{name}/validate",
    summary="Check the arguments of a call, or a declaration, without any effect",
    responses={200: openapi.gives(Validated)},
    openapi_extra=openapi.body(
        ValidateBody, {"arguments": {"city": 7}}, {"declaration": {k: v for k, v in VERSION_EXAMPLE.items() if k != "examples"}}
    ),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def post_validate(request: Request, name: Name) -> Response:
    """All faults at once, up to a hundred of a value, each with the JSON Pointer of its place in what was given."""
    body = await body_of(request, ValidateBody)
    given = body.model_fields_set
    if len(given) != 1:
        raise InvalidCommand("give either `arguments` or a `declaration`", pointer="")
    container, tenant_id, warning = container_of(request), principal_of(request).tenant_id, None
    declarations = container.workers.declarations
    if body.declaration is not None:
        faults = faults_of_given(declarations, VersionBody, tenant_id, name, body.declaration)
        faults += await container.workers.chains.faults_of(tenant_id, name, body.declaration.get("chain"))
    elif "declaration" in given:
        raise InvalidCommand("a declaration is an object", pointer="/declaration")
    else:
        tool = await load_tool(container.commands, tenant_id, name)
        faults, warning = declarations.faults_of_arguments(tool, body.arguments), tool.warning
    errors = [{"pointer": place, "detail": text} for place, text in faults]
    return answer({"valid": not errors, "errors": errors, "warning": warning})


async def _register(
    request: Request, name: str, body: VersionBody, how: Literal["created", "version"], version: int | None
) -> Response:
    """Registers a declaration. Raises InvalidCommand, which has all of its faults."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    tool_id, key = tool_id_of(tenant_id, name), key_of(request, body)
    declared = body.model_dump(exclude={"name"}) | {"name": name, "tool_id": tool_id, "pinned": True, "how": how}
    command = RegisterTool(**declared)
    await (must_all_know_chains if body.kind == "chain" else must_all_know_tools)(container)
    async with audited(request, Action.TOOLS_DEFINE, "tool", name, operation=how) as entry:
        of_chain = await container.workers.chains.faults_of(tenant_id, name, command.chain)
        container.workers.declarations.check(command, of_chain)
        with one_content(key):
            async with precondition(version):
                outcome = await container.commands.execute(
                    entry.along(keyed_request(request, key)), command, expected_version=version
                )
    if body.kind != "chain":  # the server carries it out
        container.tools_told.defined(tenant_id)
    headers = {"Location": f"/v1/tools/{name}"}
    return accepted(outcome, outcome.versions[tool_id], {"name": name}, status=201, headers=headers)
