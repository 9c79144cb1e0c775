"""What happens to an invocation."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.amounts import AllowanceRef, Amounts, MaxCost, Spender
from domain.approval_rules import Demand
from domain.failures import Failure, Retry
from domain.invocations.caching import cache_key
from domain.invocations.declared import CallCompensation, Compensable, FallbackTool
from domain.kernel import Event, Json, Priority, unsaid

AskedBy = Literal["agent_run", "client", "chain", "compensation"]
"""Who asked for a call. `agent_run`: an agent in a run. `client`: somebody without a run. `chain`: a chain of tools.
`compensation`: the engine, to take an effect back."""

Found = Literal["succeeded", "not_happened", "unknown"]
"""What a `reconcile` function found out about an effect."""


class InvocationRequested(Event):
    TOPIC = "invocation.requested"
    VERSION = 3
    run_id: UUID
    """The root: the run, or for a call without a run the call itself."""
    agent_run_id: UUID
    """The stream that asked: an agent run, or what `asked_by` says."""
    key: str
    """The name of the call in that stream."""
    tool: str
    arguments: dict[str, Json]
    idempotent: bool
    timeout_s: float
    retry: Retry
    priority: Priority = "normal"
    """The priority of the run."""
    on_behalf_of: str | None = None
    """For whom the call is: the metadata of all that comes of the call has it, too. None: for nobody."""
    reconcile_timeout_s: float | None = None
    """The limit of one call of the tool's `reconcile` function. None: the tool has no such function."""
    tool_version: str | None = None
    """The version of the tool at the call. None: nobody looked."""
    asked_by: AskedBy = "agent_run"
    chain_id: UUID | None = None
    """The chain of tools that carries out the call. None: a worker does."""
    fallbacks: tuple[FallbackTool, ...] = ()
    """Tools that are called instead, in this order."""
    fallbacks_skipped: dict[str, str] = {}
    """Tool → why it is not among them, although the tool names it."""
    compensation: CallCompensation | None = None
    """How the effect is taken back. None: it cannot be."""
    cacheable: bool = False
    """The result may answer later calls (`ToolPolicy.cache_s`)."""
    cached_from: UUID | None = None
    """The call whose result answers this one, so that no worker is asked. None: the tool is called."""
    approval: Demand | None = Field(default=None, exclude_if=unsaid)
    """What the approval must be without which the tool is not called: the call is held. None: it needs none."""
    untrusted: bool = Field(default=False, exclude_if=unsaid)
    """The output of the tool holds text of strangers: what gets it is tainted."""
    max_cost: MaxCost | None = Field(default=None, exclude_if=unsaid)
    """What a call of the tool costs at most, and what it counts where its worker does not say. None: nothing."""
    reserved: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What is set aside for the call with all its attempts. None: no budget counts it."""
    spender: Spender | None = Field(default=None, exclude_if=unsaid)
    """Who asked. None: the call costs nothing, and no budget counts it."""
    refused: bool = Field(default=False, exclude_if=unsaid)
    """A budget is spent: the tool is not called."""
    allowances: tuple[AllowanceRef, ...] = Field(default=(), exclude_if=unsaid)
    """Of a call without a run: the allowances of which it holds what is set aside. An agent run holds that of its calls."""
    unpaid: UUID | None = Field(default=None, exclude_if=unsaid)
    """A budget has too little, and asks people: the call is held. The question. None: it is paid, or no budget counts it."""

    @property
    def stored_version(self) -> int:
        if self._asks_for_approval:
            return 3
        plain = self.asked_by == "agent_run" and self.chain_id is None
        return 1 if plain and not self.fallbacks and self.compensation is None else 2

    @property
    def _asks_for_approval(self) -> bool:
        """Whether something of the call may need an approval, so that a reader who does not know of approvals must not read it."""
        undo = [self.compensation, *(other.compensation for other in self.fallbacks)]
        asked = self.approval is not None or self.unpaid is not None or any(other.approval is not None for other in self.fallbacks)
        return asked or any(each is not None and each.approval is not None for each in undo)

    @property
    def is_awaited(self) -> bool:
        """Whether the compensation of the run waits for the outcome: the tool, or one that may be called instead, names one."""
        return self.compensation is not None or any(other.compensation is not None for other in self.fallbacks)

    @property
    def cache_key(self) -> UUID | None:
        """Under which the result answers later calls. None: it answers none. A result from the cache does not hold on from then."""
        if not self.cacheable or self.cached_from is not None:
            return None
        return cache_key(self.tool, self.tool_version, self.arguments, self.on_behalf_of)

    @property
    def is_notice(self) -> bool:
        """Whether it tells a person of an approval, which is the stream that asked. Its root is the call itself."""
        return self.asked_by == "client" and self.agent_run_id != self.run_id

    @property
    def needs_run(self) -> bool:
        """Whether the call is for nothing once its run is over."""
        return self.asked_by == "agent_run"


class InvocationRequestedV2(InvocationRequested):
    """A call that needs no approval. Such a call is still stored as version 1 or 2, so that older readers know it."""

    VERSION = 2


class InvocationRequestedV1(InvocationRequested):
    """A call of an agent, without fallbacks and without a compensation. Such a call is still stored as this version, so that older
    readers know it."""

    VERSION = 1


class InvocationHeld(Event):
    """The call must not begin yet. No worker gets it until it is released."""

    TOPIC = "invocation.held"
    run_id: UUID
    why: Literal["approval", "budget"]
    approval_id: UUID
    """The record of the decision that is waited for."""
    tool: str
    """The tool that is to be called: a fallback has an approval of its own."""
    tool_version: str | None = None
    arguments_hash: str
    """SHA-256 of the arguments (`domain.approval_rules.arguments_hash`)."""
    demand: Demand = Demand()
    agent_run_id: UUID
    """The stream that asked for the call."""
    key: str
    asked_by: AskedBy = "agent_run"
    on_behalf_of: str | None = None


class InvocationReleased(Event):
    """The call may begin: with these arguments, and no other ones."""

    TOPIC = "invocation.released"
    run_id: UUID
    approval_id: UUID
    tool: str
    dispatch: int
    arguments: dict[str, Json] | None = None
    """Those that the person has changed them to. None: as they were asked for."""
    chain_id: UUID | None = None
    """The chain that carries out the call. None: a worker does."""
    priority: Priority = "normal"
    """The priority of the run."""


class AttemptStarted(Event):
    """Appended before the tool is called."""

    TOPIC = "invocation.attempt_started"
    attempt: int
    worker_id: str
    dispatch: int
    session_id: UUID | None = None
    """The session that holds the lease. None: the queue of the work keeps the lease."""
    permit_holder: UUID | None = None
    """Whose permit the attempt has. None: the tool has no limit of calls at once."""


class InvocationRetryScheduled(Event):
    TOPIC = "invocation.retry_scheduled"
    attempt: int
    error: Failure
    delay_s: float
    dispatch: int
    usage: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What the worker said that the attempt has used."""


