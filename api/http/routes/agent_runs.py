"""Agent runs over HTTP, for the workers that run them: claim, journal, call, mail, shared context, report."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import answer, replayed
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.request import caller_of, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.workers import OF_REPORTS, ClaimBody, FailBody, Reported, reported
from application.engine.ports.views import Timestamp
from application.workers.journal import EntryView, JournalView, MailItem
from domain import agent_runs, context
from domain.failures import Failure
from domain.kernel import Json, Name, ShortText, timestamp

router = APIRouter(tags=["workers"], route_class=DirectRoute)

LONGEST_POLL_S = 30.0


class JournalItem(Body):
    key: agent_runs.EntryKey
    kind: Literal["step"] = "step"
    result: Json = None


class JournalBody(Body):
    attempt: int
    entries: tuple[JournalItem, ...] = Field(min_length=1, max_length=100)


class CallBody(Body):
    attempt: int
    key: agent_runs.EntryKey
    tool: Name
    arguments: dict[str, Json] = {}


class MessageBody(Body):
    attempt: int
    key: agent_runs.EntryKey
    to: ShortText
    body: Json = None


class ReceiptBody(Body):
    attempt: int
    key: agent_runs.EntryKey
    message_id: UUID | None = None


class StateBody(Body):
    attempt: int
    key: agent_runs.EntryKey
    op: Literal["get", "set"]
    name: context.ValueName
    value: Json = None
    expect: int | None = Field(default=None, ge=0)


class CompleteBody(Body):
    attempt: int
    result: Json = None
    unused_keys: tuple[ShortText, ...] = Field(default=(), max_length=1000)


class EntryOfJournal(openapi.Shown):
    key: str
    kind: Literal["step", "send", "receive", "state_get", "state_set", "call"]
    status: Literal["ok", "error", "pending"]
    """`pending`: a call without an outcome."""
    result: Json
    error: Failure | None = None
    """Of a call with status `error`. Missing otherwise."""
    invocation_id: UUID | None = None
    """Of a call. Missing otherwise."""


class MailShown(openapi.Shown):
    message_id: UUID
    sender: str
    body: Json
    sent_at: Timestamp


class JournalAnswer(openapi.Shown):
    status: str
    version: int
    journal: list[EntryOfJournal]
    mailbox: list[MailShown]
    """Messages that were not received yet, oldest first."""


class ClaimAnswer(JournalAnswer):
    agent_run_id: UUID
    run_id: UUID
    attempt: int
    """The fencing token: a report with an older attempt is refused."""
    step_key: str
    agent: str
    input: Json
    results: dict[str, Json]
    """Step key → result, of the steps before this one."""
    missing: list[str]
    """Keys of the steps before this one that failed and were tolerated."""
    peers: list[str]


class CallAnswer(Reported):
    invocation_id: UUID


class MessageAnswer(Reported):
    message_id: UUID


class StateAnswer(Reported):
    name: str | None = None
    """Missing in the repeated answer of an earlier release."""
    found: bool
    value: Json
    value_version: int


class FailAnswer(Reported):
    retry: bool
    """Whether the agent run is tried again."""


@router.post(
    "/v1/agent-runs/{agent_run_id}/claim",
    summary="Claim an agent run",
    responses={200: openapi.gives(ClaimAnswer, "Idempotency-Replayed")},
    openapi_extra=openapi.body(ClaimBody),
)
async def claim_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, ClaimBody)
    command = agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id=body.worker_id, dispatch=body.dispatch)
    claimed, outcome = await container_of(request).workers.claims.claim(caller_of(request), command, body.claim())
    return answer(
        {
            "agent_run_id": str(agent_run_id),
            "run_id": str(claimed.run_id),
            "attempt": claimed.attempt,
            "step_key": claimed.step_key,
            "agent": claimed.agent,
            "input": claimed.input,
            "results": claimed.results,
            "missing": claimed.missing,
            "peers": claimed.peers,
            **journal_shown(claimed.journal),
        },
        headers=replayed(outcome),
    )


def journal_shown(view: JournalView) -> dict[str, Any]:
    """A journal, or the news of one, as workers get it."""
    return {
        "status": view.status,
        "version": view.version,
        "journal": [_entry(entry) for entry in view.entries],
        "mailbox": [_mail(mail) for mail in view.mailbox],
    }


def _entry(entry: EntryView) -> dict[str, Any]:
    shown: dict[str, Any] = {"key": entry.key, "kind": entry.kind, "status": entry.status, "result": entry.result}
    if entry.error is not None:
        shown["error"] = entry.error.model_dump()
    if entry.invocation_id is not None:
        shown["invocation_id"] = str(entry.invocation_id)
    return shown


def _mail(mail: MailItem) -> dict[str, Any]:
    return {
        "message_id": str(mail.message_id),
        "sender": mail.sender,
        "body": mail.body,
        "sent_at": timestamp(mail.sent_at),
    }


@router.get(
    "/v1/agent-runs/{agent_run_id}/journal",
    summary="New entries of a journal and a mailbox",
    responses={200: openapi.gives(JournalAnswer)},
)
async def get_journal(
    request: Request,
    agent_run_id: UUID,
    after_version: Annotated[int, Query(ge=0)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=LONGEST_POLL_S)] = 0,
    attempt: int | None = None,
) -> Response:
    """Answers when there are new entries, or when the agent run has ended, or after `wait_s` seconds.

    With `attempt`, a worker that lost its lease gets an error.
    """
    view = await container_of(request).workers.journals.news(
        principal_of(request).tenant_id, agent_run_id, after_version=after_version, attempt=attempt, wait_s=wait_s
    )
    return answer(journal_shown(view))


@router.post(
    "/v1/agent-runs/{agent_run_id}/journal",
    summary="Record finished steps",
    responses={200: openapi.gives(Reported, *OF_REPORTS)},
    openapi_extra=openapi.body(JournalBody),
)
async def post_journal(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, JournalBody)
    steps = [
        agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=body.attempt, key=entry.key, kind=entry.kind, result=entry.result)
        for entry in body.entries
    ]
    outcomes = await container_of(request).workers.journals.record(caller_of(request), agent_run_id, steps)
    version, position = outcomes[-1].versions[agent_run_id], outcomes[-1].position
    return answer({"version": version}, position=position, headers=replayed(*outcomes))


@router.post(
    "/v1/agent-runs/{agent_run_id}/calls",
    summary="Call a tool",
    responses={200: openapi.gives(CallAnswer, *OF_REPORTS)},
    openapi_extra=openapi.body(CallBody),
)
async def post_call(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, CallBody)
    command = agent_runs.StartCall(agent_run_id=agent_run_id, attempt=body.attempt, key=body.key, tool=body.tool)
    invocation_id, outcome = await container_of(request).workers.calls.call(caller_of(request), command, body.arguments)
    return reported(outcome, agent_run_id, {"invocation_id": str(invocation_id)})


@router.post(
    "/v1/agent-runs/{agent_run_id}/messages",
    summary="Send a message",
    responses={200: openapi.gives(MessageAnswer, *OF_REPORTS)},
    openapi_extra=openapi.body(MessageBody),
)
async def post_message(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, MessageBody)
    message_id, outcome = await container_of(request).workers.mail.send(
        caller_of(request), agent_run_id=agent_run_id, attempt=body.attempt, key=body.key, to=body.to, body=body.body
    )
    return reported(outcome, agent_run_id, {"message_id": str(message_id)})


@router.post(
    "/v1/agent-runs/{agent_run_id}/receipts",
    summary="Receive mail",
    responses={200: openapi.gives(Reported, *OF_REPORTS)},
    openapi_extra=openapi.body(ReceiptBody),
)
async def post_receipt(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, ReceiptBody)
    receive = agent_runs.ReceiveMail(agent_run_id=agent_run_id, attempt=body.attempt, key=body.key, message_id=body.message_id)
    return reported(await container_of(request).workers.mail.receive(caller_of(request), receive), agent_run_id)


@router.post(
    "/v1/agent-runs/{agent_run_id}/state",
    summary="Shared context of the run",
    responses={200: openapi.gives(StateAnswer, *OF_REPORTS)},
    openapi_extra=openapi.body(StateBody),
)
async def post_state(request: Request, agent_run_id: UUID) -> Response:
    body, caller, shared = await body_of(request, StateBody), caller_of(request), container_of(request).workers.context
    where: dict[str, Any] = {"agent_run_id": agent_run_id, "attempt": body.attempt, "key": body.key, "name": body.name}
    if body.op == "get":
        recorded, outcome = await shared.get(caller, **where)
    else:
        recorded, outcome = await shared.set(caller, **where, value=body.value, expect=body.expect)
    return reported(outcome, agent_run_id, recorded)


@router.post(
    "/v1/agent-runs/{agent_run_id}/complete",
    summary="Report a result",
    responses={200: openapi.gives(Reported, *OF_REPORTS)},
    openapi_extra=openapi.body(CompleteBody),
)
async def complete_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, CompleteBody)
    command = agent_runs.CompleteAgentRun(
        agent_run_id=agent_run_id, attempt=body.attempt, result=body.result, unused_keys=body.unused_keys
    )
    return reported(await container_of(request).workers.outcomes.complete(caller_of(request), command), agent_run_id)


@router.post(
    "/v1/agent-runs/{agent_run_id}/fail",
    summary="Report a failure",
    responses={200: openapi.gives(FailAnswer, *OF_REPORTS)},
    openapi_extra=openapi.body(FailBody),
)
async def fail_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, FailBody)
    command = agent_runs.FailAgentRun(agent_run_id=agent_run_id, attempt=body.attempt, error=body.error)
    outcome, retry = await container_of(request).workers.outcomes.fail(caller_of(request), command)
    return reported(outcome, agent_run_id, {"retry": retry})
