"""The results of the client: typed, tolerant of fields that a newer server adds."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from tidelog.run_models import (
    FINISHED as FINISHED,
)
from tidelog.run_models import Call as Call
from tidelog.run_models import HoldsLarge as HoldsLarge
from tidelog.run_models import JournalEntry as JournalEntry
from tidelog.run_models import LargeValue as LargeValue
from tidelog.run_models import Model as Model
from tidelog.run_models import Origin as Origin
from tidelog.run_models import Parent as Parent
from tidelog.run_models import Part as Part
from tidelog.run_models import Parts as Parts
from tidelog.run_models import Run as Run
from tidelog.run_models import RunCall as RunCall
from tidelog.run_models import RunSummary as RunSummary
from tidelog.run_models import RunWait as RunWait
from tidelog.run_models import Step as Step
from tidelog.run_models import Why as Why
from tidelog.run_models import WorkflowVersion as WorkflowVersion


class StartedRun(Model):
    """The answer to a start or a cancellation.

    `position`: place of its last event in the log. `run`: filled by `start_run(wait_s=...)`.
    """

    run_id: UUID
    position: int
    version: int
    run: Run | None = None


class SentSignal(Model):
    """The answer to a signal. `position`: place of its last event in the log."""

    run_id: UUID
    signal_id: UUID
    position: int
    version: int


class InvocationSummary(Model):
    """A tool call in a list. `status` and `cancel_requested` as of `Call`; `since`: when it got this status.

    `arguments_preview`: the beginning of the arguments, as JSON, of a call in a list that waits for a person. `asked_by`:
    `agent_run`, or `client` for a call without a run. `cached_from`: the call whose result answered this one.
    """

    invocation_id: UUID
    run_id: UUID
    agent_run_id: UUID
    key: str
    tool: str
    status: str
    since: datetime
    attempt: int = 0
    cancel_requested: bool = False
    arguments_preview: str | None = None
    asked_by: str = "agent_run"
    cached_from: UUID | None = None


class Invocation(InvocationSummary, HoldsLarge):
    """A tool call. `error`, `fallback`, `effect` and `resolution` as of `Call`. `reconcile`: what the tool's `reconcile` function
    was asked and said. `fallback_because`: the tool before `fallback`, and its failure. `not_happened`: `{by, reason, evidence,
    at}` of a person who said that an attempt had no effect."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    idempotent: bool = False
    worker_id: str | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    fallback: str | None = None
    fallback_because: str | None = None
    effect: str | None = None
    resolution: dict[str, Any] | None = None
    reconcile: dict[str, Any] | None = None
    not_happened: dict[str, Any] | None = None
    version: int = 0

    @property
    def over(self) -> bool:
        """Whether the call goes on no further by itself. An `ambiguous` one waits for a person."""
        return self.status in ("succeeded", "failed", "cancelled", "ambiguous")


class StartedCall(Model):
    """The answer to a call of a tool without a run. `position`: place of its last event in the log. `warning`: the tool is
    deprecated. `invocation`: filled by `call_tool(wait_s=...)`."""

    invocation_id: UUID
    position: int
    version: int
    warning: str | None = None
    invocation: Invocation | None = None


class ResolvedInvocation(Model):
    """The answer to `resolve` and to `cancel_call`. `position`: place of its last event in the log."""

    invocation_id: UUID
    position: int
    version: int


class Event(Model):
    """A CloudEvent of the log. `position` orders all events of a server; `id`, `<stream id>:<version>`, names this one.

    `cursor`: give it to `Client.events(after=...)` to go on behind this event. The cursor names the history of the log, too, so
    that you learn when the history has ended.
    """

    id: str
    type: str
    source: str
    position: int
    time: datetime
    subject: str | None = None
    data: Any = None
    tenantid: str | None = None
    actor: str | None = None
    """Who asked: `key:<key id>`, `saga:<name>`, `timer`, `system`."""
    onbehalfof: str | None = None
    """For whom the actor asked, as the actor said."""
    correlationid: str | None = None
    causationid: str | None = None
    streamversion: int | None = None
    rootid: str | None = None
    cursor: str | None = Field(default=None, exclude=True)

    @property
    def history(self) -> str | None:
        """Id of the history of the log in which the event was read; None from a server that knows no histories."""
        parts = (self.cursor or "").split("-")
        return parts[1] if len(parts) > 1 else None


class AgentMessage(HoldsLarge):
    """A message from one agent of a run to another. `status`: sent, delivered, received or refused."""

    message_id: UUID
    sender: str
    recipient: str
    body: Any = None
    status: str = "sent"
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    received_at: datetime | None = None
    unreadable: bool = False


class LoggedLine(Model):
    """A line that an agent or a tool of a run has logged. `line`: its number within the run; None for the last line of the server,
    which says in `dropped` how many lines are missing. `at`: by the clock of the worker. `tool`, `invocation_id`: of a tool's line.
    """

    line: int | None = None
    at: datetime
    level: str
    step: str | None = None
    agent: str | None = None
    tool: str | None = None
    invocation_id: UUID | None = None
    attempt: int | None = None
    text: str
    dropped: int | None = None


