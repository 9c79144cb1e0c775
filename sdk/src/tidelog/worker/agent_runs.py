"""Runs an agent: claim, execute with a context backed by the server, report."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from pydantic import JsonValue

from tidelog.agent import Agent
from tidelog.calling import keep_process, stop_task
from tidelog.context import Assignment, Context
from tidelog.crews import CREW, Crew
from tidelog.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermanentError,
    RecipientOverError,
    TidelogAPIError,
    ToolError,
)
from tidelog.failures import ErrorReport, agent_failure, report_error
from tidelog.journal import Journal, JournalUpdate, StateValue
from tidelog.logs import log, log_failure
from tidelog.values import to_json
from tidelog.worker.deliveries import Delivery
from tidelog.worker.leases import Lease, Loss
from tidelog.worker.outcomes import Outcome, outcome_of
from tidelog.worker.protocol import AgentRunClaim, WorkerApi
from tidelog.worker.slots import Slot
from tidelog.worker.tasks import going_on

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 10.0
T = TypeVar("T")

FINISHED = frozenset({"completed", "failed", "cancelled"})


class ServerRecorder:
    """The `Recorder` of an execution whose journal is kept by the server."""

    def __init__(self, api: WorkerApi, lease: Lease, agent_run_id: UUID, attempt: int) -> None:
        self._api = api
        self._lease = lease
        self._id = agent_run_id
        self._attempt = attempt

    async def record_step(self, key: str, result: JsonValue) -> None:
        await self._asked(self._api.record_step(self._id, self._attempt, key, result), f"record step {key!r}")

    async def request_call(self, key: str, tool: str, arguments: dict[str, JsonValue]) -> None:
        try:
            await self._lease.guard(
                self._api.request_call(self._id, self._attempt, key, tool, arguments), NotFoundError, InvalidRequestError
            )
        except NotFoundError as error:
            raise ToolError(error.detail or f"there is no tool {tool!r}", "permanent", tool) from error
        except InvalidRequestError as error:
            raise ToolError(error.reason, "invalid", tool) from error

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID:
        try:
            return await self._asked(self._api.send_message(self._id, self._attempt, key, to, body), f"send to {to!r}")
        except PermanentError as error:
            refusal = error.__cause__
            if isinstance(refusal, ConflictError) and refusal.code == "recipient-over":
                raise RecipientOverError(to, refusal.detail or refusal.title) from refusal
            raise

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        await self._asked(self._api.record_receipt(self._id, self._attempt, key, message_id), f"receive as {key!r}")

    async def read_state(self, key: str, name: str) -> StateValue:
        return await self._asked(self._api.read_state(self._id, self._attempt, key, name), f"read {name!r}")

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        return await self._asked(self._api.write_state(self._id, self._attempt, key, name, value, expect), f"write {name!r}")

    async def poll(self, after_version: int, wait_s: float) -> JournalUpdate:
        update = await self._lease.guard(self._api.poll(self._id, self._attempt, after_version, wait_s))
        if update.status in FINISHED:
            self._lease.give_up("over")
        return update

    async def _asked(self, request: Awaitable[T], what: str) -> T:
        """A refusal for reasons in the request itself becomes the agent's error, with the server's words."""
        try:
            return await self._lease.guard(request, NotFoundError, InvalidRequestError, ConflictError)
        except TidelogAPIError as error:
            raise PermanentError(f"the server refused to {what}: {error.reason}") from error


class AgentRunner:
    """Executes agents. One `run` per delivery; it is cancelled when the worker shuts down."""

    def __init__(self, api: WorkerApi, worker_id: str, agents: Mapping[str, type[Agent]]) -> None:
        self._api = api
        self._worker_id = worker_id
        self._agents = agents

    async def run(self, delivery: Delivery, slot: Slot, crew: Crew) -> Loss | None:
        """Execute one agent run in the crew. Returns None when the outcome is recorded, else why the work was given up.

        Raises:
            TidelogAPIError, TidelogConnectionError: claiming or reporting failed; see `loss_of`.
        """
        work = delivery.work
        claim = await self._api.claim_agent_run(work.work_id, self._worker_id, work.dispatch, delivery.number)
        fields: dict[str, Any] = {
            "run_id": claim.run_id,
            "agent_run_id": claim.agent_run_id,
            "agent": claim.agent,
            "attempt": claim.attempt,
        }
        log(logger, logging.INFO, "agent_run_started", recorded_keys=len(claim.journal), **fields)
        lease = Lease()
        context = self._context(claim, lease, slot)
        task = asyncio.create_task(self._execute(work.pool, context, crew), name=f"execute {claim.agent} {claim.agent_run_id}")
        crew.add_task(task)
        name = f"watch {claim.agent_run_id}"
        watch = asyncio.create_task(going_on(name, lambda: _watch(context)), name=name)
        try:
            either: set[asyncio.Future[Any]] = {task, lease.lost, crew.exited}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop_task(watch)
            await stop_task(task)
            left_open = context.open_calls()
            await context.close()
        if lease.lost.done():
            log(logger, logging.INFO, "agent_run_let_go", reason=lease.lost.result(), **fields)
            return lease.lost.result()
        if left_open:
            hint = "an agent that ends gives up its open calls; await them, or cancel them"
            log(logger, logging.WARNING, "open_calls_given_up", keys=left_open, hint=hint, **fields)
        await self._report(claim, context, outcome_of(task, crew, asyncio.CancelledError("the agent cancelled itself")), fields)
        return None

    def _context(self, claim: AgentRunClaim, lease: Lease, slot: Slot) -> Context:
        recorder = ServerRecorder(self._api, lease, claim.agent_run_id, claim.attempt)
        assignment = Assignment(
            claim.run_id,
            claim.agent_run_id,
            claim.attempt,
            claim.step_key,
            claim.agent,
            claim.input,
            claim.results,
            claim.peers,
            claim.missing,
        )
        return Context(assignment, Journal(claim.version, claim.journal, claim.mailbox), recorder, slot)

    async def _execute(self, pool: str, context: Context, crew: Crew) -> JsonValue:
        CREW.set(crew)
        with keep_process():
            return to_json(await self._agents[pool]().execute(context), "the agent's result")

    async def _report(self, claim: AgentRunClaim, context: Context, outcome: Outcome, fields: Mapping[str, Any]) -> None:
        error = outcome.error
        if error is None:
            unused = context.unused_keys()
            if unused:
                why = "the agent's code was changed between its attempts"
                log(logger, logging.WARNING, "recorded_keys_not_used", count=len(unused), keys=unused[:10], why=why, **fields)
            try:
                await self._api.complete_agent_run(claim.agent_run_id, claim.attempt, outcome.result, unused[:1000])
            except InvalidRequestError as refusal:
                await self._fail(claim, report_error(refusal, "permanent"), refusal, fields)
                return
            log(logger, logging.INFO, "agent_run_completed", **fields)
            return
        await self._fail(claim, agent_failure(error), error, fields)

    async def _fail(self, claim: AgentRunClaim, report: ErrorReport, error: BaseException, fields: Mapping[str, Any]) -> None:
        retried = await self._api.fail_agent_run(claim.agent_run_id, claim.attempt, report)
        log_failure(logger, "agent_run_failed", error, kind=report.kind, retried=retried, **fields)


async def _watch(context: Context) -> None:
    """Learn of a cancellation also while the agent works for long without a request to the server. Runs until cancelled."""
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        await context.refresh()
