"""Approvals: one record for each thing that people must agree to before it happens.

The record says what exactly is asked (the tool, its version, a hash of the arguments), who may decide, how many must approve, until
when, and what counts after that. Each word of a person is an event. The word that settles the approval says so, and counts once.
"""

from dataclasses import dataclass
from typing import Literal, assert_never
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.amounts import Amounts, BudgetAnswer, BudgetQuestion
from domain.approval_rules import Default, Demand
from domain.errors import DomainError, InvalidCommand, InvalidState, NotFound, WorkOver
from domain.kernel import Command, Decider, Event, Json, Scheduled, ShortText, replace, same_json, unsaid, unsaid_number
from domain.notices import BoundNotice, notice_call_id

Kind = Literal["call", "budget", "step"]
"""What is asked. `call`: whether a held call may begin. `budget`: whether a budget is raised, for all calls that wait for it.
`step`: a question of an agent."""
Delivery = Literal["delivered", "failed", "cancelled"]
Via = Literal["link"]
Decision = Literal["approve", "deny"]
Outcome = Literal["approved", "denied"]
Status = Literal["absent", "open", "approved", "denied", "withdrawn"]


class AlreadyDecided(DomainError):
    """Somebody has decided before, in another way."""

    code = "already-decided"


class NotAnApprover(DomainError):
    """The key may decide approvals, but not this one."""

    code = "not-an-approver"


class ApprovalRequested(Event):
    TOPIC = "approval.requested"
    kind: Kind = "call"
    run_id: UUID
    """The root: the run, or for a call without a run the call itself."""
    invocation_id: UUID | None = None
    """The call that is held. None: no call is."""
    tool: str
    """The tool that is not called before the approval; of a question its name."""
    tool_version: str | None = None
    arguments_hash: str
    """SHA-256 of the arguments."""
    demand: Demand
    agent_run_id: UUID
    """The stream that asked for the call."""
    key: str
    asked_by: str = "agent_run"
    on_behalf_of: str | None = None
    budget: BudgetQuestion | None = Field(default=None, exclude_if=unsaid)
    """`budget`: what is asked. The call is the first one that waits, and `run_id` the root of the allowance."""
    title: str | None = Field(default=None, exclude_if=unsaid)
    """The question of an agent, in its words. None: it is a call that is asked about."""
    details: dict[str, Json] = Field(default={}, exclude_if=unsaid)
    """What the agent says of its question. `arguments_hash` is of this."""
    reopened: int = Field(default=0, exclude_if=unsaid_number)
    """How often the agent run had been opened again when it asked."""


class Question(BaseModel):
    """The entry in the journal of an agent run that waits for an answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent_run_id: UUID
    key: str
    reopened: int = 0
    by: tuple[str, ...] = ()
    """Whose words have settled it. Empty: nobody's."""


class ApprovalDecided(Event):
    """A word of a person."""

    TOPIC = "approval.decided"
    run_id: UUID
    invocation_id: UUID | None = None
    decision: Decision
    by: str
    """The actor of the person's key."""
    role: str
    """The role of that key."""
    on_behalf_of: str | None = None
    """For whom the actor said it."""
    reason: str | None = None
    arguments: dict[str, Json] | None = None
    """Other arguments, with which the call is approved. None: as they were."""
    arguments_hash: str
    """SHA-256 of the arguments that the word is about."""
    outcome: Outcome | None = None
    """What the approval has come to by this word. None: it is still open."""
    call_with: dict[str, Json] | None = Field(default=None, exclude_if=unsaid)
    """The arguments with which the call begins, where a word has changed them. None: as they were asked for."""
    budget: BudgetAnswer | None = Field(default=None, exclude_if=unsaid)
    """`budget`: how much more there is by this word."""
    via: Via | None = Field(default=None, exclude_if=unsaid)
    """`link`: by the link of a notice. None: with the key itself."""
    question: Question | None = Field(default=None, exclude_if=unsaid)
    """Whose question it answers. None: a call waits for it."""
    notices: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """Calls of notices that are under way: nobody needs to be told any more."""


class ApprovalExpired(Event):
    """Nobody has settled it in time."""

    TOPIC = "approval.expired"
    run_id: UUID
    invocation_id: UUID | None = None
    outcome: Outcome
    budget: BudgetAnswer | None = Field(default=None, exclude_if=unsaid)
    question: Question | None = Field(default=None, exclude_if=unsaid)
    notices: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)


class ApprovalWithdrawn(Event):
    """Nobody needs it any more: the call was cancelled, or no call waits for more of the budget, or the agent has ended."""

    TOPIC = "approval.withdrawn"
    reason: str | None = None
    notices: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)


