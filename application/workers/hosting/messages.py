"""The messages of a worker's session, as values: what a worker says, and what the server says.

The fields are those of docs/reference/worker-sessions.md. How a message looks on the wire is the entrance's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from application.engine.ports.work_logs import Level
from application.workers.claims import ClaimedAgentRun
from application.workers.journal import JournalView
from application.workers.sessions import ClaimedCall
from domain.access import Action
from domain.agent_runs import LONGEST_WAIT_S, MOST_PROGRESS, MOST_RECEIVES, EntryKey, Fingerprint
from domain.amounts import MOST, Amounts, MoneyText, micros_of
from domain.approval_rules import LONGEST_DEADLINE_S, MOST_APPROVERS, ApproverRole, Default
from domain.context import ValueName
from domain.errors import Forbidden, InvalidCommand, TidelogError
from domain.failures import Failure
from domain.invocations import Found
from domain.kernel import Json, Name, ShortText

VERSION = 1
MAX_OFFERS = 500
"""Agents of a worker, and tools."""
MAX_IN_HAND = 5_000
MAX_ID = 2**53
MAX_LINES = 1_000
"""Lines of one message."""

# --- errors -------------------------------------------------------------------------------------------------------------


class MalformedMessage(TidelogError):
    """The worker does not keep to the protocol. The session ends."""

    code = "malformed-message"


class UnknownMessage(InvalidCommand):
    """The server does not know messages of this type."""

    code = "unknown-message"


class NotYet(InvalidCommand):
    """The type of the message is reserved, and this release has no use for it."""

    code = "not-yet"


class InvalidToken(Forbidden):
    """A report shows a token that is not the one of this work and attempt."""

    code = "invalid-token"


class NoCommonVersion(TidelogError):
    """The worker speaks no version of the protocol that the server speaks."""

    code = "no-common-version"


class TooManySessions(TidelogError):
    """The key or the tenant has as many sessions as it may have."""

    code = "too-many-sessions"
    retryable = True


class TooMuchUnanswered(TidelogError):
    """The worker sends more than the server has answered."""

    code = "too-much-unanswered"
    retryable = True


class SilentWorker(TidelogError):
    """Nothing came from the worker for too long."""

    code = "silent"
    retryable = True


# --- the worker says ----------------------------------------------------------------------------------------------------

Token = Annotated[str, Field(min_length=1, max_length=200)]


class Said(BaseModel):
    """The base of all that a worker says. Unknown fields are ignored: a server may be older than its workers.

    Each message has an `ACTION`, which the role of the worker's key must allow.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class InHand(Said):
    """Work that a worker has when it comes back."""

    work: UUID
    attempt: int = Field(ge=1)
    token: Token
    version: int = Field(default=0, ge=0)
    """Of an agent run: the version up to which the worker has the journal and the mailbox."""


class SlotCounts(Said):
    agent: int = Field(default=0, ge=0, le=100_000)
    tool: int = Field(default=0, ge=0, le=100_000)


class Definitions(Said):
    agents: tuple[Json, ...] = ()
    """Each is checked by itself: a definition that is not valid refuses itself only, and so does one after `MAX_OFFERS` others."""
    tools: tuple[Json, ...] = ()
    problems: tuple[Json, ...] = ()


class Hello(Definitions):
    ACTION: ClassVar = Action.WORKERS_WORK
    t: Literal["hello"]
    versions: tuple[int, ...] = Field(min_length=1, max_length=20)
    worker: Annotated[ShortText, Field(min_length=1)]
    incarnation: UUID
    session: UUID | None = None
    secret: Annotated[str, Field(max_length=200)] | None = None
    release: ShortText = ""
    slots: SlotCounts = SlotCounts()
    serves: tuple[ShortText, ...] = Field(default=(), max_length=20)
    """Kinds of tools that the worker carries out by their definitions, whoever defines one: `http`, `builtin`."""
    work: tuple[InHand, ...] = Field(default=(), max_length=MAX_IN_HAND)


class Define(Definitions):
    ACTION: ClassVar = Action.WORKERS_WORK
    t: Literal["define"]
    id: int = Field(ge=1, le=MAX_ID)


class FreeSlots(SlotCounts):
    ACTION: ClassVar = Action.WORKERS_WORK
    t: Literal["credit"]
    n: int = Field(ge=0, le=MAX_ID)


