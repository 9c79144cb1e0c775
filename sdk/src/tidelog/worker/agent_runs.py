"""Runs an agent: execute with a context backed by the server, report."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from pydantic import JsonValue

from tidelog.agent import Agent
from tidelog.blobs import BLOBS
from tidelog.calling import keep_process, stop_task
from tidelog.capture import ensure
from tidelog.causes import CAUSE
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
from tidelog.journal import Child, Journal, JournalUpdate, StateValue, Wait
from tidelog.logs import log, log_failure
from tidelog.progress import Progress
from tidelog.values import to_json
from tidelog.work_log import WORK_LOG, Log, WorkLog
from tidelog.worker.leases import Loss
from tidelog.worker.outcomes import Outcome, outcome_of
from tidelog.worker.pieces import Piece
from tidelog.worker.progressing import Progressing
from tidelog.worker.protocol import AgentWork, WorkerApi
from tidelog.worker.slots import Slot
from tidelog.worker.suspending import SUSPEND_AFTER_S, Suspending

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ServerRecorder:
    """The `Recorder` of an execution whose journal is kept by the server."""

    def __init__(self, api: WorkerApi, piece: Piece) -> None:
        self._api = api
        self._piece = piece
        self._ticket = piece.ticket
        self._lease = piece.lease
        self._run_id = piece.claim.run
        self.progressing = Progressing(api, piece)
        self._warned: set[str] = set()
        """Tools whose warning stands in the log."""

    async def record_step(self, key: str, result: JsonValue, fingerprint: str | None = None) -> None:
        await self._asked(self._api.record_step(self._ticket, key, result, fingerprint), f"record step {key!r}")

    async def start_wait(self, key: str, wait: Wait) -> None:
        await self._asked(self._api.start_wait(self._ticket, key, wait), f"wait as {key!r}")

    async def start_child(self, key: str, child: Child, fingerprint: str) -> None:
        what = f"start a run of {child.name!r}"
        await self._asked(self._api.start_child(self._ticket, key, child, fingerprint), what)

    async def request_call(self, key: str, tool: str, arguments: dict[str, JsonValue], fingerprint: str | None = None) -> None:
        try:
            asked = self._api.request_call(self._ticket, key, tool, arguments, fingerprint)
            called = await self._lease.guard(asked, NotFoundError, InvalidRequestError)
        except NotFoundError as error:
            raise ToolError(error.detail or f"there is no tool {tool!r}", "permanent", tool) from error
        except InvalidRequestError as error:
            raise ToolError(error.reason, "invalid", tool) from error
        if called.warning is not None and tool not in self._warned:
            self._warned.add(tool)
            Log(WORK_LOG.get(), {"run_id": self._run_id}).warning(called.warning)

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID:
        try:
            return await self._asked(self._api.send_message(self._ticket, key, to, body), f"send to {to!r}")
        except PermanentError as error:
            refusal = error.__cause__
            if isinstance(refusal, ConflictError) and refusal.code == "recipient-over":
                raise RecipientOverError(to, refusal.detail or refusal.title) from refusal
            raise

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        await self._asked(self._api.record_receipt(self._ticket, key, message_id), f"receive as {key!r}")

    async def read_state(self, key: str, name: str) -> StateValue:
        return await self._asked(self._api.read_state(self._ticket, key, name), f"read {name!r}")

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        return await self._asked(self._api.write_state(self._ticket, key, name, value, expect), f"write {name!r}")

    async def put_schedule(self, key: str, name: str, definition: dict[str, JsonValue], in_s: float | None) -> JsonValue:
        return await self._asked(self._api.put_schedule(self._ticket, key, name, definition, in_s), f"schedule {name!r}")

    async def remove_schedule(self, key: str, name: str, reason: str | None) -> JsonValue:
        return await self._asked(self._api.remove_schedule(self._ticket, key, name, reason), f"unschedule {name!r}")

    def report_progress(self, progress: Progress) -> None:
        self.progressing.put(progress)

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        self._piece.follow(take)

    async def news(self, after_version: int) -> JournalUpdate:
        return await self._lease.guard(self._api.news(self._ticket, after_version))

    async def _asked(self, request: Awaitable[T], what: str) -> T:
        """A refusal for reasons in the request itself becomes the agent's error, with the server's words."""
        try:
            return await self._lease.guard(request, NotFoundError, InvalidRequestError, ConflictError)
        except TidelogAPIError as error:
            raise PermanentError(f"the server refused to {what}: {error.reason}") from error


class AgentRunner:
    """Executes agents. One `run` per piece; it is cancelled when the worker shuts down."""

    def __init__(self, api: WorkerApi, agents: Mapping[str, type[Agent]], suspend_after_s: float | None = SUSPEND_AFTER_S) -> None:
        """`suspend_after_s`: seconds after which an agent that only waits leaves the worker. None: never."""
        self._api = api
        self._agents = agents
        self._suspend_after_s = suspend_after_s
        self._executing: set[Suspending] = set()

    def drain(self) -> None:
        """The worker stops: what only waits leaves at once, and what begins to wait, too."""
        self._suspend_after_s = None if self._suspend_after_s is None else 0.0
        for suspending in list(self._executing):
            suspending.hurry()

    async def run(self, piece: Piece, slot: Slot, crew: Crew) -> Loss | None:
        """Execute one agent run in the crew. Returns None when the outcome is recorded, else why the work was given up.

        Raises:
            TidelogAPIError, TidelogConnectionError: reporting failed; see `loss_of`.
        """
        claim = piece.claim
        assert isinstance(claim, AgentWork)
        fields: dict[str, Any] = {
            "run_id": claim.run,
            "agent_run_id": claim.work,
            "agent": claim.agent,
            "attempt": claim.attempt,
        }
        work_log = self._api.log_of(piece.ticket)
        recorder = ServerRecorder(self._api, piece)
        context = await self._context(piece, claim, slot, Log(work_log, {**fields, "step": claim.step}), recorder)
        if context is None:
            return piece.lease.lost.result()
        log(logger, logging.INFO, "agent_run_started", recorded_keys=context.recorded, **fields)
        task = asyncio.create_task(self._execute(claim.agent, context, crew, work_log), name=f"execute {claim.agent} {claim.work}")
        crew.add_task(task)
        suspending = Suspending(self._api, piece, context, crew, self._suspend_after_s, recorder.progressing.flush)
        self._executing.add(suspending)
        try:
            either: set[asyncio.Future[Any]] = {task, piece.lease.lost, crew.exited, suspending.left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._executing.discard(suspending)
            await suspending.close()
            ended = task.done()
            await stop_task(task)
            if ended and not piece.lease.lost.done():
                await recorder.progressing.flush()
            await recorder.progressing.close()
            left_open = context.open_calls()
            context.close()
            work_log.end()
        if piece.lease.lost.done():
            log(logger, logging.INFO, "agent_run_let_go", reason=piece.lease.lost.result(), **fields)
            return piece.lease.lost.result()
        if suspending.left.done():
            log(logger, logging.INFO, "agent_run_suspended", waits=suspending.left.result(), **fields)
            return None
        if left_open:
            hint = "an agent that ends gives up its open calls; await them, or cancel them"
            log(logger, logging.WARNING, "open_calls_given_up", keys=left_open, hint=hint, **fields)
        await self._report(piece, context, outcome_of(task, crew, asyncio.CancelledError("the agent cancelled itself")), fields)
        return None

    async def _context(self, piece: Piece, claim: AgentWork, slot: Slot, log: Log, recorder: ServerRecorder) -> Context | None:
        """None: the work was lost while the rest of its journal was read."""
        rest = JournalUpdate(version=claim.version)
        results = claim.results
        if claim.more or claim.later:
            reading = asyncio.create_task(self._rest(piece, claim), name=f"journal {piece.ticket.work}")
            either: set[asyncio.Future[Any]] = {reading, piece.lease.lost}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await stop_task(reading)
            if piece.lease.lost.done():
                return None
            rest, late = reading.result()
            results = {**results, **late}
        assignment = Assignment(
            claim.run,
            claim.work,
            claim.attempt,
            claim.step,
            claim.agent,
            claim.input,
            results,
            claim.peers,
            claim.missing,
            claim.on_behalf_of,
            claim.part,
        )
        journal = Journal(rest.version, claim.journal + rest.journal, claim.mailbox + rest.mailbox, claim.receives)
        return Context(assignment, journal, recorder, slot, log, blobs=self._api.blobs_of(piece.ticket))

    async def _rest(self, piece: Piece, claim: AgentWork) -> tuple[JournalUpdate, dict[str, JsonValue]]:
        """What did not fit into the work's message: pages of the journal, and results of steps before."""
        late = {step: await self._api.result_of(piece.ticket, step) for step in claim.later}
        return (await self._api.news(piece.ticket, claim.version) if claim.more else JournalUpdate(version=claim.version)), late

    async def _execute(self, pool: str, context: Context, crew: Crew, work_log: WorkLog) -> JsonValue:
        CREW.set(crew)
        WORK_LOG.set(work_log)
        BLOBS.set(context.blob.access)
        CAUSE.set(str(context.agent_run_id))
        ensure()
        with keep_process():
            return to_json(await self._agents[pool]().execute(context), "the agent's result")

    async def _report(self, piece: Piece, context: Context, outcome: Outcome, fields: Mapping[str, Any]) -> None:
        error = outcome.error
        if error is None:
            unused = context.unused_keys()
            if unused:
                why = "the agent's code was changed between its attempts"
                log(logger, logging.WARNING, "recorded_keys_not_used", count=len(unused), keys=unused[:10], why=why, **fields)
            try:
                await self._api.complete(piece.ticket, outcome.result, unused[:1000])
            except InvalidRequestError as refusal:
                await self._fail(piece, report_error(refusal, "permanent"), refusal, fields)
                return
            log(logger, logging.INFO, "agent_run_completed", **fields)
            return
        await self._fail(piece, agent_failure(error), error, fields)

    async def _fail(self, piece: Piece, report: ErrorReport, error: BaseException, fields: Mapping[str, Any]) -> None:
        retried = await self._api.fail(piece.ticket, report)
        log_failure(logger, "agent_run_failed", error, kind=report.kind, retried=retried, **fields)