class InvocationRequeued(Event):
    TOPIC = "invocation.requeued"
    run_id: UUID
    tool: str
    dispatch: int
    lapsed: int | None = None
    """The attempt whose claim lapsed. None: the delay of a retry is over, or what `reason` says."""
    reason: str | None = None
    """Why the claim lapsed; `not_happened`: somebody found out that the attempt before had no effect; `unpaused`: the run was
    paused, and goes on; `person`: somebody wanted it; `priority`: the priority of the run was changed."""
    priority: Priority = "normal"
    """The priority of the run."""
    by: str | None = None
    """`person`: the actor of the person's key."""
    because: str | None = None
    """`person`: why, in the person's words."""
    on_behalf_of: str | None = None
    """`person`: for whom the actor asked."""


class InvocationPaused(Event):
    """The run is paused, and no worker has begun the call: none gets it before the run goes on."""

    TOPIC = "invocation.paused"
    dispatch: int
    """What was taken back."""


class InvocationPriorityChanged(Event):
    """The priority of the run was changed. A call that waits for a worker is dispatched anew: `invocation.requeued` follows."""

    TOPIC = "invocation.priority_changed"
    number: int
    """The change of the run."""
    priority: Priority


class InvocationFellBack(Event):
    """Another tool is called instead: the tries of the one before are over, or its breaker is open. No effect is in doubt."""

    TOPIC = "invocation.fell_back"
    VERSION = 2
    run_id: UUID
    from_tool: str
    tool: str
    """The tool that is called from now on."""
    version: str
    number: int
    """Which of the fallbacks of the request it is: 1, 2, …"""
    attempt: int
    """The last attempt with the tool before. 0: there was none."""
    error: Failure
    """Why the tool before is given up."""
    dispatch: int
    priority: Priority = "normal"
    """The priority of the run."""
    held: bool = Field(default=False, exclude_if=unsaid)
    """The tool needs an approval: `invocation.held` follows, and no worker gets the call."""
    usage: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What the worker said that the last attempt has used."""

    @property
    def stored_version(self) -> int:
        return 2 if self.held else 1


class InvocationFellBackV1(InvocationFellBack):
    """The tool needs no approval. It is still stored as this version, so that older readers know it."""

    VERSION = 1


class InvocationSucceeded(Event):
    TOPIC = "invocation.succeeded"
    agent_run_id: UUID
    key: str
    attempt: int
    """0: no worker was asked."""
    result: Json = None
    asked_by: AskedBy = "agent_run"
    compensable: Compensable | None = None
    """None: the tool declares no compensation."""
    cached_from: UUID | None = None
    """The call that gave this result. None: the tool was called."""
    untrusted: bool = Field(default=False, exclude_if=unsaid)
    """What the outcome says holds text of strangers."""
    usage: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What the call has used. None: nobody counts it."""
    spender: Spender | None = Field(default=None, exclude_if=unsaid)
    allowances: tuple[AllowanceRef, ...] = Field(default=(), exclude_if=unsaid)
    """Of a call without a run: the allowances of which it held what was set aside."""