class LifeSign(Said):
    ACTION: ClassVar = Action.WORKERS_WORK
    t: Literal["beat"] = "beat"


class Leaving(Said):
    ACTION: ClassVar = Action.WORKERS_WORK
    t: Literal["leaving"]


class Report(Said):
    """The base of all that a worker says about one piece of work."""

    ACTION: ClassVar = Action.WORKERS_WORK
    id: int = Field(ge=1, le=MAX_ID)
    work: UUID
    attempt: int = Field(ge=1)
    token: Token


class Record(Report):
    t: Literal["record"]
    key: EntryKey
    kind: Literal["step"] = "step"
    result: Json = None
    fingerprint: Fingerprint | None = None


class Call(Report):
    t: Literal["call"]
    key: EntryKey
    tool: Name
    arguments: dict[str, Json] = {}
    fingerprint: Fingerprint | None = None


class Send(Report):
    t: Literal["send"]
    key: EntryKey
    to: ShortText
    body: Json = None


class Receive(Report):
    t: Literal["receive"]
    key: EntryKey
    message_id: UUID | None = None


class AskedOfPeople(Said):
    """What an agent asks people."""

    title: Annotated[ShortText, Field(min_length=1)]
    details: dict[str, Json] = {}
    roles: tuple[ApproverRole, ...] = Field(default=(), max_length=3)
    """Who may answer. Empty: every role that may decide."""
    approvers: int = Field(default=1, ge=1, le=MOST_APPROVERS)
    four_eyes: bool = False
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_DEADLINE_S)
    default: Default = "deny"
    """What counts after `deadline_s`."""


class BeginWait(Report):
    """The agent waits for a time, for a signal, or for people's answer to a question."""

    t: Literal["wait"]
    key: EntryKey
    kind: Literal["sleep", "signal", "approval"]
    name: ShortText | None = None
    """Of the signal, or of the question."""
    question: AskedOfPeople | None = None
    """Of the kind `approval`, and of no other."""
    s: float | None = Field(default=None, ge=0, le=LONGEST_WAIT_S)
    """Of a sleep: its length. Else: after so many seconds the wait fails."""
    until: datetime | None = None
    fingerprint: Fingerprint | None = None


class BeginChild(Report):
    """The agent starts a run, and waits for its end."""

    t: Literal["child"]
    key: EntryKey
    agent: ShortText | None = None
    workflow: ShortText | None = None
    version: int | None = Field(default=None, ge=1)
    """Of the workflow. Null: the current one."""
    plan: dict[str, Json] | None = None
    """Instead of an agent or a workflow: a plan, of any kind."""
    input: Json = None
    fingerprint: Fingerprint | None = None


class ReceiveLeft(Said):
    """A `receive` that goes on without a worker."""

    key: EntryKey
    s: float | None = Field(default=None, ge=0, le=LONGEST_WAIT_S)
    """After so many seconds it comes back without a message."""
    sender: ShortText | None = None


class Suspend(Report):
    """The agent only waits, and leaves the worker."""

    t: Literal["suspend"]
    seen: int = Field(ge=0)
    receives: tuple[ReceiveLeft, ...] = Field(default=(), max_length=MOST_RECEIVES)


class TellProgress(Report):
    """The agent says how far it is."""

    t: Literal["progress"]
    done: float = Field(ge=0, le=MOST_PROGRESS)
    total: float | None = Field(default=None, gt=0, le=MOST_PROGRESS)
    message: ShortText | None = None


class Get(Report):
    t: Literal["get"]
    key: EntryKey
    name: ValueName


class Set(Report):
    t: Literal["set"]
    key: EntryKey
    name: ValueName
    value: Json = None
    expect: int | None = Field(default=None, ge=0)


class MakeSchedule(Report):
    """Makes a schedule of the agent, or gives it another definition."""

    t: Literal["schedule"]
    key: EntryKey
    name: Annotated[Name, Field(min_length=1)]
    definition: dict[str, Json]
    """The fields of a schedule, `when` and `start` among them. The use case reads them."""
    in_s: float | None = Field(default=None, ge=1, le=100 * 366 * 86_400)
    """Due once, after so many seconds. Instead of `when`."""


