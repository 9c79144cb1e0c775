"""Approvals and their policies as people see them."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from application.views.budgets import AmountsView, BudgetQuestionView, WaitingView
from application.views.large import HoldsLarge
from domain.approval_rules import Because, Requirement
from domain.kernel import Json

Status = Literal["open", "approved", "denied", "withdrawn"]


class WordView(BaseModel):
    """What a person said."""

    decision: Literal["approve", "deny"]
    by: str
    role: str
    on_behalf_of: str | None = None
    reason: str | None = None
    changed: bool = False
    """Whether the arguments were changed with it."""
    add: AmountsView | None = None
    """How much more of a budget it gave."""
    via: Literal["link"] | None = None
    """`link`: by the link of a notice."""
    counts: bool = True
    """False: the arguments were changed after it."""
    at: Timestamp


class NoticeView(BaseModel):
    """Who was told, or will be."""

    number: int
    policy: str
    tool: str
    key: UUID | None = None
    """The API key of the person. Null: nobody by name, and without a link."""
    address: str | None = None
    status: Literal["planned", "sending", "delivered", "failed", "cancelled"]
    """`planned`: at `due_at`, if the approval is still open. `delivered`: the service took it."""
    due_at: Timestamp
    begun_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    invocation_id: UUID | None = None
    """The call of the tool."""
    error: str | None = None


class ApprovalSummary(ListedRow):
    approval_id: UUID
    kind: Literal["call", "budget", "step"] = "call"
    """`budget`: more of a budget, for all calls that wait for it. The call is the first of them. `step`: a question of an agent."""
    budget: BudgetQuestionView | None = None
    """What is asked of a budget. Null: the approval is of a call."""
    title: str | None = None
    """The question."""
    status: Status
    tool: str
    """The tool that is not called before the approval, or the name of the question."""
    tool_version: str | None = None
    run_id: UUID
    """The run, or for a call without a run the call itself. Of a budget of a day: `budget.allowance_id`."""
    project_id: UUID | None = None
    invocation_id: UUID | None = None
    """The call that is held. Null: no call is."""
    agent_run_id: UUID
    key: str
    """The name of the call in the stream that asked for it."""
    asked_by: str = "agent_run"
    on_behalf_of: str | None = None
    """For whom the call is."""
    arguments_hash: str
    """SHA-256 of the arguments that are asked about now: a decision may name it, so that it is about what its maker saw."""
    requirements: list[Requirement]
    roles: list[str]
    """Who may decide."""
    needed: int
    """So many keys must approve, at least."""
    approvals: int = 0
    """So many have."""
    four_eyes: bool = False
    tainted: bool = False
    """Whether the arguments may come from untrusted output."""
    because: list[Because] = []
    """The rules that ask for the approval, with what they saw."""
    requested_at: Timestamp
    deadline_at: Timestamp | None = None
    default: Literal["deny", "approve"] = "deny"
    """What counts after `deadline_at`."""
    expired: bool = False
    """Whether that was how it ended."""
    settled_at: Timestamp | None = None
    words: list[WordView] = []
    notices: list[NoticeView] = []
    version: int
    """Version of the approval's stream."""


class ApprovalView(ApprovalSummary, HoldsLarge):
    arguments: dict[str, Json] = {}
    """Of the call, as they are asked about now; of a question its details."""
    asked_arguments: dict[str, Json] | None = None
    """As they were asked for, if a person has changed them."""
    waiting: WaitingView | None = None
    """Calls that wait for more of the budget now. Null: none, or the approval is of a call."""
    may_decide: bool = False
    """Whether the key that asks may decide it now."""
    why_not: str | None = None


class PolicyView(BaseModel):
    name: str
    version: int
    description: str = ""
    project_id: UUID | None = None
    rules: list[dict[str, Json]]
    notices: list[dict[str, Json]] = []
    by: str
    """Who published this version."""


class PolicyVersionView(PolicyView):
    at: Timestamp
    reason: str | None = None
    on_behalf_of: str | None = None
