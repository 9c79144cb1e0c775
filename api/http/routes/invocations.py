"""Tool calls over HTTP: people list, read and resolve them."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of, seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up, listed_as_of
from api.http.conventions.preferences import wait_seconds
from api.http.conventions.request import caller_of, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.run_contents import ListAsOf
from application.await_calls import CallEnd
from application.engine.ports.pages import MAX_LIMIT, uuid_cursor
from application.invocations import invocation_as_of
from application.invocations import resolve_invocation as resolve
from application.reads import InvocationsWanted, Positioned
from application.views.invocations import InvocationSummary, InvocationView, Status
from domain import invocations as rules
from domain.access import Action
from domain.failures import Failure
from domain.kernel import Json, ShortText

router = APIRouter(tags=["invocations"], route_class=DirectRoute)

Asker = Literal["client", "chain", "compensation"]
CallAsOf = Annotated[str | None, Query(description="A position, or an RFC 3339 time: the call as it was then")]


def _one_outcome(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [one]} for one in ("result", "error", "not_happened")]


class ResolveBody(Body):
    """Exactly one of `result`, `error` and `not_happened` is given. A result may be null."""

    model_config = ConfigDict(json_schema_extra=_one_outcome)

    result: Json = None
    error: Failure | None = None
    not_happened: Literal[True] | None = None
    """The call had no effect: the tool is called again, with the same idempotency key."""
    attempt: int | None = Field(default=None, ge=1)
    """The attempt that is in doubt, as the call shows it. Another one is refused. Null: the newest."""
    reason: rules.Reason
    """How the person knows the outcome, in words."""
    evidence: Json = None
    """The proof of the outcome: a reference, an id, a text."""

    @model_validator(mode="after")
    def _either(self) -> "ResolveBody":
        given = self.model_fields_set & {"result", "error", "not_happened"}
        if len(given) != 1 or (given == {"error"} and self.error is None) or (given == {"not_happened"} and not self.not_happened):
            raise ValueError("give either `result` (it may be null) or `error` or `not_happened`")
        return self


class CancelCallBody(Body):
    reason: ShortText | None = None


class InvocationAccepted(openapi.Shown):
    invocation_id: UUID
    position: int
    version: int


class InvocationPage(BaseModel):
    data: list[InvocationSummary]
    next_cursor: str | None


@router.get(
    "/v1/invocations",
    summary="Tool calls, those of the newest runs first",
    responses={200: openapi.gives(InvocationPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.INVOCATIONS_READ, Reach.LIMITED)
async def get_invocations(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: str | None = None,
    status: Status | None = None,
    run_id: UUID | None = None,
    asked_by: Asker | None = None,
    as_of: ListAsOf = None,
) -> Response:
    """With `status=ambiguous`: the tool calls that wait for a person. With `asked_by=client`: the calls without a run.

    With `as_of`, a page looks at 20,000 calls at most. So a page may have fewer calls than `limit`, or none, and a `next_cursor`.
    """
    reads, tenant_id = container_of(request).reads.invocations, principal_of(request).tenant_id
    within = projects_of(request)
    if run_id is not None and (seen := seen_by(request)) is not None:
        within, run_id = (None, run_id) if await seen.has(run_id) else ((), None)
    wanted = InvocationsWanted(limit, uuid_cursor(cursor), status, run_id, within, asked_by)
    read_models = ("invocations",) if within is None else ("invocations", "runs")
    if as_of is None:
        await caught_up(request, *read_models)
        return page_answer(request, InvocationPage, await reads.list(tenant_id, wanted))
    listed = await listed_as_of(request, read_models, as_of, lambda position: reads.list_as_of(tenant_id, position, wanted))
    return page_answer(request, InvocationPage, listed)


@router.get(
    "/v1/invocations/{invocation_id}",
    summary="A tool call, now or at any position or time",
    responses={200: openapi.gives(InvocationView, POSITION, "ETag", "Preference-Applied")},
    openapi_extra=openapi.takes_headers("Prefer"),
)
@needs(Action.INVOCATIONS_READ, Reach.CALL)
async def get_invocation(request: Request, invocation_id: UUID, as_of: CallAsOf = None) -> Response:
    """The tool call as folded from its events in the log, up to `as_of` if that is given.

    `Prefer: wait=30` waits up to 30 seconds (60 at most) for the outcome of the call, or until it is ambiguous.
    """
    wait_s, applied = 0 if as_of is not None else wait_seconds(request), dict[str, str]()
    if wait_s:
        container, tenant_id = container_of(request), principal_of(request).tenant_id
        async with CallEnd(container.commands, container.reads.invocations, container.live, tenant_id, invocation_id) as end:
            found, applied = await end.view(wait_s, may_be_over=True), {"Preference-Applied": f"wait={wait_s}"}
    else:
        found = await call_of(request, invocation_id, as_of)
    found.value.refer(found.position)
    return answer(found.value, position=found.position, headers={"ETag": f'"v{found.value.version}"', **applied})


async def call_of(request: Request, invocation_id: UUID, as_of: str | None) -> Positioned[InvocationView]:
    """The tool call with its values, and the position of its last event. Raises what `invocation_as_of` raises."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    commands, reads = container.commands, container.reads.invocations
    return await invocation_as_of(commands, reads, container.feed, container.histories, tenant_id, invocation_id, as_of)