class NoticePlanned(Event):
    """A notice is sent later, if the approval is still open then."""

    TOPIC = "approval.notice_planned"
    number: int
    """Which of the demand's notices it is: 0, 1, …"""
    after_s: float


class NoticeStarted(Event):
    """A person is told, by the call of a tool."""

    TOPIC = "approval.notice_started"
    number: int
    invocation_id: UUID
    """The call. It is its own root."""
    notice: BoundNotice


class NoticeEnded(Event):
    """What became of a notice. An approval waits for none of them."""

    TOPIC = "approval.notice_ended"
    number: int
    outcome: Delivery
    """`delivered`: the service took it. `cancelled`: the approval was settled before a worker had it."""
    error: str | None = None


ApprovalEvent = (
    ApprovalRequested | ApprovalDecided | ApprovalExpired | ApprovalWithdrawn | NoticePlanned | NoticeStarted | NoticeEnded
)


@dataclass(frozen=True)
class Approval:
    status: Status = "absent"
    requested: ApprovalRequested | None = None
    words: tuple[ApprovalDecided, ...] = ()
    """All of them, in order: as many as approvers are needed, at most."""
    arguments_hash: str = ""
    """Of the arguments that are asked about now."""
    changed: "dict[str, Json] | None" = None
    """Those arguments, where a word has changed them."""
    expired: bool = False
    begun: tuple[int, ...] = ()
    """The notices that were sent, or are being sent, by their numbers."""
    sending: tuple[int, ...] = ()
    """Those whose calls are under way."""

    @property
    def counted(self) -> tuple[ApprovalDecided, ...]:
        """The approvals of the arguments as they are now."""
        return tuple(word for word in self.words if word.decision == "approve" and word.arguments_hash == self.arguments_hash)


class RequestApproval(Command):
    approval_id: UUID
    kind: Kind = "call"
    run_id: UUID
    invocation_id: UUID | None = None
    tool: str
    tool_version: str | None = None
    arguments_hash: str
    demand: Demand
    agent_run_id: UUID
    key: str
    asked_by: str = "agent_run"
    on_behalf_of: str | None = None
    budget: BudgetQuestion | None = None
    title: str | None = None
    details: dict[str, Json] = {}
    reopened: int = 0


