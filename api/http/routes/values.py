"""Single values of users, each at a path of its own: where the references in documents and lists lead."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.http.conventions.answers import json_text, knows, tag_of
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.reading.as_of import position_as_of
from application.reads import Positioned
from application.runs.values import JoinedResults, ValuesOfRun
from application.views.invocations import InvocationView
from domain.errors import NotFound

of_runs = APIRouter(tags=["runs"], route_class=DirectRoute)
of_calls = APIRouter(tags=["invocations"], route_class=DirectRoute)

AsOf = Annotated[str | None, Query(description="A position, or an RFC 3339 time: the value as it was then")]
CACHING = "private, no-cache"
"""A copy is asked about again each time, which costs no transfer: so a revoked key reads nothing from a cache."""
TAKES = openapi.takes_headers(POSITION, "If-None-Match")
OF_CALL = openapi.takes_headers("If-None-Match")


# --- of a run -----------------------------------------------------------------------------------------------------------


@of_runs.get("/v1/runs/{run_id}/input", summary="The input of a run", responses=openapi.VALUES, openapi_extra=TAKES)
async def get_input(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("input", as_of))


@of_runs.get("/v1/runs/{run_id}/metadata", summary="The metadata of a run", responses=openapi.VALUES, openapi_extra=TAKES)
async def get_metadata(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("metadata", as_of))


@of_runs.get("/v1/runs/{run_id}/result", summary="The result of a run", responses=openapi.VALUES, openapi_extra=TAKES)
async def get_result(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    """The result of the only final step; with several final steps their results by key, of those that are completed. 404 if there
    is none."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("result", as_of))


@of_runs.get("/v1/runs/{run_id}/error", summary="The error of a failed run", responses=openapi.VALUES, openapi_extra=TAKES)
async def get_error(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    """404 if the run has not failed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("error", as_of))


@of_runs.get(
    "/v1/runs/{run_id}/steps/{step}/input",
    summary="The input that a plan gives to a step",
    responses=openapi.VALUES,
    openapi_extra=TAKES,
)
async def get_input_of_step(request: Request, run_id: UUID, step: str, as_of: AsOf = None) -> Response:
    """404 if the step has no input of its own: it then gets the run's."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_step(step, "input", as_of))


@of_runs.get("/v1/runs/{run_id}/steps/{step}/result", summary="The result of a step", responses=openapi.VALUES, openapi_extra=TAKES)
async def get_result_of_step(request: Request, run_id: UUID, step: str, as_of: AsOf = None) -> Response:
    """404 if the step is not completed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_step(step, "result", as_of))


@of_runs.get(
    "/v1/runs/{run_id}/steps/{step}/error", summary="The last error of a step", responses=openapi.VALUES, openapi_extra=TAKES
)
async def get_error_of_step(request: Request, run_id: UUID, step: str, as_of: AsOf = None) -> Response:
    """404 if no attempt of the step has failed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_step(step, "error", as_of))


@of_runs.get(
    "/v1/runs/{run_id}/journal/{position}/result",
    summary="The result of an entry of a journal",
    responses=openapi.VALUES,
    openapi_extra=OF_CALL,
)
async def get_result_of_entry(request: Request, run_id: UUID, position: int, as_of: AsOf = None) -> Response:
    return _answer(request, await _values(request, run_id).of_entry(position, as_of))


@of_runs.get(
    "/v1/runs/{run_id}/messages/{message_id}/body",
    summary="The body of a message",
    responses=openapi.VALUES,
    openapi_extra=OF_CALL,
)
async def get_body_of_message(request: Request, run_id: UUID, message_id: UUID, as_of: AsOf = None) -> Response:
    sent = await container_of(request).commands.history(principal_of(request).tenant_id, message_id)
    return _answer(request, await _values(request, run_id).of_message(sent, as_of))


