"""What workers speak: register, claim, journal, call, report. The contract of the SDK's worker runtime."""

import asyncio
import time
from dataclasses import asdict
from typing import Annotated, Any, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.deps import Body, answer, body_of, command_request, container_of, principal_of, replayed
from api.http.documents import openapi
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.workers import JournalEntry, JournalView, MailItem
from domain import agent_runs, agents, context, invocations, tools
from domain.errors import StaleAttempt, WorkOver
from domain.failures import Failure
from domain.kernel import Json, Name, ShortText, Text, derive_id, timestamp

router = APIRouter(tags=["workers"])

MAX_PENDING = {"agent": 256, "tool": 256}
LONGEST_POLL_S = 30.0


class AgentOffer(Body):
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    input_schema: Json = None
    output_schema: Json = None


class ToolOffer(Body):
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    parameters: dict[str, Json]
    idempotent: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    max_attempts: int = Field(default=3, ge=1, le=20)


class RegisterBody(Body):
    worker_id: ShortText
    agents: tuple[AgentOffer, ...] = Field(default=(), max_length=500)
    tools: tuple[ToolOffer, ...] = Field(default=(), max_length=500)


@router.post("/v1/workers", summary="Register a worker, its agents and its tools", openapi_extra=openapi.body(RegisterBody))
async def register(request: Request) -> Response:
    """Idempotent. Answers with the queues to pull from."""
    body, container, tenant_id = await body_of(request, RegisterBody), container_of(request), principal_of(request).tenant_id
    for i, tool in enumerate(body.tools):
        container.workers.tool_schemas.check(tool.name, tool.parameters, pointer=f"/tools/{i}/parameters")
        await asyncio.sleep(0)  # a schema may take 50 ms to compile: others have their turn in between
    queues = []
    for agent in body.agents:
        command = agents.RegisterAgent(agent_id=agents.agent_id_of(tenant_id, agent.name), **agent.model_dump())
        await container.commands.execute(command_request(request), command)
        queues.append(await container.work_queue.ensure(tenant_id, "agent", agent.name, max_pending=MAX_PENDING["agent"]))
    for tool in body.tools:
        register_tool = tools.RegisterTool(tool_id=tools.tool_id_of(tenant_id, tool.name), **tool.model_dump())
        await container.commands.execute(command_request(request), register_tool)
        queues.append(await container.work_queue.ensure(tenant_id, "tool", tool.name, max_pending=MAX_PENDING["tool"]))
    return answer(
        {
            "worker_id": body.worker_id,
            "nats": asdict(container.nats_access),
            "queues": [asdict(queue) for queue in queues],
            "ack_wait_s": container.work_queue.ack_wait_s,
        }
    )


def reported(outcome: CommandOutcome, stream_id: UUID, body: dict[str, Any] | None = None) -> Response:
    """The answer to what a worker told: the version of its stream."""
    told = {**(body or {}), "version": outcome.versions[stream_id]}
    return answer(told, position=outcome.position, headers=replayed(outcome))


# --- agent runs -------------------------------------------------------------------------------------------------------


class ClaimBody(Body):
    worker_id: ShortText
    dispatch: int = Field(ge=1)
    claim_id: ShortText | None = None
    """Made by the worker for each delivery it picks up: a repeat of the same request is the same claim."""
    delivery: int = Field(default=1, ge=1)
    """Stands in for the claim id of a worker that sends none."""

    def name(self) -> str:
        return f"claim:{self.worker_id}:{self.dispatch}:{self.claim_id or self.delivery}"


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


class FailBody(Body):
    attempt: int
    error: Failure


async def _for_agent_run(request: Request, agent_run_id: UUID, name: str) -> CommandRequest:
    """Metadata of a worker's command; `name` makes a repeat of it the same command."""
    run_id = await container_of(request).workers.run_of(principal_of(request).tenant_id, agent_run_id)
    structlog.contextvars.bind_contextvars(run_id=str(run_id), agent_run_id=str(agent_run_id))
    return command_request(request, correlation_id=run_id, command_id=derive_id(agent_run_id, name))


@router.post("/v1/agent-runs/{agent_run_id}/claim", summary="Claim an agent run", openapi_extra=openapi.body(ClaimBody))
async def claim_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, ClaimBody)
    command = agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id=body.worker_id, dispatch=body.dispatch)
    for_command = await _for_agent_run(request, agent_run_id, body.name())
    claimed = await container_of(request).workers.claim_agent_run(for_command, command)
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
            **_journal(claimed.journal),
        },
        headers=replayed(claimed.outcome),
    )


