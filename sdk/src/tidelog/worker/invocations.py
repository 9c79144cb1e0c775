"""Runs a tool, whose attempt the server has recorded before it sent the work: call within the time-out, report.

Also asks a tool's `reconcile` function about a call whose effect is in doubt.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from tidelog.blobs import BLOBS, ToolBlobs
from tidelog.calling import is_async, keep_process, stop_task
from tidelog.capture import ensure
from tidelog.causes import CAUSE
from tidelog.crews import CREW, Crew
from tidelog.errors import InvalidRequestError, PermanentError
from tidelog.failures import ErrorReport, report_error, tool_failure
from tidelog.logs import log, log_failure
from tidelog.reconciling import Reconciled
from tidelog.stopped import IN_THE_MIDDLE, ReconcileTimeoutError, ToolCancelledError, ToolTimeoutError
from tidelog.tools import Tool, ToolContext
from tidelog.work_log import WORK_LOG, Log
from tidelog.worker.leases import Loss
from tidelog.worker.outcomes import Outcome, outcome_of
from tidelog.worker.pieces import Piece
from tidelog.worker.protocol import ReconcileWork, ToolWork, WorkerApi
from tidelog.worker.slots import Slot

if TYPE_CHECKING:
    from tidelog.builtin.defined import DefinedTools

logger = logging.getLogger(__name__)


class ToolRunner:
    """Executes tools. One `run` per piece; it is cancelled when the worker shuts down."""

    def __init__(
        self, api: WorkerApi, tools: Mapping[str, Tool[..., Any]], workspace: Path, defined: "DefinedTools | None" = None
    ) -> None:
        """`defined`: carries out tools by the definitions that come with their calls."""
        self._defined = defined
        self._api = api
        self._tools = tools
        self._workspace = workspace

    async def run(self, piece: Piece, slot: Slot, crew: Crew) -> Loss | None:
        """Execute one invocation in the crew; it keeps its slot to the end. Returns None when the outcome is recorded, else why the
        work was given up.

        Raises:
            TidelogAPIError, TidelogConnectionError: reporting failed; see `loss_of`.
        """
        claim = piece.claim
        assert isinstance(claim, ToolWork)
        fields: dict[str, Any] = {
            "run_id": claim.run,
            "invocation_id": claim.work,
            "tool": claim.tool,
            "attempt": claim.attempt,
        }
        if isinstance(claim, ReconcileWork):
            return await self._reconcile(piece, claim, crew, fields)
        if piece.cancelled.done():  # while it waited for a slot
            error = ToolCancelledError("the call was cancelled before the tool was called")
            await self._fail(piece, tool_failure(error), error, fields)
            return None
        log(logger, logging.INFO, "tool_started", **fields)
        try:
            tool = self._tool_of(claim)
        except PermanentError as error:
            await self._fail(piece, tool_failure(error), error, fields)
            return None
        outcome = await self._outcome(piece, claim, tool, crew)
        if piece.lease.lost.done():
            log(logger, logging.INFO, "tool_let_go", reason=piece.lease.lost.result(), **fields)
            return piece.lease.lost.result()
        if outcome.error is not None:
            effect = "unknown" if isinstance(outcome.error, IN_THE_MIDDLE) else None
            await self._fail(piece, tool_failure(outcome.error), outcome.error, fields, effect)
            return None
        try:
            await self._api.complete(piece.ticket, outcome.result, usage=piece.used.said())
        except InvalidRequestError as refusal:
            await self._fail(piece, report_error(refusal, "permanent"), refusal, fields)
            return None
        log(logger, logging.INFO, "tool_completed", **fields)
        return None

    def _tool_of(self, claim: ToolWork) -> Tool[..., Any]:
        """Raises PermanentError for a call of the server's catalogue that this worker cannot carry out."""
        if claim.definition is None or self._defined is None:
            return self._tools[claim.tool]
        return self._defined.tool(claim.tool, claim.definition, idempotent=claim.idempotent, timeout_s=claim.timeout_s)

    async def _outcome(self, piece: Piece, claim: ToolWork, tool: Tool[..., Any], crew: Crew) -> Outcome:
        """The outcome of the call, or of its end before: by the time-out, a cancellation of an async tool, or the loss of the work.
        A sync tool whose call was cancelled is told, and goes on to an outcome of its own."""
        timeout_s = tool.timeout_s if claim.timeout_s is None else claim.timeout_s
        task = asyncio.create_task(self._call(tool, piece, claim, crew), name=f"tool {claim.tool} {claim.work}")
        crew.add_task(task)
        try:
            ends: set[asyncio.Future[Any]] = {task, crew.exited, piece.lease.lost}
            if is_async(tool.function):
                ends.add(piece.cancelled)
            ended, _ = await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            piece.told.set()
            await stop_task(task)
        if not ended:
            late = ToolTimeoutError.after(timeout_s)
            outcome = outcome_of(task, crew, late)
            return outcome if outcome.error is None else Outcome(error=late)
        if piece.cancelled in ended and task not in ended:
            return outcome_of(task, crew, ToolCancelledError("the call was cancelled, and so was the tool"))
        return outcome_of(task, crew, asyncio.CancelledError("the tool cancelled itself"))

    async def _reconcile(self, piece: Piece, claim: ReconcileWork, crew: Crew, fields: Mapping[str, Any]) -> Loss | None:
        """Asks the `reconcile` function. A cancelled call is asked about all the same: somebody wants to know what became of it."""
        tool = self._tools[claim.tool]
        log(logger, logging.INFO, "reconcile_started", **fields)
        timeout_s = tool.reconcile_timeout_s if claim.timeout_s is None else claim.timeout_s
        task = asyncio.create_task(self._ask(tool, piece, claim, crew), name=f"reconcile {claim.tool} {claim.work}")
        crew.add_task(task)
        try:
            ends: set[asyncio.Future[Any]] = {task, crew.exited, piece.lease.lost}
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop_task(task)
        if piece.lease.lost.done():
            return piece.lease.lost.result()
        late = ReconcileTimeoutError.after(timeout_s)
        outcome = outcome_of(task, crew, late)
        answer = outcome.result
        if outcome.error is None and isinstance(answer, Reconciled):
            try:
                await self._api.reconciled(piece.ticket, answer)
            except InvalidRequestError as refusal:
                await self._fail(piece, report_error(refusal, "permanent"), refusal, fields)
                return None
            log(logger, logging.INFO, "reconciled", outcome=answer.outcome, **fields)
            return None
        error = outcome.error or late
        await self._fail(piece, tool_failure(error), error, fields, event="reconcile_failed")
        return None

    async def _ask(self, tool: Tool[..., Any], piece: Piece, claim: ReconcileWork, crew: Crew) -> Any:
        with self._context(piece, claim, crew) as context:
            return await tool.ask(claim.arguments, context)

    async def _call(self, tool: Tool[..., Any], piece: Piece, claim: ToolWork, crew: Crew) -> JsonValue:
        with self._context(piece, claim, crew) as context:
            return await tool.invoke(claim.arguments, context)

    @contextmanager
    def _context(self, piece: Piece, claim: ToolWork, crew: Crew) -> Iterator[ToolContext]:
        """The context of user code that the present task calls."""
        work_log = self._api.log_of(piece.ticket)
        CREW.set(crew)
        WORK_LOG.set(work_log)
        blobs = self._api.blobs_of(piece.ticket)
        BLOBS.set(blobs)
        CAUSE.set(str(claim.work))
        ensure()
        log = Log(work_log, {"run_id": claim.run, "invocation_id": claim.work, "tool": claim.tool, "attempt": claim.attempt})
        with keep_process():
            try:
                yield ToolContext(
                    self._workspace,
                    str(claim.work),
                    claim.attempt,
                    log,
                    piece.told,
                    claim.on_behalf_of,
                    ToolBlobs(blobs),
                    piece.used,
                )
            finally:
                work_log.end()

    async def _fail(
        self, piece: Piece, report: ErrorReport, error: BaseException, fields: Mapping[str, Any], effect: str | None = None,
        event: str = "tool_failed",
    ) -> None:  # fmt: skip
        await self._api.fail(piece.ticket, report, effect, usage=piece.used.said())
        log_failure(logger, event, error, kind=report.kind, **fields)
