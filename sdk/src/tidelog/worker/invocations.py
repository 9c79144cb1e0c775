"""Runs a tool, whose attempt the server has recorded before it sent the work: call within the time-out, report."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tidelog.calling import is_async, keep_process, stop_task
from tidelog.capture import ensure
from tidelog.crews import CREW, Crew
from tidelog.errors import InvalidRequestError, PermanentError, TransientError
from tidelog.failures import ErrorReport, report_error, tool_failure
from tidelog.logs import log, log_failure
from tidelog.tools import Tool, ToolContext
from tidelog.work_log import WORK_LOG, Log
from tidelog.worker.leases import Loss
from tidelog.worker.outcomes import Outcome, outcome_of
from tidelog.worker.pieces import Piece
from tidelog.worker.protocol import ToolWork, WorkerApi
from tidelog.worker.slots import Slot

logger = logging.getLogger(__name__)


class ToolTimeoutError(TransientError):
    """The tool did not finish within its `timeout_s`."""


class ToolCancelledError(PermanentError):
    """The call was cancelled while the tool ran: its agent run, its run or its time is over."""


class ToolRunner:
    """Executes tools. One `run` per piece; it is cancelled when the worker shuts down."""

    def __init__(self, api: WorkerApi, tools: Mapping[str, Tool[..., Any]], workspace: Path) -> None:
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
        if piece.cancelled.done():  # while it waited for a slot
            error = ToolCancelledError("the call was cancelled before the tool was called")
            await self._fail(piece, tool_failure(error), error, fields)
            return None
        log(logger, logging.INFO, "tool_started", **fields)
        outcome = await self._outcome(piece, claim, self._tools[claim.tool], crew)
        if piece.lease.lost.done():
            log(logger, logging.INFO, "tool_let_go", reason=piece.lease.lost.result(), **fields)
            return piece.lease.lost.result()
        if outcome.error is not None:
            await self._fail(piece, tool_failure(outcome.error), outcome.error, fields)
            return None
        try:
            await self._api.complete(piece.ticket, outcome.result)
        except InvalidRequestError as refusal:
            await self._fail(piece, report_error(refusal, "permanent"), refusal, fields)
            return None
        log(logger, logging.INFO, "tool_completed", **fields)
        return None

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
            late = ToolTimeoutError(
                f"no result within {timeout_s} s. The tool was cancelled; a thread, or code that swallows the cancellation, goes "
                "on and keeps its slot of the worker until its end."
            )
            outcome = outcome_of(task, crew, late)
            return outcome if outcome.error is None else Outcome(error=late)
        if piece.cancelled in ended and task not in ended:
            return outcome_of(task, crew, ToolCancelledError("the call was cancelled, and so was the tool"))
        return outcome_of(task, crew, asyncio.CancelledError("the tool cancelled itself"))

    async def _call(self, tool: Tool[..., Any], piece: Piece, claim: ToolWork, crew: Crew) -> JsonValue:
        work_log = self._api.log_of(piece.ticket)
        CREW.set(crew)
        WORK_LOG.set(work_log)
        ensure()
        log = Log(work_log, {"run_id": claim.run, "invocation_id": claim.work, "tool": claim.tool, "attempt": claim.attempt})
        with keep_process():
            context = ToolContext(self._workspace, str(claim.work), claim.attempt, log, piece.told, claim.on_behalf_of)
            try:
                return await tool.invoke(claim.arguments, context)
            finally:
                work_log.end()

    async def _fail(self, piece: Piece, report: ErrorReport, error: BaseException, fields: Mapping[str, Any]) -> None:
        await self._api.fail(piece.ticket, report)
        log_failure(logger, "tool_failed", error, kind=report.kind, **fields)