@router.post(
    "/v1/invocations/{invocation_id}/resolve",
    summary="Resolve an ambiguous tool call",
    responses={200: openapi.gives(InvocationAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        ResolveBody,
        {"result": {"sent": True}, "reason": "It is in the customer's inbox.", "evidence": "message id 17@mail.example"},
        {"not_happened": True, "attempt": 1, "reason": "The mail server was down all that time."},
        {"error": {"type": "NotSent", "message": "no trace of it"}, "reason": "The log of the mail server does not have it."},
        takes=("Tidelog-On-Behalf-Of",),
    ),
)
@needs(Action.INVOCATIONS_RESOLVE, Reach.CALL)
async def resolve_invocation(request: Request, invocation_id: UUID) -> Response:
    """Records how a tool call ended, as a person has found out.

    The worker of the call vanished after the intent, and the tool may not be called twice. The first resolution counts. The same
    resolution again gets the first answer; another resolution gets 409 `already-resolved`. With `not_happened` the tool is called
    again; a call that was cancelled meanwhile is over instead.
    """
    body, caller = await body_of(request, ResolveBody), caller_of(request)
    command = rules.ResolveInvocation(
        invocation_id=invocation_id,
        result=body.result,
        error=body.error,
        not_happened=bool(body.not_happened),
        attempt=body.attempt,
        by=caller.actor,
        reason=body.reason,
        evidence=body.evidence,
        on_behalf_of=caller.on_behalf_of,
    )
    async with audited(request, Action.INVOCATIONS_RESOLVE, "invocation", invocation_id, reason=body.reason) as entry:
        container = container_of(request)
        outcome = await resolve(container.commands, container.workers.results, caller, command, entry.along)
    return accepted(outcome, outcome.versions[invocation_id], {"invocation_id": str(invocation_id)}, status=200)


@router.post(
    "/v1/invocations/{invocation_id}/cancel",
    status_code=202,
    summary="Cancel a tool call that belongs to no run",
    responses={202: openapi.gives(InvocationAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        CancelCallBody, {"reason": "no longer needed"}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of", REASON)
    ),
)
@needs(Action.INVOCATIONS_CANCEL, Reach.CALL)
async def cancel_invocation(request: Request, invocation_id: UUID) -> Response:
    """A call that waits is over at once. Where an attempt is under way, its tool is told, its outcome is recorded when it comes,
    and the call is not tried again. A call of a run gets 409: its agent waits for it, so the run is cancelled instead.
    """
    body = await body_of(request, CancelCallBody)
    key = key_of(request, body)
    command = rules.CancelInvocation(invocation_id=invocation_id, reason=body.reason, asked_by="client")
    async with audited(request, Action.INVOCATIONS_CANCEL, "invocation", invocation_id, reason=body.reason) as entry:
        with one_content(key):
            along = entry.along(keyed_request(request, key, correlation_id=invocation_id))
            outcome = await container_of(request).commands.execute(along, command)
    return accepted(outcome, outcome.versions[invocation_id], {"invocation_id": str(invocation_id)})