class InvocationFailed(Event):
    TOPIC = "invocation.failed"
    agent_run_id: UUID
    key: str
    attempt: int
    error: Failure
    effect: Literal["unknown", "happened"] | None = None
    """`unknown`: the tool was stopped in the middle, or its workers vanished. `happened`: only its result was wrong. None: the tool
    itself failed."""
    asked_by: AskedBy = "agent_run"
    compensable: Compensable | None = None
    untrusted: bool = Field(default=False, exclude_if=unsaid)
    usage: Amounts | None = Field(default=None, exclude_if=unsaid)
    spender: Spender | None = Field(default=None, exclude_if=unsaid)
    allowances: tuple[AllowanceRef, ...] = Field(default=(), exclude_if=unsaid)


class InvocationBecameAmbiguous(Event):
    """The worker vanished after the intent was recorded. A person must say whether the effect happened, unless the worker comes
    back and reports the outcome first."""

    TOPIC = "invocation.became_ambiguous"
    attempt: int
    worker_id: str
    reason: str | None = None
    """Why the tool's `reconcile` function did not clear it up. None: the tool has no such function."""


class InvocationResolved(Event):
    """A person said what became of an ambiguous invocation."""

    TOPIC = "invocation.resolved"
    agent_run_id: UUID
    key: str
    attempt: int
    outcome: Literal["succeeded", "failed"]
    result: Json = None
    error: Failure | None = None
    by: str
    """The actor of the person's key."""
    reason: str
    evidence: Json = None
    on_behalf_of: str | None = None
    """For whom the actor asked."""
    asked_by: AskedBy = "agent_run"
    compensable: Compensable | None = None
    untrusted: bool = Field(default=False, exclude_if=unsaid)
    usage: Amounts | None = Field(default=None, exclude_if=unsaid)
    spender: Spender | None = Field(default=None, exclude_if=unsaid)
    allowances: tuple[AllowanceRef, ...] = Field(default=(), exclude_if=unsaid)


class InvocationCancelRequested(Event):
    """The invocation was cancelled while an attempt was under way, or while the outcome of the last attempt was unknown."""

    TOPIC = "invocation.cancel_requested"
    attempt: int
    reason: str | None = None


