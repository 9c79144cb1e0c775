"""The worker's HTTP calls to the server, typed. Each call may be repeated: the server knows it by key and attempt.

A body holds only fields that the server knows: an unknown field is refused.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from uuid_utils.compat import uuid7

from tidelog.agent import AgentDefinition
from tidelog.discovery import Problem
from tidelog.errors import InvalidRequestError, TidelogConnectionError
from tidelog.failures import ErrorReport
from tidelog.journal import JournalEntry, JournalUpdate, Mail, StateValue
from tidelog.tools import ToolDefinition
from tidelog.transport import RetryPolicy, Transport, json_of

PATIENCE = RetryPolicy(max_elapsed_s=600, cap_s=2.0)
"""The worker waits for the end of an outage of the server that is shorter than this, and keeps its work."""
POLL_MARGIN_S = 15.0
MAX_PROBLEMS = 100
"""Problems of one report that the server accepts."""

M = TypeVar("M", bound=BaseModel)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Queue(_Answer):
    """The queue of one agent or tool: a durable consumer of a JetStream stream."""

    kind: Literal["agent", "tool"]
    pool: str
    stream: str
    consumer: str
    log_id: str | None = None
    """Id of the log of this queue; None from an older server."""


class NatsAccess(_Answer):
    url: str
    inbox_prefix: str = "_INBOX"


class Registration(_Answer):
    worker_id: str
    nats: NatsAccess
    queues: tuple[Queue, ...]
    ack_wait_s: float = 10.0


class AgentRunClaim(_Answer):
    agent_run_id: UUID
    run_id: UUID
    attempt: int
    step_key: str
    agent: str
    input: JsonValue = None
    results: dict[str, JsonValue] = {}
    missing: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    journal: tuple[JournalEntry, ...] = ()
    mailbox: tuple[Mail, ...] = ()
    version: int


class InvocationClaim(_Answer):
    invocation_id: UUID
    attempt: int
    tool: str
    arguments: dict[str, JsonValue]
    idempotency_key: str
    timeout_s: float | None = None
    run_id: UUID


class _CallAnswer(_Answer):
    invocation_id: UUID


class _MessageAnswer(_Answer):
    message_id: UUID


class _FailAnswer(_Answer):
    retry: bool = False


class WorkerApi:
    """The calls of the contract between server and workers.

    All raise `TidelogAPIError` (`ConflictError` with code `work-over` or `stale-attempt`: stop working on it; `NotFoundError` from
    a claim: the server does not know the work) and `TidelogConnectionError`; the latter only after `PATIENCE`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def register(
        self,
        worker_id: str,
        agents: Sequence[AgentDefinition],
        tools: Sequence[ToolDefinition],
        retry: RetryPolicy,
        problems: Sequence[Problem] = (),
    ) -> Registration:
        """`problems`: what the worker cannot use of its files; the server shows each report for three minutes."""
        body: dict[str, Any] = {
            "worker_id": worker_id,
            "agents": [agent.model_dump(mode="json", exclude_none=True) for agent in agents],
            "tools": [tool.model_dump(mode="json") for tool in tools],
        }
        if problems:  # a server of before does not know the field
            body["problems"] = [_reported(problem) for problem in problems[:MAX_PROBLEMS]]
        return await self._post("/v1/workers", body, Registration, retry)

    async def claim_agent_run(self, work_id: UUID, worker_id: str, dispatch: int, delivery: int) -> AgentRunClaim:
        body = _claim_body(worker_id, dispatch, delivery)
        return await self._post(f"/v1/agent-runs/{work_id}/claim", body, AgentRunClaim)

    async def record_step(self, agent_run_id: UUID, attempt: int, key: str, result: JsonValue) -> None:
        entries = [{"key": key, "kind": "step", "result": result}]
        await self._post(f"/v1/agent-runs/{agent_run_id}/journal", {"attempt": attempt, "entries": entries}, _Answer)

    async def request_call(self, agent_run_id: UUID, attempt: int, key: str, tool: str, arguments: JsonValue) -> UUID:
        body = {"attempt": attempt, "key": key, "tool": tool, "arguments": arguments}
        return (await self._post(f"/v1/agent-runs/{agent_run_id}/calls", body, _CallAnswer)).invocation_id

    async def send_message(self, agent_run_id: UUID, attempt: int, key: str, to: str, body: JsonValue) -> UUID:
        content = {"attempt": attempt, "key": key, "to": to, "body": body}
        return (await self._post(f"/v1/agent-runs/{agent_run_id}/messages", content, _MessageAnswer)).message_id

    async def record_receipt(self, agent_run_id: UUID, attempt: int, key: str, message_id: UUID | None) -> None:
        body = {"attempt": attempt, "key": key, "message_id": None if message_id is None else str(message_id)}
        await self._post(f"/v1/agent-runs/{agent_run_id}/receipts", body, _Answer)

    async def read_state(self, agent_run_id: UUID, attempt: int, key: str, name: str) -> StateValue:
        body = {"attempt": attempt, "key": key, "op": "get", "name": name}
        return await self._post(f"/v1/agent-runs/{agent_run_id}/state", body, StateValue)

    async def write_state(
        self, agent_run_id: UUID, attempt: int, key: str, name: str, value: JsonValue, expect: int | None
    ) -> StateValue:
        body = {"attempt": attempt, "key": key, "op": "set", "name": name, "value": value}
        if expect is not None:
            body["expect"] = expect
        retry = replace(PATIENCE, conflicts=expect is None)
        return await self._post(f"/v1/agent-runs/{agent_run_id}/state", body, StateValue, retry)

    async def poll(self, agent_run_id: UUID, attempt: int, after_version: int, wait_s: float) -> JournalUpdate:
        params = {"after_version": after_version, "wait_s": wait_s, "attempt": attempt}
        response = await self._transport.request(
            "GET", f"/v1/agent-runs/{agent_run_id}/journal", params=params, retry=PATIENCE, read_timeout_s=wait_s + POLL_MARGIN_S
        )
        return _parse(JournalUpdate, json_of(response))

    async def complete_agent_run(self, agent_run_id: UUID, attempt: int, result: JsonValue, unused_keys: Sequence[str]) -> None:
        body: dict[str, Any] = {"attempt": attempt, "result": result}
        if unused_keys:
            body["unused_keys"] = list(unused_keys)
        await self._post(f"/v1/agent-runs/{agent_run_id}/complete", body, _Answer)

    async def fail_agent_run(self, agent_run_id: UUID, attempt: int, error: ErrorReport) -> bool:
        """Whether the agent run is tried again."""
        return (await self._fail(f"/v1/agent-runs/{agent_run_id}/fail", attempt, error, _FailAnswer)).retry

    async def claim_invocation(self, work_id: UUID, worker_id: str, dispatch: int, delivery: int) -> InvocationClaim:
        body = _claim_body(worker_id, dispatch, delivery)
        return await self._post(f"/v1/invocations/{work_id}/claim", body, InvocationClaim)

    async def complete_invocation(self, invocation_id: UUID, attempt: int, result: JsonValue) -> None:
        await self._post(f"/v1/invocations/{invocation_id}/complete", {"attempt": attempt, "result": result}, _Answer)

    async def fail_invocation(self, invocation_id: UUID, attempt: int, error: ErrorReport) -> None:
        await self._fail(f"/v1/invocations/{invocation_id}/fail", attempt, error, _Answer)

    async def _fail(self, path: str, attempt: int, error: ErrorReport, answer: type[M]) -> M:
        """Report a failure. A server that refuses the report as a whole, as an older one does, gets its core: work that has
        failed must not be executed again because of its report."""
        try:
            return await self._post(path, {"attempt": attempt, "error": error.model_dump(exclude_defaults=True)}, answer)
        except InvalidRequestError:
            return await self._post(path, {"attempt": attempt, "error": error.core().model_dump(exclude_defaults=True)}, answer)

    async def _post(self, path: str, body: Any, answer: type[M], retry: RetryPolicy = PATIENCE) -> M:
        return _parse(answer, json_of(await self._transport.request("POST", path, body=body, retry=retry)))


def _parse(model: type[M], answer: Any) -> M:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise TidelogConnectionError(f"the server's answer is not what this version of the SDK knows: {error}") from error


def _reported(problem: Problem) -> dict[str, str]:
    """With the bounds of the server. PostgreSQL stores no NUL."""
    texts = {"path": str(problem.path)[-500:], "kind": problem.kind, "message": problem.message[:4_000]}
    return {name: text.encode(errors="replace").decode().replace("\0", "?") for name, text in texts.items()}


def _claim_body(worker_id: str, dispatch: int, delivery: int) -> dict[str, Any]:
    """A new claim id for each delivery: a delivery's number repeats after the queue was lost, an id does not."""
    return {"worker_id": worker_id, "dispatch": dispatch, "delivery": delivery, "claim_id": str(uuid7())}