def _journal(view: JournalView) -> dict[str, Any]:
    return {
        "status": view.status,
        "version": view.version,
        "journal": [_entry(entry) for entry in view.entries],
        "mailbox": [_mail(mail) for mail in view.mailbox],
    }


def _entry(entry: JournalEntry) -> dict[str, Any]:
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


@router.get("/v1/agent-runs/{agent_run_id}/journal", summary="What is new in a journal and a mailbox")
async def get_journal(
    request: Request,
    agent_run_id: UUID,
    after_version: Annotated[int, Query(ge=0)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=LONGEST_POLL_S)] = 0,
    attempt: int | None = None,
) -> Response:
    """Answers when there is something new, or when the agent run has ended, or after `wait_s`.

    With `attempt`, a worker that lost its lease learns it here.
    """
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    deadline = time.monotonic() + wait_s
    with container.live.watch(agent_run_id) as watch:  # all news of a journal and a mailbox are events of the agent run itself
        view = await container.workers.journal(tenant_id, agent_run_id, after_version=after_version)
        while not view.entries and not view.mailbox and view.status == "running" and (left := deadline - time.monotonic()) > 0:
            happened = await watch.next(left)
            view = await container.workers.journal(tenant_id, agent_run_id, after_version=after_version)
            if not happened or container.live.closed:
                break
    if view.status in agent_runs.TERMINAL:
        raise WorkOver(f"the agent run is {view.status}")
    if attempt is not None and attempt != view.attempt:
        raise StaleAttempt(f"attempt {attempt} lost its lease; {view.attempt} is the newest")
    return answer(_journal(view))


@router.post("/v1/agent-runs/{agent_run_id}/journal", summary="Record finished steps", openapi_extra=openapi.body(JournalBody))
async def post_journal(request: Request, agent_run_id: UUID) -> Response:
    body, outcomes = await body_of(request, JournalBody), list[CommandOutcome]()
    for entry in body.entries:
        record = agent_runs.RecordStep(
            agent_run_id=agent_run_id, attempt=body.attempt, key=entry.key, kind=entry.kind, result=entry.result
        )
        for_command = await _for_agent_run(request, agent_run_id, f"step:{body.attempt}:{entry.key}")
        outcomes.append(await container_of(request).commands.execute(for_command, record))
    version, position = outcomes[-1].versions[agent_run_id], outcomes[-1].position
    return answer({"version": version}, position=position, headers=replayed(*outcomes))


@router.post("/v1/agent-runs/{agent_run_id}/calls", summary="Call a tool", openapi_extra=openapi.body(CallBody))
async def post_call(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, CallBody)
    command = agent_runs.StartCall(agent_run_id=agent_run_id, attempt=body.attempt, key=body.key, tool=body.tool)
    for_command = await _for_agent_run(request, agent_run_id, f"call:{body.attempt}:{body.key}")
    invocation_id, outcome = await container_of(request).workers.call_tool(for_command, command, body.arguments)
    return reported(outcome, agent_run_id, {"invocation_id": str(invocation_id)})


@router.post("/v1/agent-runs/{agent_run_id}/messages", summary="Send a message", openapi_extra=openapi.body(MessageBody))
async def post_message(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, MessageBody)
    for_command = await _for_agent_run(request, agent_run_id, f"send:{body.attempt}:{body.key}")
    message_id, outcome = await container_of(request).workers.send_message(
        for_command, agent_run_id=agent_run_id, attempt=body.attempt, key=body.key, to=body.to, body=body.body
    )
    return reported(outcome, agent_run_id, {"message_id": str(message_id)})


@router.post("/v1/agent-runs/{agent_run_id}/receipts", summary="Receive mail", openapi_extra=openapi.body(ReceiptBody))
async def post_receipt(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, ReceiptBody)
    receive = agent_runs.ReceiveMail(agent_run_id=agent_run_id, attempt=body.attempt, key=body.key, message_id=body.message_id)
    for_command = await _for_agent_run(request, agent_run_id, f"receive:{body.attempt}:{body.key}")
    return reported(await container_of(request).commands.execute(for_command, receive), agent_run_id)


