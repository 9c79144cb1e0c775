"""When a call needs an approval, and what an approval must be: rules as data, and one pure function that evaluates them.

The rules stand in policies of a tenant (`domain.approval_policies`) and in what a tool declares (`domain.tool_policy`). Whoever
requests a call evaluates them: the entrance for an agent or a client, the chain for its steps, a call for its compensation. An
expression that cannot be evaluated asks for an approval.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from domain.access import Action, Role, may
from domain.kernel import Functions, Json, Spent, Value, derive_id, unsaid
from domain.notices import BoundNotice, first_of
from domain.tool_policy import Expression

MOST_RULES = 20
MOST_PATTERNS = 50
MOST_APPROVERS = 10
LONGEST_DEADLINE_S = 90 * 86_400.0
MOST_SEEN = 2_000
"""Bytes of the values that an expression saw, as JSON. Of more, only the names are kept."""

VARIABLES = ("arguments", "cost", "tainted", "tool", "agent", "run", "on_behalf_of")
"""What expressions see: see `SeenCall`."""

Default = Literal["deny", "approve"]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
ApproverRole = Literal["owner", "admin", "operator"]
"""Roles that may decide at all (`approvals.decide`)."""


class ApprovalRule(Value):
    """A rule of a policy: of which calls it is, and what their approval must be. A tool's name fits a pattern as in a shell."""

    tools: tuple[Pattern, ...] = Field(default=("*",), min_length=1, max_length=MOST_PATTERNS)
    when: Expression | None = None
    """A CEL expression over `VARIABLES` that is true for a call that needs an approval. None: each call of these tools does."""
    roles: tuple[ApproverRole, ...] = Field(default=(), max_length=3)
    """Who may approve. Empty: every role that may decide."""
    approvers: int = Field(default=1, ge=1, le=MOST_APPROVERS)
    """So many different keys must approve."""
    four_eyes: bool = False
    """Nobody approves who started the run, or for whom it works."""
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_DEADLINE_S, allow_inf_nan=False)
    """Seconds until `default` counts. None: it waits as long as its run."""
    default: Default = "deny"

    @model_validator(mode="after")
    def _defaults_have_deadlines(self) -> Self:
        if self.default == "approve" and self.deadline_s is None:
            raise ValueError("`default: approve` goes with `deadline_s`")
        return self

    def fits(self, tool: str) -> bool:
        return any(fnmatchcase(tool, pattern) for pattern in self.tools)


class _Stored(BaseModel):
    """Part of events: fields of later releases are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class BoundRule(_Stored):
    """A rule that is about a tool, as it stands where the call is requested later."""

    policy: str | None = None
    """None: the tool itself declares it."""
    version: int | None = None
    """Of the policy."""
    number: int | None = None
    """Which of the policy's rules it is: 0, 1, …"""
    when: str | None = None
    roles: tuple[str, ...] = ()
    approvers: int = 1
    four_eyes: bool = False
    deadline_s: float | None = None
    default: Default = "deny"


class Requirement(_Stored):
    """So many keys of these roles must approve. Empty: of any role that may decide."""

    roles: tuple[str, ...] = ()
    approvers: int = 1

    def met_by(self, roles: Sequence[str]) -> bool:
        """`roles`: of the keys that have approved."""
        return sum(1 for role in roles if self.counts(role)) >= self.approvers

    def counts(self, role: str) -> bool:
        return not self.roles or role in self.roles


class Because(_Stored):
    """Why a call needs an approval: the rule, and what it saw."""

    policy: str | None = None
    version: int | None = None
    number: int | None = None
    expression: str | None = None
    saw: dict[str, Json] = {}
    """The values that the expression named, by their paths. Of large ones nothing is kept but null."""
    error: str | None = None
    """Why the expression could not be evaluated."""


