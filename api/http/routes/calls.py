"""Calls of tools without a run, over HTTP: one, and many at once."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.afterwards import afterwards
from api.http.conventions.answers import OF_COMMANDS, accepted, answer, replayed
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.causes import HEADER as CAUSED_BY
from api.http.conventions.causes import find_cause
from api.http.conventions.errors import tidelog_problem
from api.http.conventions.idempotency import MAX_KEY, Key, given_key, key_named, keyed_request
from api.http.conventions.permissions import needs
from api.http.conventions.positions import POSITION
from api.http.conventions.preferences import wait_seconds
from api.http.conventions.releases import must_all_know_calls
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.request import header as header_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.await_calls import OVER, CallEnd
from application.calls import WantedCall
from application.tool_calls import Called
from application.views.invocations import InvocationView
from domain.access import Action
from domain.errors import IdempotencyMismatch, InvalidCommand, RepeatedDifferently, TidelogError
from domain.kernel import Json, Name, Priority

router = APIRouter(tags=["agents and tools"], route_class=DirectRoute)

MOST_CALLS = 100
CallKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY, pattern=r"^[^\x00]+$")]


class CallBody(Body):
    arguments: dict[str, Json] = {}
    key: CallKey | None = None
    """A name for the call: the same key again is the same call. A single call may have the header `Idempotency-Key` instead."""
    priority: Priority = "normal"
    timeout_s: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)
    """The limit of one attempt, at most what the tool declares. Null: what the tool declares."""

    cache: bool = True
    """Whether a result of before may answer the call, where the tool keeps results. `Cache-Control: no-cache` says no to all."""


class CallsBody(Body):
    calls: list[CallBody] = Field(min_length=1, max_length=MOST_CALLS)


class CallAccepted(openapi.Shown):
    invocation_id: UUID
    position: int
    version: int
    warning: str | None = None
    """Set for a tool that is deprecated."""


class CallDone(CallAccepted):
    invocation: InvocationView | None = None
    """The call at its end, or at the end of the wait that `Prefer` asked for. Missing without such a wait."""


class CallAnswer(openapi.Shown):
    """One call of a batch: an answer as that of a single call, or a problem."""

    status: int
    """What a single call would have been answered with."""
    invocation_id: UUID | None = None
    position: int | None = None
    version: int | None = None
    warning: str | None = None
    invocation: InvocationView | None = None
    problem: dict[str, Json] | None = None


class CallAnswers(openapi.Shown):
    calls: list[CallAnswer]
    """In the order of the calls in the request."""


@router.post(
    "/v1/tools/{name}/calls",
    status_code=202,
    summary="Call a tool without a run",
    responses={
        201: openapi.gives(CallDone, "Location", "Preference-Applied", *OF_COMMANDS),
        202: openapi.gives(CallAccepted, "Location", "Preference-Applied", *OF_COMMANDS),
    },
    openapi_extra=openapi.body(
        CallBody,
        {"arguments": {"city": "Bergen"}},
        {"arguments": {"to": "ada@example.org"}, "key": "welcome-ada", "timeout_s": 10},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", CAUSED_BY, "Prefer", "Cache-Control", REASON),
    ),
)
@needs(Action.TOOLS_CALL)
async def post_call(request: Request, name: Name) -> Response:
    """The call is durable when the request is answered, and goes on in the background: 202, and `GET` of the `Location` tells what
    became of it. `Prefer: wait=30` waits up to 30 seconds (60 at most) for the outcome: 201 with the call at its end.
    """
    body = await body_of(request, CallBody)
    await find_cause(request)
    [call] = _wanted(request, [body])
    wait_s = wait_seconds(request)
    async with audited(request, Action.TOOLS_CALL, "tool", name) as entry:
        await must_all_know_calls(request)
        wanted = [replace(call[0], request=entry.along(call[0].request))]
        [done] = await _carried_out(request, name, wanted, [call[1]], wait_s)
        if isinstance(done, Exception):
            raise done
    called, view = done
    id, version = called.invocation_id, called.outcome.begun(called.invocation_id)[1]
    headers = {"Location": f"/v1/invocations/{id}"} | ({"Preference-Applied": f"wait={wait_s}"} if wait_s else {})
    return accepted(called.outcome, version, _said(called, view), status=_status(view), headers=headers)


@router.post(
    "/v1/tools/{name}/calls:batch",
    summary="Call a tool many times at once, without a run",
    responses={200: openapi.gives(CallAnswers, POSITION, "Preference-Applied", "Idempotency-Replayed")},
    openapi_extra=openapi.body(
        CallsBody,
        {"calls": [{"arguments": {"city": "Bergen"}}, {"arguments": {"city": "Oslo"}, "key": "oslo"}]},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", CAUSED_BY, "Prefer", "Cache-Control", REASON),
    ),
)
@needs(Action.TOOLS_CALL)
async def post_calls(request: Request, name: Name) -> Response:
    """Up to 100 calls, which are recorded together as far as they fit. Each has an answer of its own, or a problem: one that is
    refused does not keep the others back. `Prefer: wait=30` waits for the outcomes of all.
    """
    body = await body_of(request, CallsBody)
    await find_cause(request)
    calls, wait_s = _wanted(request, body.calls, of_batch=True), wait_seconds(request)
    async with audited(request, Action.TOOLS_CALL, "tool", name, operation="batch") as entry:
        await must_all_know_calls(request)
        wanted = [replace(call, request=entry.along(call.request)) for call, _ in calls]
        found = await _carried_out(request, name, wanted, [key for _, key in calls], wait_s)
    done = [each for each in found if not isinstance(each, Exception)]
    position = max((called.outcome.position for called, _ in done), default=None)
    headers = {"Preference-Applied": f"wait={wait_s}"} if wait_s else {}
    if len(done) == len(found):
        headers |= replayed(*(called.outcome for called, _ in done))
    told = [_answer_of(request, number, each) for number, each in enumerate(found)]
    return answer({"calls": told}, position=position, headers=headers)


Done = tuple[Called, InvocationView | None]
"""A call that was recorded, and the call after the wait."""


def _wanted(request: Request, bodies: Sequence[CallBody], *, of_batch: bool = False) -> list[tuple[WantedCall, Key | None]]:
    """The calls, each with its idempotency key, if it has one. Raises InvalidCommand."""
    path = request.scope["path"].removesuffix(":batch")
    header = given_key(request) if b"idempotency-key" in request.scope["state"]["headers"] else None
    calls, may_be_old = [], "no-cache" not in header_of(request, b"cache-control").lower()
    for number, body in enumerate(bodies):
        content, key = body.model_copy(update={"key": None}), None
        if body.key is not None:
            if header is not None and not of_batch and body.key != header:
                raise InvalidCommand("`Idempotency-Key` and `key` name the call differently: give one", pointer="/key")
            key = key_named(request, body.key, content, path)
        elif header is not None:
            name, of = (f"{header}:{number}", f"{path}:batch") if of_batch else (header, path)
            key = key_named(request, name, content, of)
        id = uuid7()
        name = body.key or header or str(id)
        call = WantedCall(
            keyed_request(request, key, correlation_id=id, otherwise=id),
            id,
            name,
            body.arguments,
            body.priority,
            body.timeout_s,
            body.cache and may_be_old,
        )
        calls.append((call, key))
    return calls


async def _carried_out(
    request: Request, name: str, wanted: Sequence[WantedCall], keys: Sequence[Key | None], wait_s: int
) -> list[Done | Exception]:
    container, tenant_id = container_of(request), principal_of(request).tenant_id

    def end_of(invocation_id: UUID) -> CallEnd:
        return CallEnd(container.commands, container.reads.invocations, container.live, tenant_id, invocation_id)

    async def shown(called: Called, end: CallEnd | None) -> InvocationView | None:
        """The call after the wait. A repeat has the id of the first request, so its end was not watched."""
        repeated = end is None or called.outcome.duplicate
        if repeated:
            async with end_of(called.invocation_id) as other:
                found = await other.view(wait_s, may_be_over=True)
        else:
            assert end is not None
            found = await end.view(wait_s, may_be_over=False)
        found.value.refer(found.position)
        return found.value

    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(end_of(call.invocation_id)) for call in wanted] if wait_s else []
        answers = await container.workers.client_calls.call_each(tenant_id, name, wanted)
        known = [_mismatch(each, key) for each, key in zip(answers, keys, strict=True)]
        waits = [
            afterwards(container, shown(each, ends[number] if ends else None), what="waiting for a call's end")
            for number, each in enumerate(known)
            if not isinstance(each, Exception) and _is_shown(each, wait_s)
        ]
        views = iter(await asyncio.gather(*waits))
    return [each if isinstance(each, Exception) else (each, next(views) if _is_shown(each, wait_s) else None) for each in known]


def _is_shown(each: Called, wait_s: int) -> bool:
    return wait_s > 0 or each.cached


def _mismatch(each: Called | Exception, key: Key | None) -> Called | Exception:
    if key is not None and isinstance(each, RepeatedDifferently):
        return IdempotencyMismatch("this key was used for another call, or on behalf of another")
    return each


def _status(view: InvocationView | None) -> int:
    return 201 if view is not None and view.status in OVER else 202


def _said(called: Called, view: InvocationView | None) -> dict[str, Any]:
    said: dict[str, Any] = {"invocation_id": str(called.invocation_id)}
    if called.warning is not None:
        said["warning"] = called.warning
    if view is not None:
        said["invocation"] = orjson.Fragment(view.__pydantic_serializer__.to_json(view))
    return said


def _answer_of(request: Request, number: int, each: Done | Exception) -> dict[str, Any]:
    if isinstance(each, Exception):
        if not isinstance(each, TidelogError):
            raise each
        if each.pointer:
            each.pointer = f"/calls/{number}{each.pointer}"
        each.faults = tuple((f"/calls/{number}{place}", text) for place, text in each.faults)
        response = tidelog_problem(dict(request.scope), each)
        return {"status": response.status_code, "problem": orjson.Fragment(response.body)}
    called, view = each
    version = called.outcome.begun(called.invocation_id)[1]
    return {"status": _status(view), **_said(called, view), "position": called.outcome.position, "version": version}
