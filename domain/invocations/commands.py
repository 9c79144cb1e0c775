"""What sagas, timers, workers and people may ask of an invocation."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from domain.amounts import AllowanceRef, Amounts, MaxCost, Spender
from domain.approval_rules import Demand
from domain.failures import Failure, LapseReason, Retry
from domain.invocations.declared import CallCompensation, FallbackTool
from domain.invocations.events import AskedBy, Found
from domain.kernel import Command, Json, Name, Priority, ShortText, Value

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True, pattern=r"^[^\x00]+$")]
"""Why a person did something, in the person's own words."""


class CachedResult(Value):
    """The result of another call of the same tool with the same arguments."""

    invocation_id: UUID
    result: Json = None


class RequestInvocation(Command):
    invocation_id: UUID
    run_id: UUID
    agent_run_id: UUID
    key: str
    tool: Name
    arguments: dict[str, Json] = {}
    idempotent: bool
    timeout_s: float
    retry: Retry
    priority: Priority = "normal"
    on_behalf_of: str | None = None
    reconcile_timeout_s: float | None = None
    tool_version: ShortText | None = None
    asked_by: AskedBy = "agent_run"
    chain_id: UUID | None = None
    fallbacks: tuple[FallbackTool, ...] = ()
    fallbacks_skipped: dict[str, str] = {}
    compensation: CallCompensation | None = None
    cacheable: bool = False
    cached: CachedResult | None = None
    """The answer, if another call of the same has given it before. No worker is asked then."""
    approval: Demand | None = None
    """What the approval of the call must be. Such a call is held, and never answered from the cache."""
    untrusted: bool = False
    max_cost: MaxCost | None = None
    reserved: Amounts | None = None
    spender: Spender | None = None
    refused: Failure | None = None
    """Why a budget does not let the call begin. The call fails at once."""
    allowances: tuple[AllowanceRef, ...] = ()
    begin_with: int = 0
    """The number of the fallback tool that is called, because a budget has too little for the tool. 0: the tool itself."""
    unpaid: UUID | None = None
    """The question to people for more of a budget, for which the call is held. None: it is not."""


class ClaimInvocation(Command):
    invocation_id: UUID
    worker_id: ShortText
    dispatch: int = Field(ge=1)
    session_id: UUID | None = None
    permit_holder: UUID | None = None


class LapseAttempt(Command):
    """Takes the invocation away from the session that claimed it."""

    invocation_id: UUID
    attempt: int
    reason: LapseReason


class PutOffInvocation(Command):
    """The tool is not called at the moment: another one is called instead, or the same one later."""

    invocation_id: UUID
    dispatch: int
    reason: Literal["breaker_open"] = "breaker_open"
    error: Failure
    """What became of the try, if nobody tries again."""
    wait_s: float | None
    """Seconds until the tool may be called. None: the call keeps its place, unless another tool can be called."""


class CompleteInvocation(Command):
    invocation_id: UUID
    attempt: int
    result: Json = None
    usage: Amounts | None = None
    """What the worker says that the attempt has used. None: it says nothing."""


class FailInvocation(Command):
    """The attempt failed: of the tool, or of its `reconcile` function."""

    invocation_id: UUID
    attempt: int
    error: Failure
    effect: Literal["unknown", "happened"] | None = None
    """`unknown`: the tool was stopped in the middle, so it may have had its effect all the same. `happened`: only its result was
    wrong."""
    usage: Amounts | None = None


class EndInvocation(Command):
    """The chain that carries out the call has ended."""

    invocation_id: UUID
    result: Json = None
    error: Failure | None = None


class ReconcileInvocation(Command):
    """The answer of the tool's `reconcile` function."""

    invocation_id: UUID
    attempt: int
    outcome: Found
    result: Json = None


class GiveUpReconcile(Command):
    """The time of the `reconcile` function is over."""

    invocation_id: UUID
    attempt: int
    """The attempt whose effect is in doubt."""


class ResolveInvocation(Command):
    """A person says what became of an ambiguous invocation: that it had no effect, or an error, or else the result."""

    invocation_id: UUID
    result: Json = None
    error: Failure | None = None
    not_happened: bool = False
    attempt: int | None = None
    """The attempt that the person speaks of. None: the newest."""
    by: str
    reason: Reason
    evidence: Json = None
    on_behalf_of: str | None = None


class RequeueInvocation(Command):
    invocation_id: UUID
    dispatch: int


class PauseInvocation(Command):
    """Keeps a dispatch from workers: the run is paused."""

    invocation_id: UUID
    dispatch: int


class DispatchInvocation(Command):
    """A person wants a call that waits for a worker, or for the delay of a retry, to be dispatched anew."""

    invocation_id: UUID
    by: str
    reason: str
    on_behalf_of: str | None = None


class ChangeInvocationPriority(Command):
    """The priority of the run was changed."""

    invocation_id: UUID
    number: int
    """Of the change of the run."""
    priority: Priority


class UnpauseInvocation(Command):
    """The run goes on: a call that waits for a worker is dispatched anew."""

    invocation_id: UUID


class CompensateInvocation(Command):
    """Takes the effect of the call back, by another call."""

    invocation_id: UUID
    compensation_id: UUID
    """The other call."""


class ReleaseInvocation(Command):
    """The decision that a held call waits for was taken: the call begins."""

    invocation_id: UUID
    approval_id: UUID
    arguments: dict[str, Json] | None = None
    """Other arguments, which the decision names. None: as they are."""


class DenyInvocation(Command):
    """The decision that a held call waits for was taken: the call does not begin, ever."""

    invocation_id: UUID
    approval_id: UUID
    error: Failure


class CancelInvocation(Command):
    invocation_id: UUID
    reason: ShortText | None = None
    asked_by: AskedBy | None = None
    """Only a call that this one asked for is cancelled: who waits for another one's call would wait for ever. None: any call."""


InvocationCommand = (
    RequestInvocation | ClaimInvocation | CompleteInvocation | FailInvocation | EndInvocation | ReconcileInvocation
    | GiveUpReconcile | ResolveInvocation | RequeueInvocation | CancelInvocation | LapseAttempt | PutOffInvocation
    | CompensateInvocation | ReleaseInvocation | DenyInvocation | PauseInvocation | UnpauseInvocation | DispatchInvocation
    | ChangeInvocationPriority
)  # fmt: skip
