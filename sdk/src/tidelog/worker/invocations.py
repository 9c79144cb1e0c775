"""Runs a tool: claim (the server records the intent first), call within the time-out, report."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tidelog.calling import keep_process, stop_task
from tidelog.crews import CREW, Crew
from tidelog.errors import InvalidRequestError, TransientError
from tidelog.failures import ErrorReport, report_error, tool_failure
from tidelog.logs import log, log_failure
from tidelog.tools import Tool, ToolContext
from tidelog.worker.deliveries import Delivery
from tidelog.worker.outcomes import outcome_of
from tidelog.worker.protocol import InvocationClaim, WorkerApi
from tidelog.worker.slots import Slot

logger = logging.getLogger(__name__)


class ToolTimeoutError(TransientError):
    """The tool did not finish within its `timeout_s`."""


class ToolRunner:
    """Executes tools. One `run` per delivery; it is cancelled when the worker shuts down."""

    def __init__(self, api: WorkerApi, worker_id: str, tools: Mapping[str, Tool[..., Any]], workspace: Path) -> None:
        self._api = api
        self._worker_id = worker_id
        self._tools = tools
        self._workspace = workspace

    async def run(self, delivery: Delivery, slot: Slot, crew: Crew) -> None:
        """Execute one invocation in the crew; it keeps its slot to the end. Returns when the outcome is recorded.

        Raises:
            TidelogAPIError, TidelogConnectionError: claiming or reporting failed; see `loss_of`.
        """
        work = delivery.work
        claim = await self._api.claim_invocation(work.work_id, self._worker_id, work.dispatch, delivery.number)
        fields: dict[str, Any] = {
            "run_id": claim.run_id,
            "invocation_id": claim.invocation_id,
            "tool": claim.tool,
            "attempt": claim.attempt,
        }
        log(logger, logging.INFO, "tool_started", **fields)
        tool = self._tools[work.pool]
        timeout_s = tool.timeout_s if claim.timeout_s is None else claim.timeout_s
        task = asyncio.create_task(self._call(tool, claim, crew), name=f"tool {claim.tool} {claim.invocation_id}")
        crew.add_task(task)
        try:
            either: set[asyncio.Future[Any]] = {task, crew.exited}
            ended, _ = await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop_task(task)
        given_up = asyncio.CancelledError("the tool cancelled itself") if ended else ToolTimeoutError(
            f"no result within {timeout_s} s. The tool was cancelled; a thread, or code that swallows the cancellation, goes on "
            "and keeps its slot of the worker until its end."
        )  # fmt: skip
        outcome = outcome_of(task, crew, given_up)
        if outcome.error is not None:
            error = outcome.error if ended else given_up
            await self._fail(claim, tool_failure(error), error, fields)
            return
        try:
            await self._api.complete_invocation(claim.invocation_id, claim.attempt, outcome.result)
        except InvalidRequestError as refusal:
            await self._fail(claim, report_error(refusal, "permanent"), refusal, fields)
            return
        log(logger, logging.INFO, "tool_completed", **fields)

    async def _call(self, tool: Tool[..., Any], claim: InvocationClaim, crew: Crew) -> JsonValue:
        CREW.set(crew)
        with keep_process():
            return await tool.invoke(claim.arguments, ToolContext(self._workspace, claim.idempotency_key, claim.attempt))

    async def _fail(self, claim: InvocationClaim, report: ErrorReport, error: BaseException, fields: Mapping[str, Any]) -> None:
        await self._api.fail_invocation(claim.invocation_id, claim.attempt, report)
        log_failure(logger, "tool_failed", error, kind=report.kind, **fields)