class AgentInfo(Model):
    """An agent that the server knows."""

    name: str
    version: str | None = None
    description: str = ""
    capabilities: tuple[str, ...] = ()
    workers: int | None = None
    """Number of workers that have it. None: the server does not say."""
    unreadable: bool = False


class ToolVersion(Model):
    """What a version of a tool declares. `parameters`, `result`: JSON Schemas."""

    name: str
    version: str | None = None
    description: str = ""
    capabilities: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    kind: str = "python"
    result: Any = None
    examples: tuple[Any, ...] = ()
    needs_tools: tuple[str, ...] = ()
    needs_services: tuple[str, ...] = ()
    untrusted_output: bool = False
    reconcile_timeout_s: float | None = None
    """The limit of the tool's `reconcile` function. None: it has none."""
    request: Any = None
    """The HTTP request of a tool of the kind `http`."""
    builtin: str | None = None
    chain: Any = None
    """The steps of a tool of the kind `chain`."""
    pinned: bool = False
    """Another declaration of the version is refused. False: the declaration follows the code of the workers."""
    policy: dict[str, Any] | None = None
    """What it declares about its calls: breaker, limits, fallbacks, compensation, cache. None: nothing."""
    unreadable: bool = False


class Deprecation(Model):
    since: datetime
    replaced_by: str | None = None
    note: str | None = None


class LimitsInUse(Model):
    """How far the limits of a tool's calls are used, over all workers."""

    in_use: int = 0
    held: int = 0
    """Permits that processes of the server hold, for calls that go on and for calls to come."""
    waiting: int = 0
    """Calls at hand that wait for a permit. More may wait in the queue."""
    waiting_since: datetime | None = None
    tokens: float | None = None
    """Calls that may begin at this moment. None: there is no rate."""
    held_until: datetime | None = None
    """Until when no call begins, because the service behind the tool asked for silence."""


class ToolInfo(ToolVersion):
    """A tool that the server knows, as its current version declares it."""

    deprecated: Deprecation | None = None
    workers: int | None = None
    """Number of workers that have it. None: the server does not say."""
    limits: LimitsInUse | None = None
    """Of a single tool. None: nothing limits its calls, or no call has met a limit yet."""


class BreakerInfo(Model):
    """The breaker of a tool. `state`: closed, open or half_open. `because`: failures, rate or probe. `forced`: open or closed, if a
    person holds it so (`by`, `on_behalf_of`, `reason`). `counts`: `{calls, failures, in_a_row}`, of one breaker only."""

    tool: str
    state: str
    since: datetime | None = None
    tried_at: datetime | None = None
    """When calls are tried again. None: it is closed, or a person says when."""
    because: str | None = None
    failures: int | None = None
    calls: int | None = None
    error: str | None = None
    forced: str | None = None
    by: str | None = None
    on_behalf_of: str | None = None
    reason: str | None = None
    policy: dict[str, Any] | None = None
    counts: dict[str, int] | None = None


class Misfit(Model):
    """`pointer`: JSON Pointer of a place in what was validated."""

    pointer: str
    detail: str


class Validation(Model):
    valid: bool
    errors: tuple[Misfit, ...] = ()
    warning: str | None = None
    """Set for a tool that is deprecated."""


class Offering(Model):
    """An agent or tool that a worker offers."""

    name: str
    version: str


class WorkerInfo(Model):
    """A worker that has a session at the server. `agent_runs` and `calls`: the work that it has in hand."""

    worker_id: str
    session_id: UUID
    since: datetime
    seen_at: datetime
    release: str
    agents: tuple[Offering, ...] | None
    """None: the server does not know yet."""
    tools: tuple[Offering, ...] | None
    agent_runs: int
    calls: int


class ApiKey(Model):
    """An API key, without its secret. `status`: valid, expired or revoked. `rotated_to`: the key that has taken its place."""

    key_id: UUID
    label: str
    role: str
    status: str
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    rotated_to: UUID | None = None
    revoked_at: datetime | None = None
    revoke_reason: str | None = None
    last_used_at: datetime | None = None
    projects: list[UUID] | None = None
    """The projects to which the key is narrowed. None: it is for the whole tenant."""


class IssuedKey(Model):
    """A new API key. `key` is the key itself, the only copy of it: the server does not have it."""

    key_id: UUID
    key: str = Field(repr=False)


class Project(Model):
    """A project: runs that belong together."""

    project_id: UUID
    name: str
    metadata: dict[str, Any] | None = None
    created_at: datetime | None = None
    unreadable: bool = False


class RunPage(Model):
    """One page of runs. `next_cursor`: give it to `list_runs` for the next page; None: this was the last page."""

    data: tuple[RunSummary, ...]
    next_cursor: str | None = None


class AuditEntry(Model):
    """An entry of the audit trail. `kind`: `action`, or `refusals` for a number of refused requests (`count`)."""

    entry_id: UUID
    position: int
    recorded_at: datetime
    kind: str
    actor: str
    on_behalf_of: str | None = None
    action: str | None = None
    operation: str | None = None
    target_kind: str | None = None
    target_id: str | None = None
    reason: str | None = None
    address: str | None = None
    result: str
    code: str | None = None
    count: int = 1
    since: datetime | None = None
    until: datetime | None = None
    others: bool = False
