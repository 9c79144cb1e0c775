"""`client.approvals`: what waits for people, and the policies that ask for it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field
from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.budgets import Amounts, BudgetQuestion, Waiting, amounts_of
from tidelog.models import Model
from tidelog.requests import Requests, parse

Status = Literal["open", "approved", "denied", "withdrawn"]


class ApprovalWord(Model):
    """What a person said. `counts`: False, if the arguments were changed after it."""

    decision: str
    by: str
    role: str = ""
    on_behalf_of: str | None = None
    reason: str | None = None
    changed: bool = False
    add: Amounts | None = None
    """How much more of a budget."""
    via: str | None = None
    counts: bool = True
    at: datetime


class ApprovalNotice(Model):
    """Who was told, or will be. `status`: planned, sending, delivered, failed or cancelled. `key`: of the person."""

    number: int
    policy: str = ""
    tool: str
    key: UUID | None = None
    address: str | None = None
    status: str
    due_at: datetime
    begun_at: datetime | None = None
    ended_at: datetime | None = None
    invocation_id: UUID | None = None
    error: str | None = None


class ApprovalSummary(Model):
    """A question of an agent has a `title`, and its name as `tool`.
    `because`: the rules that ask for the approval, with what they saw. `roles`: who may decide; so many keys are `needed`."""

    approval_id: UUID
    kind: str = "call"
    """`budget`: more of a budget, for all calls that wait for it. The call is the first of them. `step`: a question of an agent."""
    budget: BudgetQuestion | None = None
    status: str
    tool: str
    tool_version: str | None = None
    run_id: UUID
    project_id: UUID | None = None
    invocation_id: UUID | None = None
    title: str | None = None
    key: str = ""
    on_behalf_of: str | None = None
    arguments_hash: str = ""
    roles: tuple[str, ...] = ()
    needed: int = 1
    approvals: int = 0
    four_eyes: bool = False
    tainted: bool = False
    """Whether the arguments may come from untrusted output."""
    because: list[dict[str, Any]] = Field(default_factory=list)
    requested_at: datetime
    deadline_at: datetime | None = None
    default: str = "deny"
    """What counts after `deadline_at`."""
    expired: bool = False
    settled_at: datetime | None = None
    words: list[ApprovalWord] = Field(default_factory=list)
    notices: list[ApprovalNotice] = Field(default_factory=list)
    version: int = 0


class Approval(ApprovalSummary):
    """`arguments`: with which the call would begin. `may_decide`: whether your key may decide it now; else `why_not`."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    asked_arguments: dict[str, Any] | None = None
    waiting: Waiting | None = None
    """Calls that wait for more of the budget now."""
    may_decide: bool = False
    why_not: str | None = None


class ApprovalPolicy(Model):
    name: str
    version: int
    description: str = ""
    project_id: UUID | None = None
    rules: list[dict[str, Any]] = Field(default_factory=list)
    notices: list[dict[str, Any]] = Field(default_factory=list)
    by: str = ""


class ApprovalPolicyVersion(ApprovalPolicy):
    at: datetime
    reason: str | None = None
    on_behalf_of: str | None = None


class _Decided(Model):
    status: str


class _Policies(Model):
    data: list[ApprovalPolicy]


class _Versions(Model):
    data: list[ApprovalPolicyVersion]


class ClientApprovals:
    """What waits for people."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def list(
        self,
        *,
        status: Status | None = None,
        mine: bool = False,
        tool: str | None = None,
        run_id: UUID | None = None,
        project_id: UUID | None = None,
    ) -> AsyncGenerator[ApprovalSummary, None]:
        """The newest first. `mine`: the open ones that your key may decide, and has not approved yet."""
        given = {"status": status, "mine": "true" if mine else None, "tool": tool, "run_id": run_id, "project_id": project_id}
        params = {name: str(value) for name, value in given.items() if value is not None}
        return self._requests.every(ApprovalSummary, "/v1/approvals", params)

    async def get(self, approval_id: UUID) -> Approval:
        return await self._requests.one(Approval, f"/v1/approvals/{approval_id}")

    async def approve(
        self,
        approval_id: UUID,
        reason: str | None = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        arguments_hash: str | None = None,
        add: Mapping[str, Any] | None = None,
        on_behalf_of: str | None = None,
    ) -> str:
        """Approves, and returns the status of the approval: it is still open where more people must approve.

        `arguments`: other ones for the call. `arguments_hash`: of the approval as you have seen it; if its arguments were changed
        since, nothing happens but a ConflictError. `add`: of an approval of a budget, how much more there is (`money`, `tokens`,
        `calls`); None: as much as the question says.

        Raises:
            ConflictError: somebody has decided otherwise before (`already-decided`), or the arguments were changed.
            PermissionDeniedError: your key does not decide this approval (`not-an-approver`).
            InvalidRequestError: the arguments do not fit the tool, or need more than this approval.
        """
        return await self._decide(approval_id, "approve", reason, arguments, arguments_hash, on_behalf_of, add)

    async def deny(self, approval_id: UUID, reason: str | None = None, *, on_behalf_of: str | None = None) -> str:
        """Denies: the call fails, and the reason is told to who asked for it; of a budget, the runs that wait for it stop.

        Raises as `approve`.
        """
        return await self._decide(approval_id, "deny", reason, None, None, on_behalf_of)

    async def _decide(
        self, approval_id: UUID, decision: str, reason: str | None, arguments: Mapping[str, Any] | None, seen: str | None,
        on_behalf_of: str | None, add: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        said = {"decision": decision, "reason": reason, "arguments_hash": seen}
        body: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        if arguments is not None:
            body["arguments"] = dict(arguments)
        if add is not None:
            body["add"] = amounts_of(add)
        path = f"/v1/approvals/{approval_id}/decision"
        answer = await self._requests.send("POST", path, body, key=str(uuid7()), on_behalf_of=on_behalf_of)
        return parse(_Decided, answer).status

    async def policies(self) -> Sequence[ApprovalPolicy]:
        """The policies that say which calls need an approval, by name."""
        return (await self._requests.one(_Policies, "/v1/approval-policies")).data

    async def policy_versions(self, name: str) -> Sequence[ApprovalPolicyVersion]:
        """The newest first, also of a policy that was removed."""
        return (await self._requests.one(_Versions, f"/v1/approval-policies/{name}")).data

    async def publish_policy(
        self, name: str, rules: Sequence[Mapping[str, Any]] = (), *, description: str = "", project_id: UUID | None = None,
        reason: str | None = None, notices: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        """Publishes a version of a policy. It counts for each call that is requested from now on. `notices`: who is told."""
        body: dict[str, Any] = {"rules": [dict(rule) for rule in rules], "description": description}
        if notices:
            body["notices"] = [dict(notice) for notice in notices]
        if project_id is not None:
            body["project_id"] = str(project_id)
        if reason is not None:
            body["reason"] = reason
        await self._requests.send("PUT", f"/v1/approval-policies/{name}", body)

    async def remove_policy(self, name: str, reason: str | None = None) -> None:
        await self._requests.send("DELETE", f"/v1/approval-policies/{name}", headers=reason_header(reason))