class Demand(_Stored):
    """What the approval of a call must be."""

    requirements: tuple[Requirement, ...] = (Requirement(),)
    four_eyes: bool = False
    deadline_s: float | None = None
    default: Default = "deny"
    because: tuple[Because, ...] = ()
    tainted: bool = False
    """Whether the arguments may come from untrusted output."""
    project_id: UUID | None = None
    """Of the run. None: the call belongs to no run."""
    notices: tuple[BoundNotice, ...] = Field(default=(), exclude_if=unsaid)
    """Who is told, and when. It says nothing of who may decide."""

    def counts(self, role: str) -> bool:
        """Whether the word of a key of this role counts."""
        return any(requirement.counts(role) for requirement in self.requirements)

    def met_by(self, roles: Sequence[str]) -> bool:
        return all(requirement.met_by(roles) for requirement in self.requirements)

    @property
    def needed(self) -> int:
        """So many keys must approve at least."""
        return max(requirement.approvers for requirement in self.requirements)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that may decide."""
        return tuple(role for role in Role if may(role, Action.APPROVALS_DECIDE) and self.counts(role))

    def asks_no_more_than(self, other: "Demand") -> bool:
        """Whether whoever meets the other demand meets this one, too."""
        covered = all(
            any(
                theirs.approvers >= mine.approvers and (not mine.roles or (theirs.roles and set(theirs.roles) <= set(mine.roles)))
                for theirs in other.requirements
            )
            for mine in self.requirements
        )
        return covered and (other.four_eyes or not self.four_eyes)


class SeenCall(_Stored):
    """What expressions see of a call, beside its arguments."""

    tool: str
    cost: float | None = None
    """The money that a call costs at most, in units of the tenant's money, as the tool says. None: it says nothing of money."""
    tainted: bool = False
    agent: dict[str, Json] | None = None
    """`name`, `version`, `step`. None: no agent calls."""
    run: dict[str, Json] | None = None
    """`run_id`, `project_id`, `priority`, `metadata`. None: there is no run."""
    on_behalf_of: str | None = None

    def values(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        return {
            "arguments": dict(arguments), "cost": self.cost, "tainted": self.tainted, "tool": self.tool, "agent": self.agent,
            "run": self.run, "on_behalf_of": self.on_behalf_of,
        }  # fmt: skip


class ApprovalCheck(_Stored):
    """What decides later whether a call needs an approval, once its arguments are known: of the step of a chain, of a call that
    takes an effect back."""

    rules: tuple[BoundRule, ...]
    seen: SeenCall
    notices: tuple[BoundNotice, ...] = Field(default=(), exclude_if=unsaid)


def demand_for(rules: Sequence[BoundRule], seen: SeenCall, arguments: Mapping[str, Json], functions: Functions) -> Demand | None:
    """What the approval of a call must be. None: it needs none. All rules count that ask for one."""
    spent, fired = Spent(), []
    values: dict[str, Json] | None = None
    for rule in rules:
        because = Because(policy=rule.policy, version=rule.version, number=rule.number, expression=rule.when)
        if rule.when is not None:
            values = seen.values(arguments) if values is None else values
            found = functions.evaluate(rule.when, values, spent)
            if found.error is None and found.value is False:
                continue
            error = found.error or (None if found.value is True else "it is neither true nor false")
            saw = _small(functions.named(rule.when, values))
            because = because.model_copy(update={"saw": saw, "error": error})
        fired.append((rule, because))
    return _together(fired, seen) if fired else None


def demand_by(check: ApprovalCheck | None, arguments: Mapping[str, Json], functions: Functions) -> Demand | None:
    return None if check is None else notified(demand_for(check.rules, check.seen, arguments, functions), check.notices)


def notified(demand: Demand | None, notices: Sequence[BoundNotice]) -> Demand | None:
    """The demand with its notices."""
    return demand if demand is None or not notices else demand.model_copy(update={"notices": first_of(notices)})


def _together(fired: Iterable[tuple[BoundRule, Because]], seen: SeenCall) -> Demand:
    """The strictest of all: each rule's approvers, the earliest deadline, and approval by default only if all say so."""
    rules, becauses = zip(*fired, strict=True)
    requirements = dict.fromkeys(Requirement(roles=tuple(sorted(rule.roles)), approvers=rule.approvers) for rule in rules)
    deadlines = [rule.deadline_s for rule in rules if rule.deadline_s is not None]
    return Demand(
        requirements=tuple(requirements),
        four_eyes=any(rule.four_eyes for rule in rules),
        deadline_s=min(deadlines, default=None),
        default="approve" if all(rule.default == "approve" for rule in rules) else "deny",
        because=tuple(becauses),
        tainted=seen.tainted,
        project_id=None if seen.run is None else seen.run["project_id"],
    )


def _small(saw: Mapping[str, Json]) -> dict[str, Json]:
    told: dict[str, Json] = {}
    left = MOST_SEEN
    for name, value in saw.items():
        size = len(json.dumps(value).encode())
        told[name] = value if size <= left else None
        left -= size if size <= left else 0
    return told


def approval_id_of(invocation_id: UUID, fallback: int) -> UUID:
    """The approval of a call. A fallback tool has its own, since an approval is bound to the exact tool."""
    return derive_id(invocation_id, f"approval:{fallback}")


def question_id_of(agent_run_id: UUID, key: str, number: int = 0) -> UUID:
    """The approval that an agent asks for. `number`: of the retry of the agent's run since which it asks."""
    return derive_id(agent_run_id, f"question:{key}:{number}" if number else f"question:{key}")


def arguments_hash(arguments: Mapping[str, Any]) -> str:
    """SHA-256 of arguments, whatever the order of their fields."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
