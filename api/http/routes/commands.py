"""Slash commands over HTTP: a line that begins with `/` gives work, or asks for a list."""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.afterwards import afterwards
from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.causes import HEADER as CAUSED_BY
from api.http.conventions.causes import find_cause
from api.http.conventions.idempotency import Key, key_of, keyed_request, one_content
from api.http.conventions.narrowing import must_be_seen, project_for, seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.preferences import wait_seconds
from api.http.conventions.releases import must_all_know_workflows
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.invocations import get_invocations
from api.http.routes.run_contents import get_messages
from api.http.routes.run_filters import RunFilters
from api.http.routes.runs import RunAccepted, get_runs
from application.engine.ports.pages import MAX_LIMIT, decode_cursor
from application.references import ReferencesRefused, refers
from application.runs.await_end import watching_end
from application.runs.terms import NO_TERMS, Terms
from application.slash_commands import filters
from application.slash_commands.commands import CommandStart
from application.slash_commands.filters import Listing, listing_of
from application.slash_commands.line import MAX_LINE, CommandLine, read_line
from application.slash_commands.parameters import value_of
from application.views.runs import RunView
from application.views.slash_commands import CommandDetails, CommandView
from domain.access import Action, must_be_allowed
from domain.errors import AlreadyExists
from domain.kernel import Deadline, Json, Name

router = APIRouter(tags=["commands"], route_class=DirectRoute)


class CommandBody(Body):
    text: str = Field(max_length=MAX_LINE)
    """`/name`, options as `name=value`, and free text."""
    project_id: UUID | None = None
    """Of the run."""
    run_id: UUID | None = None
    """An id that the client makes. With this id the request is repeatable without an Idempotency-Key."""
    deadline_s: Deadline | None = None
    """Seconds after which the run fails, if it has not ended. Null: as the workflow says."""
    dry_run: bool = False
    """Nothing is started or listed: the answer says what would be."""


class StartedWorkflow(openapi.Shown):
    name: str
    version: int


class StartedByCommand(RunAccepted):
    command: str
    workflow: StartedWorkflow | None
    """The tenant's own workflow. Null: a shipped command."""
    input: Json
    """Of the run."""
    run: RunView | None = None
    """The run at the end of the wait that `Prefer` asked for. Missing without such a wait."""


class CommandAnswer(openapi.Shown):
    """The page of `/query`, as the list's route gives it; or, with `dry_run`, what would be started or listed."""

    data: list[Any] | None = None
    next_cursor: str | None = None
    command: str | None = None
    workflow: StartedWorkflow | None = None
    input: Json = None
    plan: Json = None
    list: str | None = None
    """The list's route with its query."""


class CommandPage(BaseModel):
    data: list[CommandView]
    next_cursor: str | None


@router.post(
    "/v1/commands",
    status_code=201,
    summary="Carry out a slash command",
    responses={
        200: openapi.gives(CommandAnswer, "Content-Location", *OF_LISTS),
        201: openapi.gives(StartedByCommand, "Location", "Preference-Applied", *OF_COMMANDS),
    },
    openapi_extra=openapi.body(
        CommandBody,
        {"text": "/task Write release notes agent=writer"},
        {"text": "/query agent=critic status=failed since=24h"},
        {"text": "/swarm Write an invitation size=3", "dry_run": True},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", CAUSED_BY, "Prefer", POSITION),
    ),
)
@needs(Action.RUNS_READ, Reach.LIMITED)
async def post_command(request: Request) -> Response:
    """A command that starts a run needs `runs.start`, too, and is answered as `POST /v1/runs`. `/query` starts nothing: its page is
    the one that the list's route gives, which `Content-Location` names; `of=invocations` needs `invocations.read`."""
    body = await body_of(request, CommandBody)
    line = read_line(body.text)
    if line.name == filters.NAME:
        listing = listing_of(line, datetime.now(UTC))
        path = _path(listing)
        return answer({"command": line.name, "list": f"/v1/{path}"}) if body.dry_run else await _listed(request, listing, path)
    must_be_allowed(principal_of(request).role, Action.RUNS_START)
    _must_not_refer(request, line)
    if body.dry_run:
        return await _would_start(request, body, line)
    return await _start(request, body, line)


def _must_not_refer(request: Request, line: CommandLine) -> None:
    """As for bodies: the JSON of an option is one more place in which a reference may stand. Raises ReferencesRefused."""
    if principal_of(request).projects is not None and any(refers(value_of(option.value)) for option in line.options):
        raise ReferencesRefused