@router.post("/v1/agent-runs/{agent_run_id}/state", summary="Shared context of the run", openapi_extra=openapi.body(StateBody))
async def post_state(request: Request, agent_run_id: UUID) -> Response:
    body, workers = await body_of(request, StateBody), container_of(request).workers
    for_command = await _for_agent_run(request, agent_run_id, f"state:{body.attempt}:{body.key}")
    where: dict[str, Any] = {"agent_run_id": agent_run_id, "attempt": body.attempt, "key": body.key, "name": body.name}
    if body.op == "get":
        recorded, outcome = await workers.get_value(for_command, **where)
    else:
        recorded, outcome = await workers.set_value(for_command, **where, value=body.value, expect=body.expect)
    return reported(outcome, agent_run_id, recorded)


@router.post("/v1/agent-runs/{agent_run_id}/complete", summary="Report a result", openapi_extra=openapi.body(CompleteBody))
async def complete_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, CompleteBody)
    command = agent_runs.CompleteAgentRun(
        agent_run_id=agent_run_id, attempt=body.attempt, result=body.result, unused_keys=body.unused_keys
    )
    for_command = await _for_agent_run(request, agent_run_id, f"complete:{body.attempt}")
    return reported(await container_of(request).commands.execute(for_command, command), agent_run_id)


@router.post("/v1/agent-runs/{agent_run_id}/fail", summary="Report a failure", openapi_extra=openapi.body(FailBody))
async def fail_agent_run(request: Request, agent_run_id: UUID) -> Response:
    body = await body_of(request, FailBody)
    command = agent_runs.FailAgentRun(agent_run_id=agent_run_id, attempt=body.attempt, error=body.error)
    for_command = await _for_agent_run(request, agent_run_id, f"fail:{body.attempt}")
    outcome = await container_of(request).commands.execute(for_command, command)
    retry = await container_of(request).workers.is_tried_again(principal_of(request).tenant_id, agent_run_id, body.attempt)
    return reported(outcome, agent_run_id, {"retry": retry})


# --- invocations ------------------------------------------------------------------------------------------------------


class CompleteInvocationBody(Body):
    attempt: int
    result: Json = None


async def for_invocation(request: Request, invocation_id: UUID, name: str) -> CommandRequest:
    """Metadata of a command for an invocation; `name` makes a repeat of it the same command."""
    run_id = await container_of(request).workers.run_of_invocation(principal_of(request).tenant_id, invocation_id)
    structlog.contextvars.bind_contextvars(run_id=str(run_id), invocation_id=str(invocation_id))
    return command_request(request, correlation_id=run_id, command_id=derive_id(invocation_id, name))


@router.post("/v1/invocations/{invocation_id}/claim", summary="Claim a tool call", openapi_extra=openapi.body(ClaimBody))
async def claim_invocation(request: Request, invocation_id: UUID) -> Response:
    body = await body_of(request, ClaimBody)
    command = invocations.ClaimInvocation(invocation_id=invocation_id, worker_id=body.worker_id, dispatch=body.dispatch)
    for_command = await for_invocation(request, invocation_id, body.name())
    invocation, outcome = await container_of(request).workers.claim_invocation(for_command, command)
    assert invocation.requested is not None
    return answer(
        {
            "invocation_id": str(invocation_id),
            "run_id": str(invocation.requested.run_id),
            "attempt": invocation.attempt,
            "tool": invocation.requested.tool,
            "arguments": invocation.requested.arguments,
            "idempotency_key": str(invocation_id),
            "timeout_s": invocation.requested.timeout_s,
        },
        headers=replayed(outcome),
    )


@router.post(
    "/v1/invocations/{invocation_id}/complete",
    summary="Report a tool's result",
    openapi_extra=openapi.body(CompleteInvocationBody),
)
async def complete_invocation(request: Request, invocation_id: UUID) -> Response:
    body = await body_of(request, CompleteInvocationBody)
    command = invocations.CompleteInvocation(invocation_id=invocation_id, attempt=body.attempt, result=body.result)
    return await _report(request, command, f"complete:{body.attempt}")


@router.post("/v1/invocations/{invocation_id}/fail", summary="Report a tool's failure", openapi_extra=openapi.body(FailBody))
async def fail_invocation(request: Request, invocation_id: UUID) -> Response:
    body = await body_of(request, FailBody)
    command = invocations.FailInvocation(invocation_id=invocation_id, attempt=body.attempt, error=body.error)
    return await _report(request, command, f"fail:{body.attempt}")


async def _report(request: Request, command: invocations.CompleteInvocation | invocations.FailInvocation, name: str) -> Response:
    for_command = await for_invocation(request, command.invocation_id, name)
    return reported(await container_of(request).commands.execute(for_command, command), command.invocation_id)
