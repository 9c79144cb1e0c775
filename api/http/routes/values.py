"""Single values of users, each at a path of its own: where the references in documents and lists lead."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from api.http.conventions.answers import json_text, knows, tag_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.invocations import call_of
from application.invocations import value_of
from application.reads import Positioned
from application.runs.values import JoinedResults, ValuesOfRun
from domain.access import Action

of_runs = APIRouter(tags=["runs"], route_class=DirectRoute)
of_calls = APIRouter(tags=["invocations"], route_class=DirectRoute)

AsOf = Annotated[str | None, Query(description="A position, or an RFC 3339 time: the value as it was then")]
Number = Annotated[int, Path(ge=0, description="Which part: 0, 1, 2 …")]
CACHING = "private, no-cache"
"""A copy is asked about again each time, which costs no transfer: so a revoked key reads nothing from a cache."""
OF_LOG = openapi.takes_headers("If-None-Match")
"""What a value takes that is read from the log, which is never behind."""
value_of_run = partial(of_runs.get, responses=openapi.VALUES, openapi_extra=openapi.takes_headers(POSITION, "If-None-Match"))
value_of_log = partial(of_runs.get, responses=openapi.VALUES, openapi_extra=OF_LOG)
value_of_call = partial(of_calls.get, responses=openapi.VALUES, openapi_extra=OF_LOG)


# --- of a run -----------------------------------------------------------------------------------------------------------


@value_of_run("/v1/runs/{run_id}/input", summary="The input of a run")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_input(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("input", as_of))


@value_of_run("/v1/runs/{run_id}/metadata", summary="The metadata of a run")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_metadata(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("metadata", as_of))


@value_of_run("/v1/runs/{run_id}/result", summary="The result of a run")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_result(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    """What the plan's `result` gave. Without one: the result of the only final step; with several final steps their results by key,
    of those that are completed. 404 if there is none."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("result", as_of))


@value_of_run("/v1/runs/{run_id}/error", summary="The error of a failed run")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_error(request: Request, run_id: UUID, as_of: AsOf = None) -> Response:
    """404 if the run has not failed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_run("error", as_of))


@value_of_run("/v1/runs/{run_id}/steps/{step}/input", summary="The input that a plan gives to a step")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_input_of_step(request: Request, run_id: UUID, step: str, as_of: AsOf = None) -> Response:
    """404 if the step has no input of its own: it then gets the run's."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_step(step, "input", as_of))


@value_of_run("/v1/runs/{run_id}/steps/{step}/result", summary="The result of a step")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_result_of_step(request: Request, run_id: UUID, step: str, as_of: AsOf = None) -> Response:
    """404 if the step is not completed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_step(step, "result", as_of))


@value_of_run("/v1/runs/{run_id}/steps/{step}/error", summary="The last error of a step")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_error_of_step(request: Request, run_id: UUID, step: str, as_of: AsOf = None) -> Response:
    """404 if no attempt of the step has failed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_step(step, "error", as_of))


@value_of_run("/v1/runs/{run_id}/steps/{step}/parts/{number}/input", summary="The input of a part of a step")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_input_of_part(request: Request, run_id: UUID, step: str, number: Number, as_of: AsOf = None) -> Response:
    return _answer(request, await (await _of(request, run_id, as_of)).of_part(step, number, "input", as_of))


@value_of_run("/v1/runs/{run_id}/steps/{step}/parts/{number}/result", summary="The result of a part of a step")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_result_of_part(request: Request, run_id: UUID, step: str, number: Number, as_of: AsOf = None) -> Response:
    """404 if the part is not completed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_part(step, number, "result", as_of))


@value_of_run("/v1/runs/{run_id}/steps/{step}/parts/{number}/error", summary="The last error of a part of a step")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_error_of_part(request: Request, run_id: UUID, step: str, number: Number, as_of: AsOf = None) -> Response:
    """404 if no attempt of the part has failed."""
    return _answer(request, await (await _of(request, run_id, as_of)).of_part(step, number, "error", as_of))


@value_of_log("/v1/runs/{run_id}/journal/{position}/result", summary="The result of an entry of a journal")
@needs(Action.RUNS_READ, Reach.RUN)
async def get_result_of_entry(request: Request, run_id: UUID, position: int, as_of: AsOf = None) -> Response:
    return _answer(request, await _values(request, run_id).of_entry(position, as_of))


@value_of_log("/v1/runs/{run_id}/messages/{message_id}/body", summary="The body of a message")
@needs(Action.RUNS_READ, Reach.RUN)
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


@value_of_call("/v1/invocations/{invocation_id}/arguments", summary="The arguments of a tool call")
@needs(Action.INVOCATIONS_READ, Reach.CALL)
async def get_arguments(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    return await _of_call(request, invocation_id, as_of, "arguments")


@value_of_call("/v1/invocations/{invocation_id}/result", summary="The result of a tool call")
@needs(Action.INVOCATIONS_READ, Reach.CALL)
async def get_result_of_call(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    """404 if the call has not succeeded."""
    return await _of_call(request, invocation_id, as_of, "result")


@value_of_call("/v1/invocations/{invocation_id}/error", summary="The last error of a tool call")
@needs(Action.INVOCATIONS_READ, Reach.CALL)
async def get_error_of_call(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    """404 if no attempt has failed, or the call has succeeded since."""
    return await _of_call(request, invocation_id, as_of, "error")


@value_of_call("/v1/invocations/{invocation_id}/evidence", summary="The evidence for the outcome that a person recorded")
@needs(Action.INVOCATIONS_READ, Reach.CALL)
async def get_evidence(request: Request, invocation_id: UUID, as_of: AsOf = None) -> Response:
    """404 if nobody gave any."""
    return await _of_call(request, invocation_id, as_of, "evidence")


async def _of_call(
    request: Request, invocation_id: UUID, as_of: str | None, field: Literal["arguments", "result", "error", "evidence"]
) -> Response:
    found = await call_of(request, invocation_id, as_of)
    return _answer(request, Positioned(value_of(found.value, field), found.position))


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
