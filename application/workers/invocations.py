"""Tool calls from the worker's side: the worker claims an attempt before it calls the tool, and reports the outcome."""

from collections.abc import Callable, Sequence
from uuid import UUID

from application.approvals.links import without_links
from application.budgets.books import Books
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.invocations import request_for_invocation
from application.tool_results import ToolResults
from application.workers.claims import claim_name
from domain import invocations, runs
from domain.allowances import CountSpent
from domain.amounts import NOTHING, ONE_CALL, MaxCost
from domain.approvals import CheckOpen
from domain.errors import RunIsPaused, WorkOver
from domain.failures import Failure
from domain.invocations import (
    HELD,
    RECONCILING,
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    Invocation,
    InvocationFailed,
    InvocationFellBack,
    InvocationReconcileRequested,
    InvocationRetryScheduled,
    InvocationSucceeded,
    ReconcileInvocation,
)
from domain.kernel import Command, Json, derive_id


class WorkerInvocations:
    def __init__(self, commands: CommandLoop, results: ToolResults, books: Books) -> None:
        self._commands = commands
        self._results = results
        self._books = books
        self.ended: Callable[[UUID, str, UUID, Failure | None], None] | None = None
        """Is told of each reported call how it ended: tenant, tool, invocation, and the failure, or None for a success."""
        self.told_to_wait: Callable[[UUID, str, float], None] = lambda _tenant, _tool, _seconds: None
        """Called with a tool's tenant and name when the service behind the tool asks for silence, and for how many seconds."""

    async def claim(self, caller: Caller, command: ClaimInvocation, claim: str) -> tuple[Invocation, CommandOutcome]:
        """Records the attempt before the tool is called. `claim`: see `claim_name`.

        Raises:
            NotFound: the tenant has no such invocation.
            WorkOver: the invocation or its run has ended, or the invocation was dispatched again, or belongs to another worker.
        """
        name = claim_name(command.worker_id, command.dispatch, claim)
        request = await request_for_invocation(self._commands, caller, command.invocation_id, name)
        try:
            outcome = await self._commands.execute(request, command, *await self._conditions(caller, command.invocation_id))
        except RunIsPaused:
            if (await self._state(caller, command.invocation_id, fresh=True)).status not in RECONCILING:
                raise
            outcome = await self._commands.execute(request, command)  # asking begins nothing: it ends a call that has begun
        except WorkOver:
            if not await self._cancel_if_over(caller, command.invocation_id):
                raise
            outcome = await self._commands.execute(request, command)  # what becomes of an attempt that was begun before
        state = await self._state(caller, command.invocation_id, fresh=outcome.duplicate)
        if state.status not in HELD or (state.worker_id, state.session_id) != (command.worker_id, command.session_id):
            raise WorkOver(f"the invocation is {state.status}, claimed by {state.worker_id}")
        if command.session_id is not None and state.dispatch != command.dispatch:
            raise WorkOver(f"the claim of dispatch {command.dispatch} lapsed; {state.dispatch} is the newest")
        return state, outcome

    async def _conditions(self, caller: Caller, invocation_id: UUID) -> list[Command]:
        """What must hold when a call is claimed."""
        requested = (await self._state(caller, invocation_id, fresh=False)).requested
        assert requested is not None
        if requested.is_notice:
            return [CheckOpen(approval_id=requested.agent_run_id)]
        return [runs.CheckRun(run_id=requested.run_id)] if requested.needs_run else []

    async def _cancel_if_over(self, caller: Caller, invocation_id: UUID) -> bool:
        """Cancels a call whose run has ended, where the saga has not done so yet: no tool starts for a run that is over.

        Returns whether the run has ended.
        """
        requested = (await self._state(caller, invocation_id, fresh=False)).requested
        assert requested is not None
        if not requested.needs_run:
            return False
        run: runs.Run = (await self._commands.load(runs.DECIDER, caller.tenant_id, requested.run_id)).state
        if run.status in runs.OVER:
            request = caller.reporting(derive_id(invocation_id, "run over"), requested.run_id)
            await self._commands.execute(request, CancelInvocation(invocation_id=invocation_id, reason=f"the run is {run.status}"))
        return run.status in runs.OVER

    async def _state(self, caller: Caller, invocation_id: UUID, *, fresh: bool) -> Invocation:
        state: Invocation = (await self._commands.load(invocations.DECIDER, caller.tenant_id, invocation_id, fresh=fresh)).state
        return state

    async def complete(self, caller: Caller, command: CompleteInvocation) -> CommandOutcome:
        """Records the result, or the failure `InvalidResultError` for a result that does not fit what the tool declares.

        Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently.
        """
        name = f"complete:{command.attempt}"
        fault = await self._fault_of_result(caller, command)
        if await self._is_notice(caller, command.invocation_id):
            command = command.model_copy(update={"result": _of_notice(command.result)})
        if fault is None:
            return await self._report(caller, command, name)
        failed = FailInvocation(
            invocation_id=command.invocation_id, attempt=command.attempt, error=fault, effect="happened", usage=command.usage
        )
        return await self._report(caller, failed, name)

    async def _fault_of_result(self, caller: Caller, command: CompleteInvocation) -> Failure | None:
        """What is wrong with a result, by the schema of the version that was called. None: nothing."""
        loaded = await self._commands.load(invocations.DECIDER, caller.tenant_id, command.invocation_id, fresh=False)
        requested = loaded.state.requested
        if requested is None:
            return None
        faults = await self._results.faults_of(caller.tenant_id, requested, command.result)
        return invalid_result(requested.tool, faults) if faults else None

    async def _is_notice(self, caller: Caller, invocation_id: UUID) -> bool:
        requested = (await self._state(caller, invocation_id, fresh=False)).requested
        return requested is not None and requested.is_notice

    async def fail(self, caller: Caller, command: FailInvocation) -> CommandOutcome:
        """Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        seconds = command.error.retry_after_s if command.error.kind == "rate_limited" else None
        # Before the report: the call may go on with a fallback.
        requested = (await self._state(caller, command.invocation_id, fresh=False)).requested if seconds else None
        if await self._is_notice(caller, command.invocation_id):
            command = command.model_copy(update={"error": command.error.model_validate(without_links(command.error.model_dump()))})
        outcome = await self._report(caller, command, f"fail:{command.attempt}")
        if requested is not None and seconds and not outcome.duplicate:
            self.told_to_wait(caller.tenant_id, requested.tool, seconds)
        return outcome

    async def reconcile(self, caller: Caller, command: ReconcileInvocation) -> CommandOutcome:
        """The answer of the tool's `reconcile` function. Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        return await self._report(caller, command, f"reconcile:{command.attempt}")

    async def _report(
        self, caller: Caller, command: CompleteInvocation | FailInvocation | ReconcileInvocation, name: str
    ) -> CommandOutcome:
        request = await request_for_invocation(self._commands, caller, command.invocation_id, name)
        counted, beside = await self._counted(caller, command)
        outcome = await self._commands.execute(request, command, *counted, beside=beside)
        if self.ended is not None and not outcome.duplicate and not isinstance(command, ReconcileInvocation):
            self._tell(caller.tenant_id, command.invocation_id, outcome)
        return outcome

    async def _counted(
        self, caller: Caller, command: CompleteInvocation | FailInvocation | ReconcileInvocation
    ) -> tuple[Sequence[Command], Sequence[UUID]]:
        """What a call counts that takes an effect back: no budget stops it, so nothing was set aside. And the roots of its budgets,
        with which it takes turns."""
        requested = (await self._state(caller, command.invocation_id, fresh=False)).requested
        if requested is None or requested.asked_by != "compensation" or isinstance(command, ReconcileInvocation):
            return (), ()
        spent = command.usage or NOTHING
        if isinstance(command, CompleteInvocation):
            most = requested.max_cost or MaxCost()
            spent = spent + ONE_CALL if command.usage is not None else most.of_call
        covers = await self._books.of_day(caller.tenant_id, requested.run_id) if spent else ()
        counts = [
            CountSpent(
                allowance_id=ref.allowance_id, root_id=ref.root_id, holder=command.invocation_id, spent=spent, opening=opening
            )
            for ref, opening in covers
            if opening is not None
        ]  # fmt: skip
        return counts, [ref.root_id for ref, _ in covers]

    def _tell(self, tenant_id: UUID, invocation_id: UUID, outcome: CommandOutcome) -> None:
        assert self.ended is not None
        known = self._commands.known(invocations.DECIDER, tenant_id, invocation_id)
        if known is None or known.state.requested is None:
            return
        tool: str = known.state.requested.tool
        for event in outcome.events:
            match event:
                case InvocationSucceeded():
                    self.ended(tenant_id, tool, invocation_id, None)
                case InvocationRetryScheduled() | InvocationFailed():
                    self.ended(tenant_id, tool, invocation_id, event.error)
                case InvocationFellBack():
                    self.ended(tenant_id, event.from_tool, invocation_id, event.error)
                case InvocationReconcileRequested(error=Failure() as error):
                    self.ended(tenant_id, tool, invocation_id, error)


MOST_TOLD = 10


def _of_notice(result: Json) -> Json:
    """What is kept of the answer to a notice: the service may have sent the link back."""
    kept = {name: value for name, value in result.items() if name not in ("body", "headers")} if isinstance(result, dict) else None
    return without_links(kept)


def invalid_result(tool: str, faults: Sequence[tuple[str, str]]) -> Failure:
    """The failure of a call whose result does not fit. Another attempt would not help: what the tool did has been done."""
    told = "; ".join(f"{place or '/'}: {text}" for place, text in faults[:MOST_TOLD])
    more = f"; and {len(faults) - MOST_TOLD} more" if len(faults) > MOST_TOLD else ""
    return Failure(type="InvalidResultError", message=f"the result of tool '{tool}' does not fit its schema: {told}{more}")