def _values(request: Request, run_id: UUID) -> ValuesOfRun:
    container = container_of(request)
    return ValuesOfRun(container.reads.runs, container.feed, container.histories, principal_of(request).tenant_id, run_id)


async def _of(request: Request, run_id: UUID, as_of: str | None) -> ValuesOfRun:
    """The values of a run. Without `as_of` they are read by the read model, which is waited for if the request asks for that."""
    if as_of is None:
        await caught_up(request, "runs")
    return _values(request, run_id)


# --- of a tool call -----------------------------------------------------------------------------------------------------


@of_calls.get(
    "/v1/invocations/{invocation_id}/arguments",
    summary="The arguments of a tool call",
    responses=openapi.VALUES,
    openapi_extra=OF_CALL,
)
async def get_arguments(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    found = await _call(request, invocation_id, as_of)
    return _answer(request, Positioned(found.value.arguments, found.position))


@of_calls.get(
    "/v1/invocations/{invocation_id}/result",
    summary="The result of a tool call",
    responses=openapi.VALUES,
    openapi_extra=OF_CALL,
)
async def get_result_of_call(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    """404 if the call has not succeeded."""
    found = await _call(request, invocation_id, as_of)
    if found.value.status != "succeeded":
        raise NotFound(f"invocation {invocation_id} has no result: it is {found.value.status}")
    return _answer(request, Positioned(found.value.result, found.position))


@of_calls.get(
    "/v1/invocations/{invocation_id}/error",
    summary="The last error of a tool call",
    responses=openapi.VALUES,
    openapi_extra=OF_CALL,
)
async def get_error_of_call(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    """404 if no attempt has failed, or the call has succeeded since."""
    found = await _call(request, invocation_id, as_of)
    if found.value.error is None:
        raise NotFound(f"invocation {invocation_id} has no error: it is {found.value.status}")
    return _answer(request, Positioned(found.value.error.model_dump(mode="json"), found.position))


@of_calls.get(
    "/v1/invocations/{invocation_id}/evidence",
    summary="The evidence for the outcome that a person recorded",
    responses=openapi.VALUES,
    openapi_extra=OF_CALL,
)
async def get_evidence(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    """404 if nobody gave any."""
    found = await _call(request, invocation_id, as_of)
    resolution = found.value.resolution
    if resolution is None or resolution.evidence is None:
        raise NotFound(f"invocation {invocation_id} has no evidence: it is {found.value.status}")
    return _answer(request, Positioned(resolution.evidence, found.position))


async def _call(request: Request, invocation_id: UUID, as_of: str | None) -> Positioned[InvocationView]:
    """The tool call with its values. Raises NotFound if the tenant has, or had, no such call."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    events = await container.commands.history(tenant_id, invocation_id)
    if as_of is not None:
        until = await position_as_of(container.feed, container.histories, tenant_id, as_of)
        events = [event for event in events if event.position <= until]
    view = container.reads.invocations.replay(events)
    if view is None:
        raise NotFound(f"there is no invocation {invocation_id}")
    return Positioned(view, events[-1].position)


# --- answers ------------------------------------------------------------------------------------------------------------


def _answer(request: Request, found: Positioned[Any]) -> Response:
    """The value, or 304 if the client has it."""
    value = found.value
    content = json_text(value.names()) if isinstance(value, JoinedResults) else json_text(value)
    tag = tag_of(content)
    headers = {"ETag": tag, "Cache-Control": CACHING, POSITION: str(found.position)}
    if knows(request, tag):
        return Response(status_code=304, headers=headers)
    if isinstance(value, JoinedResults):
        return StreamingResponse(_joined(value), 200, headers, "application/json")
    return Response(content, 200, headers, "application/json")


async def _joined(value: JoinedResults) -> AsyncIterator[bytes]:
    """The results by key as one object, a few at a time: together they may be larger than what a process should hold."""
    opening = b"{"
    async for key, result in value.results():
        yield opening + json_text(key) + b":" + json_text(result)
        opening = b","
    yield b"}"
