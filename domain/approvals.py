"""Approvals: one record for each thing that people must agree to before it happens.

The record says what exactly is asked (the tool, its version, a hash of the arguments), who may decide, how many must approve, until
when, and what counts after that. Each word of a person is an event. The word that settles the approval says so, and counts once.
"""

from dataclasses import dataclass
from typing import Literal, assert_never
from uuid import UUID

from pydantic import Field

from domain.amounts import Amounts, BudgetAnswer, BudgetQuestion
from domain.approval_rules import Default, Demand
from domain.errors import DomainError, InvalidCommand, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, Json, Scheduled, ShortText, replace, same_json, unsaid

Kind = Literal["call", "budget"]
"""`call`: a call may begin. `budget`: a budget is raised, for all calls that wait for it."""
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
    invocation_id: UUID
    """The call that is held."""
    tool: str
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


class ApprovalDecided(Event):
    """A word of a person."""

    TOPIC = "approval.decided"
    run_id: UUID
    invocation_id: UUID
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


class ApprovalExpired(Event):
    """Nobody has settled it in time."""

    TOPIC = "approval.expired"
    run_id: UUID
    invocation_id: UUID
    outcome: Outcome
    budget: BudgetAnswer | None = Field(default=None, exclude_if=unsaid)


class ApprovalWithdrawn(Event):
    """Nobody needs it any more: the call was cancelled, or no call waits for more of the budget."""

    TOPIC = "approval.withdrawn"
    reason: str | None = None


ApprovalEvent = ApprovalRequested | ApprovalDecided | ApprovalExpired | ApprovalWithdrawn


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

    @property
    def counted(self) -> tuple[ApprovalDecided, ...]:
        """The approvals of the arguments as they are now."""
        return tuple(word for word in self.words if word.decision == "approve" and word.arguments_hash == self.arguments_hash)


class RequestApproval(Command):
    approval_id: UUID
    run_id: UUID
    invocation_id: UUID
    tool: str
    tool_version: str | None = None
    arguments_hash: str
    demand: Demand
    agent_run_id: UUID
    key: str
    asked_by: str = "agent_run"
    on_behalf_of: str | None = None
    kind: Kind = "call"
    budget: BudgetQuestion | None = None


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


class ExpireApproval(Command):
    approval_id: UUID


class WithdrawApproval(Command):
    approval_id: UUID
    reason: ShortText | None = None


ApprovalCommand = RequestApproval | DecideApproval | ExpireApproval | WithdrawApproval


def decide(approval: Approval, command: ApprovalCommand) -> list[Event]:
    requested = approval.requested
    if isinstance(command, RequestApproval):
        return [] if requested is not None else [ApprovalRequested(**_said(command))]
    if requested is None:
        if isinstance(command, WithdrawApproval):
            return []
        raise NotFound(f"there is no approval {command.approval_id}")
    match command:
        case DecideApproval():
            return _decide(approval, requested, command)
        case ExpireApproval():
            return _expire(approval, requested)
        case WithdrawApproval():
            return [] if approval.status != "open" else [ApprovalWithdrawn(reason=command.reason)]
        case _:
            assert_never(command)


def _said(command: RequestApproval) -> dict[str, object]:
    return {name: getattr(command, name) for name in type(command).model_fields if name != "approval_id"}


def _decide(approval: Approval, requested: ApprovalRequested, command: DecideApproval) -> list[Event]:
    if _is_repeat(approval, command):
        return []
    if approval.status != "open":
        raise AlreadyDecided(_told(approval))
    _must_be_allowed(requested.demand, command)
    seen = command.arguments_hash or requested.arguments_hash
    if seen != approval.arguments_hash:
        raise InvalidState("the arguments were changed meanwhile: look at the approval again", pointer="/arguments_hash")
    _must_fit(requested, command)
    if command.decision == "deny":
        if command.arguments is not None:
            raise InvalidCommand("arguments go with an approval, not with a denial", pointer="/arguments")
        return [_word(requested, command, approval.arguments_hash, "denied")]
    changes = command.arguments is not None and command.new_hash != approval.arguments_hash
    if not changes and any(word.by in command.names for word in approval.counted):
        raise AlreadyDecided("you have approved before: another key must approve, too")
    about = command.new_hash if changes and command.new_hash is not None else approval.arguments_hash
    counted = () if changes else approval.counted
    met = requested.demand.met_by([*(word.role for word in counted), command.role])
    changed = command.arguments if changes else approval.changed
    word = _word(requested, command, about, "approved" if met else None)
    return [word.model_copy(update={"arguments": command.arguments if changes else None, "call_with": changed if met else None})]


def _word(requested: ApprovalRequested, command: DecideApproval, about: str, outcome: Outcome | None) -> ApprovalDecided:
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
        of_budget = approval.requested is not None and approval.requested.kind == "budget"
        why = "no call waits for more of the budget" if of_budget else "the call was cancelled"
        return f"the approval was withdrawn: {why}"
    if approval.expired:
        return f"nobody decided in time, so it is {approval.status}"
    last = approval.words[-1]
    reason = f" (reason: {last.reason})" if last.reason else ""
    return f"{last.by} has {approval.status} it before{reason}"


def _expire(approval: Approval, requested: ApprovalRequested) -> list[Event]:
    if approval.status != "open":
        return []
    default: Default = requested.demand.default
    outcome: Outcome = "approved" if default == "approve" and approval.changed is None else "denied"
    answer = _answer(requested, None, given=outcome == "approved")
    return [
        ApprovalExpired(run_id=requested.run_id, invocation_id=requested.invocation_id, outcome=outcome, budget=answer)
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
        case _:
            assert_never(event)


def scheduled_by(event: Event, approval_id: UUID) -> Scheduled | None:
    """The command that an event of an approval schedules; None for events that schedule nothing."""
    if isinstance(event, ApprovalRequested) and event.demand.deadline_s is not None:
        return Scheduled(event.demand.deadline_s, ExpireApproval(approval_id=approval_id))
    return None


DECIDER: Decider[Approval] = Decider("approvals", Approval, decide, evolve)