class EndSchedule(Report):
    t: Literal["unschedule"]
    key: EntryKey
    name: Annotated[Name, Field(min_length=1)]
    reason: ShortText | None = None


class More(Report):
    t: Literal["more"]
    after: int = Field(default=0, ge=0)
    result: ShortText | None = None
    """The key of a step whose result did not fit into `work`. None: the next page of the journal."""


class Usage(Said):
    """What an attempt of a call has used, as far as the tool knows."""

    money: MoneyText | None = None
    """In the tenant's unit: `0.002`."""
    tokens: int | None = Field(default=None, ge=0, le=MOST)

    def amounts(self) -> Amounts:
        return Amounts(money=0 if self.money is None else micros_of(self.money), tokens=self.tokens or 0)


class Complete(Report):
    t: Literal["complete"]
    result: Json = None
    unused_keys: tuple[ShortText, ...] = Field(default=(), max_length=1000)
    usage: Usage | None = None
    """Of a call. None: its tool's `max_cost` counts."""


class Fail(Report):
    t: Literal["fail"]
    error: Failure
    effect: Literal["unknown"] | None = None
    """Of a call that was stopped in the middle: whether it took effect is unknown."""
    usage: Usage | None = None
    """Of a call."""


class Reconciled(Report):
    """The answer of a tool's `reconcile` function."""

    t: Literal["reconciled"]
    outcome: Found
    result: Json = None
    """Of the call, if it took effect."""


class Return(Report):
    """The worker gives up a piece of work for a reason of its own. The work is dispatched anew."""

    t: Literal["return"]
    reason: ShortText = ""


class LoggedLine(Said):
    at: datetime
    level: Level = "info"
    text: str


class Log(Said):
    """Lines of an agent or a tool. They have no answer."""

    ACTION: ClassVar = Action.WORKERS_WORK
    t: Literal["log"]
    work: UUID
    attempt: int = Field(ge=1)
    token: Token
    lines: tuple[LoggedLine, ...] = Field(default=(), max_length=MAX_LINES)
    dropped: int = Field(default=0, ge=0, le=MAX_ID)
    """Lines of this attempt for which the worker had no room, since its last message."""


RecordedReport = (
    Record
    | Call
    | Send
    | Receive
    | BeginWait
    | BeginChild
    | Suspend
    | TellProgress
    | Get
    | Set
    | MakeSchedule
    | EndSchedule
    | More
    | Complete
    | Fail
    | Reconciled
)
AnyReport = RecordedReport | Return
Saying = Hello | Define | FreeSlots | LifeSign | Leaving | Log | AnyReport
RESERVED = frozenset({"delta", "signal"})


# --- the server says ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a definition. `error`: why it is refused. None: workers get work for it."""

    name: str | None
    version: str | None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    session_id: UUID
    secret: str
    lease_s: float
    agents: Sequence[Verdict]
    tools: Sequence[Verdict]


@dataclass(frozen=True, slots=True)
class Defined:
    id: int
    agents: Sequence[Verdict]
    tools: Sequence[Verdict]


@dataclass(frozen=True, slots=True)
class WorkForAgent:
    n: int
    work_id: UUID
    token: str
    claimed: ClaimedAgentRun


@dataclass(frozen=True, slots=True)
class WorkForTool:
    n: int
    work_id: UUID
    token: str
    claimed: ClaimedCall
    definition: Json = None
    """Of the version that was called, for a worker that carries out tools by their definitions."""


@dataclass(frozen=True, slots=True)
class Done:
    id: int
    fields: dict[str, Json] = field(default_factory=dict)
    page: JournalView | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    id: int
    error: Exception
    """A TidelogError, or a defect."""


@dataclass(frozen=True, slots=True)
class Update:
    """Finished calls and new mail of an agent run."""

    work_id: UUID
    attempt: int
    news: JournalView


StopReason = Literal["cancelled", "timed-out", "lost", "over"]


@dataclass(frozen=True, slots=True)
class Stop:
    work_id: UUID
    attempt: int
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Drain:
    within_s: float


Answer = Welcome | Defined | WorkForAgent | WorkForTool | Done | Refused | Update | Stop | Drain | LifeSign

Ending = Literal["left", "stopping", "malformed", "key", "silent", "too-much", "forbidden", "no-version", "replaced", "unavailable"]
"""Why the server ends a session's connection."""