class DecideApproval(Command):
    approval_id: UUID
    decision: Decision
    by: str
    role: str
    on_behalf_of: str | None = None
    reason: ShortText | None = None
    arguments: dict[str, Json] | None = None
    """Other arguments. They were checked: they fit the tool, and need no more than this approval."""
    arguments_hash: ShortText | None = None
    """Of the arguments that the person has seen. None: those that were asked for."""
    new_hash: ShortText | None = None
    """Of `arguments`."""
    started_by: tuple[str, ...] = ()
    """Who started the run, and for whom it works: four eyes are not theirs."""
    also: tuple[str, ...] = ()
    """Names of the same person: of the keys before and after `by`, where one was rotated."""
    add: Amounts | None = None
    """How much more of a budget. None: as much as the question says."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.by, *self.also))

    via: Via | None = None
    """`link`: the link counts once, so whoever has said a word says no other one by it."""


class ExpireApproval(Command):
    approval_id: UUID


class WithdrawApproval(Command):
    approval_id: UUID
    reason: ShortText | None = None


class BeginNotice(Command):
    """The time of a notice has come."""

    approval_id: UUID
    number: int


class EndNotice(Command):
    """The call of a notice has ended."""

    approval_id: UUID
    number: int
    outcome: Delivery
    error: str | None = None


class CheckOpen(Command):
    """A worker is about to send a notice. Has no events: the claim holds only while nobody has decided."""

    approval_id: UUID


ApprovalCommand = (
    RequestApproval | DecideApproval | ExpireApproval | WithdrawApproval | BeginNotice | EndNotice | CheckOpen
)  # fmt: skip


def decide(approval: Approval, command: ApprovalCommand) -> list[Event]:
    requested = approval.requested
    if isinstance(command, RequestApproval):
        return [] if requested is not None else _request(command)
    if requested is None:
        if isinstance(command, WithdrawApproval):
            return []
        raise NotFound(f"there is no approval {command.approval_id}")
    match command:
        case DecideApproval():
            return _decide(approval, requested, command)
        case ExpireApproval():
            return _expire(approval, requested, command.approval_id)
        case WithdrawApproval():
            if approval.status != "open":
                return []
            return [ApprovalWithdrawn(reason=command.reason, notices=_under_way(approval, command.approval_id))]
        case BeginNotice():
            return _begin_notice(approval, requested, command)
        case EndNotice():
            if command.number not in approval.sending:
                return []
            return [NoticeEnded(number=command.number, outcome=command.outcome, error=command.error)]
        case CheckOpen():
            if approval.status != "open":
                raise WorkOver("nobody needs to be told any more: " + _told(approval))
            return []
        case _:
            assert_never(command)


def _said(command: RequestApproval) -> dict[str, object]:
    return {name: getattr(command, name) for name in type(command).model_fields if name != "approval_id"}


def _request(command: RequestApproval) -> list[Event]:
    """The approval, and its notices: those of now, and the times of the others."""
    events: list[Event] = [ApprovalRequested(**_said(command))]
    deadline_s = command.demand.deadline_s
    for number, notice in enumerate(command.demand.notices):
        if notice.after_s == 0:
            events += _notice(command.approval_id, number, notice)
        elif deadline_s is None or notice.after_s < deadline_s:
            events.append(NoticePlanned(number=number, after_s=notice.after_s))
    return events


def _begin_notice(approval: Approval, requested: ApprovalRequested, command: BeginNotice) -> list[Event]:
    notices = requested.demand.notices
    if approval.status != "open" or command.number in approval.begun or not 0 <= command.number < len(notices):
        return []
    return _notice(command.approval_id, command.number, notices[command.number])


def _notice(approval_id: UUID, number: int, notice: BoundNotice) -> list[Event]:
    if notice.fault is not None:
        return [NoticeEnded(number=number, outcome="failed", error=notice.fault)]
    return [NoticeStarted(number=number, invocation_id=notice_call_id(approval_id, number), notice=notice)]


def _under_way(approval: Approval, approval_id: UUID) -> tuple[UUID, ...]:
    return tuple(notice_call_id(approval_id, number) for number in approval.sending)


def _question(requested: ApprovalRequested, *by: str) -> Question | None:
    if requested.kind != "step":
        return None
    return Question(agent_run_id=requested.agent_run_id, key=requested.key, reopened=requested.reopened, by=by)


def _decide(approval: Approval, requested: ApprovalRequested, command: DecideApproval) -> list[Event]:
    if _is_repeat(approval, command):
        return []
    if approval.status != "open":
        raise AlreadyDecided(_told(approval))
    if command.via == "link" and any(word.by == command.by for word in approval.words):
        raise AlreadyDecided("you have decided before, and a link counts once")
    _must_be_allowed(requested.demand, command)
    seen = command.arguments_hash or requested.arguments_hash
    if seen != approval.arguments_hash:
        raise InvalidState("the arguments were changed meanwhile: look at the approval again", pointer="/arguments_hash")
    _must_fit(requested, command)
    if command.decision == "deny":
        if command.arguments is not None:
            raise InvalidCommand("arguments go with an approval, not with a denial", pointer="/arguments")
        return [_word(approval, requested, command, approval.arguments_hash, "denied")]
    if command.arguments is not None and requested.kind != "call":
        raise InvalidCommand("a question has no arguments that could be changed", pointer="/arguments")
    changes = command.arguments is not None and command.new_hash != approval.arguments_hash
    if not changes and any(word.by in command.names for word in approval.counted):
        raise AlreadyDecided("you have approved before: another key must approve, too")
    about = command.new_hash if changes and command.new_hash is not None else approval.arguments_hash
    counted = () if changes else approval.counted
    met = requested.demand.met_by([*(word.role for word in counted), command.role])
    changed = command.arguments if changes else approval.changed
    word = _word(approval, requested, command, about, "approved" if met else None)
    return [word.model_copy(update={"arguments": command.arguments if changes else None, "call_with": changed if met else None})]


def _word(
    approval: Approval, requested: ApprovalRequested, command: DecideApproval, about: str, outcome: Outcome | None
) -> ApprovalDecided:
    said = (*(word.by for word in approval.counted), command.by) if outcome == "approved" else (command.by,)
    return ApprovalDecided(
        run_id=requested.run_id,
        invocation_id=requested.invocation_id,
        decision=command.decision,
        by=command.by,
        role=command.role,
        on_behalf_of=command.on_behalf_of,
        reason=command.reason,
        arguments_hash=about,
        outcome=outcome,
        budget=_answer(requested, command.add, given=command.decision == "approve"),
        via=command.via,
        question=None if outcome is None else _question(requested, *said),
        notices=() if outcome is None else _under_way(approval, command.approval_id),
    )


def _answer(requested: ApprovalRequested, add: Amounts | None, *, given: bool) -> BudgetAnswer | None:
    asked = requested.budget
    if asked is None:
        return None
    more = (add or asked.add) if given else Amounts()
    return BudgetAnswer(allowance=asked.allowance, number=asked.number, budget=asked.budget, add=more)


def _must_fit(requested: ApprovalRequested, command: DecideApproval) -> None:
    """Raises InvalidCommand."""
    asked, add = requested.budget, command.add
    if asked is None:
        if add is not None:
            raise InvalidCommand("the approval is of a call: `add` goes with one of a budget", pointer="/add")
        return
    if command.arguments is not None:
        raise InvalidCommand("the approval is of a budget: it changes no arguments", pointer="/arguments")
    if add is None:
        return
    if command.decision == "deny":
        raise InvalidCommand("`add` goes with an approval, not with a denial", pointer="/add")
    if not any(getattr(add, kind) for kind, _ in asked.limits.kinds()):
        kinds = ", ".join(kind for kind, _ in asked.limits.kinds())
        raise InvalidCommand(f"the budget '{asked.budget}' limits {kinds}: give more of that", pointer="/add")


def _is_repeat(approval: Approval, command: DecideApproval) -> bool:
    """Whether the same person has said the same before. A reason may be another one."""
    for word in reversed(approval.words):
        if word.by in command.names and word.on_behalf_of == command.on_behalf_of:
            same = word.decision == command.decision and same_json(word.arguments, command.arguments)
            seen = command.arguments_hash in (None, word.arguments_hash) or word.arguments is not None
            given = command.add is None or (word.budget is not None and command.add == word.budget.add)
            return same and seen and given and (word.outcome is not None or word.arguments_hash == approval.arguments_hash)
    return False


def _must_be_allowed(demand: Demand, command: DecideApproval) -> None:
    """Raises NotAnApprover."""
    if not demand.counts(command.role):
        roles = ", ".join(demand.roles) or "no role"
        raise NotAnApprover(f"a key of the role {command.role} does not decide this approval; roles that may: {roles}")
    if demand.four_eyes and (named := {*command.names, command.on_behalf_of} & set(command.started_by)):
        who = ", ".join(sorted(name for name in named if name is not None))
        raise NotAnApprover(f"four eyes: {who} has started the run, or it works for them, so somebody else decides")


def _told(approval: Approval) -> str:
    if approval.status == "withdrawn":
        return "the approval was withdrawn: nobody waits for it any more"
    if approval.expired:
        return f"nobody decided in time, so it is {approval.status}"
    last = approval.words[-1]
    reason = f" (reason: {last.reason})" if last.reason else ""
    return f"{last.by} has {approval.status} it before{reason}"


def _expire(approval: Approval, requested: ApprovalRequested, approval_id: UUID) -> list[Event]:
    if approval.status != "open":
        return []
    default: Default = requested.demand.default
    outcome: Outcome = "approved" if default == "approve" and approval.changed is None else "denied"
    answer = _answer(requested, None, given=outcome == "approved")
    return [
        ApprovalExpired(
            run_id=requested.run_id, invocation_id=requested.invocation_id, outcome=outcome, budget=answer,
            question=_question(requested), notices=_under_way(approval, approval_id),
        )
    ]  # fmt: skip


def evolve(approval: Approval, event: ApprovalEvent) -> Approval:
    match event:
        case ApprovalRequested():
            return replace(approval, status="open", requested=event, arguments_hash=event.arguments_hash)
        case ApprovalDecided():
            status: Status = event.outcome or "open"
            changed = approval.changed if event.arguments is None else event.arguments
            words = (*approval.words, event)
            return replace(approval, status=status, words=words, arguments_hash=event.arguments_hash, changed=changed)
        case ApprovalExpired():
            return replace(approval, status=event.outcome, expired=True)
        case ApprovalWithdrawn():
            return replace(approval, status="withdrawn")
        case NoticePlanned():
            return approval
        case NoticeStarted():
            return replace(approval, begun=(*approval.begun, event.number), sending=(*approval.sending, event.number))
        case NoticeEnded():
            begun = approval.begun if event.number in approval.begun else (*approval.begun, event.number)
            return replace(approval, begun=begun, sending=tuple(each for each in approval.sending if each != event.number))
        case _:
            assert_never(event)


def scheduled_by(event: Event, approval_id: UUID) -> Scheduled | None:
    """The command that an event of an approval schedules; None for events that schedule nothing."""
    if isinstance(event, ApprovalRequested) and event.demand.deadline_s is not None:
        return Scheduled(event.demand.deadline_s, ExpireApproval(approval_id=approval_id))
    if isinstance(event, NoticePlanned):
        return Scheduled(event.after_s, BeginNotice(approval_id=approval_id, number=event.number))
    return None


DECIDER: Decider[Approval] = Decider("approvals", Approval, decide, evolve)