async def _start(request: Request, body: CommandBody, line: CommandLine) -> Response:
    container, wait_s = container_of(request), wait_seconds(request)
    run_id = body.run_id or uuid7()
    started = await _started(request, body, line, run_id, key_of(request, body))
    begun, version = started.outcome.begun(run_id)
    said: dict[str, Any] = {
        "run_id": str(begun), "command": line.name, "workflow": started.workflow and started.workflow.model_dump(),
        "input": started.input,
    }  # fmt: skip
    headers = {"Location": f"/v1/runs/{begun}"}
    if wait_s:
        waiting = _at_end(request, begun, wait_s)
        if (shown := await afterwards(container, waiting, what="waiting for a run's end")) is not None:
            said["run"] = shown
        headers["Preference-Applied"] = f"wait={wait_s}"
    return accepted(started.outcome, version, said, status=201, headers=headers)


async def _started(request: Request, body: CommandBody, line: CommandLine, run_id: UUID, key: Key | None) -> CommandStart:
    container = container_of(request)
    await must_all_know_workflows(request)
    await find_cause(request)
    try:
        with one_content(key):
            return await container.slash_commands.start(
                keyed_request(request, key, correlation_id=run_id, otherwise=run_id),
                line,
                run_id=run_id,
                project_id=project_for(request, body.project_id),
                terms=NO_TERMS if body.deadline_s is None else Terms(body.deadline_s),
                known=container.reads.agents,
                admission=container.admission,
            )
    except AlreadyExists as error:
        if (seen := seen_by(request)) is not None and not await seen.has(run_id):
            raise AlreadyExists(f"the id {run_id} is taken by something else") from error  # a secret of another project
        raise


async def _at_end(request: Request, run_id: UUID, wait_s: int) -> orjson.Fragment | None:
    container = container_of(request)
    async with watching_end(container.live, container.replays, principal_of(request).tenant_id, run_id) as end:
        view = await end.view(wait_s, may_be_over=True)
    return None if view is None else orjson.Fragment(view.__pydantic_serializer__.to_json(view))


async def _would_start(request: Request, body: CommandBody, line: CommandLine) -> Response:
    found, input, plan = await container_of(request).slash_commands.described(principal_of(request).tenant_id, line)
    project_for(request, body.project_id)
    workflow = None if found.version is None else {"name": found.name, "version": found.version}
    written = plan.model_dump(mode="json", exclude_defaults=True)
    return answer({"command": line.name, "workflow": workflow, "input": input, "plan": written})


async def _listed(request: Request, listing: Listing, path: str) -> Response:
    """The page of the list's route, with relative links to that route."""
    role, given = principal_of(request).role, dict(listing.parameters)
    for name in ("started_after", "started_before"):
        if name in given:
            given[name] = given[name].isoformat()
    match listing.of:
        case "runs":
            named = {name: given.pop(name) for name in ("status", "limit", "cursor", "as_of") if name in given}
            response = await get_runs(request, RunFilters(**given), **named)
        case "invocations":
            must_be_allowed(role, Action.INVOCATIONS_READ)
            response = await get_invocations(request, **given)
        case "messages":
            await must_be_seen(request, Reach.RUN, given)
            response = await get_messages(request, **given)
    response.headers["Content-Location"] = path
    if "link" in response.headers:
        next_cursor = orjson.loads(response.body)["next_cursor"]
        following = _path(listing._replace(parameters={**listing.parameters, "cursor": next_cursor}))
        response.headers["Link"] = f'<{following}>; rel="next"'
    return response


def _path(listing: Listing) -> str:
    """The list's route with its query, from `/v1/` on."""
    given = dict(listing.parameters)
    of = f"runs/{given.pop('run_id')}/messages" if listing.of == "messages" else listing.of
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            pairs.append((name, one.isoformat() if isinstance(one, datetime) else str(one)))
    query = urlencode(pairs, quote_via=quote, safe=":,-._~")
    return f"{of}?{query}" if query else of


@router.get(
    "/v1/commands",
    summary="Slash commands, by name: the shipped ones, and the tenant's own",
    responses={200: openapi.gives(CommandPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_commands(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    """An own command is a workflow with a `command`. One with the name of a shipped command stands in its place."""
    after = decode_cursor(cursor) if cursor is not None else None
    await caught_up(request, "workflows")
    found = await container_of(request).slash_commands.list(principal_of(request).tenant_id, limit=limit, after=after)
    return page_answer(request, CommandPage, found)


@router.get(
    "/v1/commands/{name}",
    summary="A slash command, and what it starts",
    responses={200: openapi.gives(CommandDetails)},
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_command(request: Request, name: Name) -> Response:
    """The log is asked, so what was published just now is there. `definition` is as `POST /v1/workflows` takes it: a shipped
    command that is changed and published is the tenant's own."""
    return answer(await container_of(request).slash_commands.show(principal_of(request).tenant_id, name))