class InvocationCancelled(Event):
    TOPIC = "invocation.cancelled"
    reason: str | None = None
    effect: Literal["unknown"] | None = None
    """`unknown`: the worker of the last attempt vanished. None: no attempt was under way, or the last one had no effect."""
    agent_run_id: UUID | None = None
    """The stream that asked. None: an agent run."""
    key: str | None = None
    asked_by: AskedBy = "agent_run"
    chain_id: UUID | None = None
    """The chain that carried out the call. None: there was none."""
    compensable: Compensable | None = None
    """None: the tool declares no compensation."""
    approval_id: UUID | None = Field(default=None, exclude_if=unsaid)
    """The approval that the call waited for. None: it waited for none."""
    cost: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What counts of what was set aside for the call: nothing, if no attempt can have run. None: no budget counts it."""
    allowances: tuple[AllowanceRef, ...] = Field(default=(), exclude_if=unsaid)


class InvocationNotHappened(Event):
    """A person said that an ambiguous invocation had no effect, so the tool may be called again."""

    TOPIC = "invocation.not_happened"
    attempt: int
    """The attempt that was in doubt."""
    by: str
    """The actor of the person's key."""
    reason: str
    evidence: Json = None
    on_behalf_of: str | None = None
    """For whom the actor asked."""


class InvocationReconcileRequested(Event):
    """Nobody knows whether the attempt had its effect: a worker with the tool is to ask the tool's `reconcile` function."""

    TOPIC = "invocation.reconcile_requested"
    run_id: UUID
    tool: str
    attempt: int
    """The attempt whose effect is in doubt."""
    worker_id: str
    """The worker of that attempt."""
    dispatch: int
    reason: str
    """Why somebody is asked: `lost` or `left` (the worker of the attempt vanished), `reported` (the worker itself does not know);
    for a further request also `unsent`, and `retry` after a failure of the function."""
    lapsed: int | None = None
    """The attempt whose claim lapsed. None: none did."""
    error: Failure | None = None
    """What the worker of the attempt reported, if it did."""
    give_up_s: float | None = None
    """Seconds after which a person is asked instead. None: it is a further request, and the time of the first one counts."""
    priority: Priority = "normal"
    """The priority of the run."""


class InvocationReconcileStarted(Event):
    """A worker asks the tool's `reconcile` function. It takes a number as an attempt does, so that its reports are told apart."""

    TOPIC = "invocation.reconcile_started"
    attempt: int
    worker_id: str
    dispatch: int
    session_id: UUID | None = None


class InvocationReconcileFailed(Event):
    """The `reconcile` function failed. It has no effect, so it is asked again if the failure may pass."""

    TOPIC = "invocation.reconcile_failed"
    attempt: int
    error: Failure
    delay_s: float | None = None
    """Seconds until it is asked again. None: it is not asked again."""
    dispatch: int | None = None


class InvocationReconciled(Event):
    """The tool's `reconcile` function has answered. What follows is the next event."""

    TOPIC = "invocation.reconciled"
    attempt: int
    outcome: Found


class InvocationCompensationRequested(Event):
    """The effect of the call is to be taken back: another tool is called with these arguments."""

    TOPIC = "invocation.compensation_requested"
    run_id: UUID
    compensation_id: UUID
    """The call that takes the effect back."""
    compensation: CallCompensation
    arguments: dict[str, Json]
    priority: Priority = "normal"
    on_behalf_of: str | None = None
    approval: Demand | None = Field(default=None, exclude_if=unsaid)
    """What the approval of the other call must be. None: it needs none."""


class InvocationCompensationRefused(Event):
    """The effect cannot be taken back: there are no arguments for the tool that does so."""

    TOPIC = "invocation.compensation_refused"
    run_id: UUID
    compensation_id: UUID
    error: Failure


InvocationEvent = (
    InvocationRequested | AttemptStarted | InvocationRetryScheduled | InvocationRequeued | InvocationSucceeded
    | InvocationFailed | InvocationBecameAmbiguous | InvocationResolved | InvocationNotHappened | InvocationCancelRequested
    | InvocationCancelled | InvocationFellBack | InvocationReconcileRequested | InvocationReconcileStarted
    | InvocationReconcileFailed | InvocationReconciled | InvocationCompensationRequested | InvocationCompensationRefused
    | InvocationHeld | InvocationReleased | InvocationPaused | InvocationPriorityChanged
)  # fmt: skip


Outcome = InvocationSucceeded | InvocationFailed | InvocationResolved
"""The ends of an invocation that tell the stream that asked how the call ended."""
