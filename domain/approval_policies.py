"""Approval policies of a tenant: under a name, rules that say which calls need an approval. Published versions are numbered.

All policies of a tenant are one stream, so that whoever requests a call relies on one version of all of them: the append of a call
holds only while the policies are as they were looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import assert_never
from uuid import UUID

from immutables import Map
from pydantic import Field

from domain.approval_rules import MOST_RULES, ApprovalRule, BoundRule
from domain.errors import InvalidState, NotFound
from domain.kernel import Command, Decider, Event, Json, Name, Text, Value, derive_id, replace
from domain.maps import PersistentMap
from domain.notices import MOST_NOTICES, PolicyNotice

MOST_POLICIES = 100


class PolicyDefinition(Value):
    description: Text = ""
    project_id: UUID | None = None
    """Only calls in runs of this project. None: all calls of the tenant, those without a run included."""
    rules: tuple[ApprovalRule, ...] = Field(default=(), max_length=MOST_RULES)
    notices: tuple[PolicyNotice, ...] = Field(default=(), max_length=MOST_NOTICES)
    """Who is told of an approval that waits, whatever has asked for it: these rules, another policy, the tool, or an agent."""

    def said(self) -> dict[str, Json]:
        """The definition as JSON without what it does not say, so a field that a later release adds does not change it."""
        return self.model_dump(mode="json", exclude_defaults=True)


class ApprovalPolicyPublished(Event):
    TOPIC = "approval_policy.published"
    name: str
    version: int
    definition: Json
    """`PolicyDefinition`."""
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


class ApprovalPolicyRemoved(Event):
    TOPIC = "approval_policy.removed"
    name: str
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


PolicyEvent = ApprovalPolicyPublished | ApprovalPolicyRemoved


class PoliciesChanged(InvalidState):
    """The policies are not as the caller looked at them. Look again."""


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    version: int
    definition: PolicyDefinition
    by: str


@dataclass(frozen=True)
class Policies:
    current: PersistentMap[str, Policy] = field(default_factory=Map)
    versions: PersistentMap[str, int] = field(default_factory=Map)
    """The newest version of each name, also of those that were removed."""
    changes: int = 0
    """Events of the stream: a number that names this state."""

    def about(self, tool: str, project_id: UUID | None) -> tuple[BoundRule, ...]:
        """The rules that may ask for an approval of a call of this tool, by the names of their policies."""
        return tuple(
            BoundRule(policy=name, version=policy.version, number=number, **rule.model_dump(exclude={"tools"}))
            for name, policy in sorted(self.current.items())
            if policy.definition.project_id in (None, project_id)
            for number, rule in enumerate(policy.definition.rules)
            if rule.fits(tool)
        )

    def notices_about(self, name: str, project_id: UUID | None) -> "Iterator[tuple[Policy, int, PolicyNotice]]":
        """The notices of an approval about a tool or a question of this name: the policy, and which of its notices it is."""
        for _, policy in sorted(self.current.items()):
            if policy.definition.project_id in (None, project_id):
                for number, notice in enumerate(policy.definition.notices):
                    if notice.fits(name):
                        yield policy, number, notice

    @property
    def notify(self) -> bool:
        """Whether any policy has notices."""
        return any(policy.definition.notices for policy in self.current.values())


class PublishPolicy(Command):
    policies_id: UUID
    name: Name
    definition: PolicyDefinition
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


class RemovePolicy(Command):
    policies_id: UUID
    name: Name
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


class UsePolicies(Command):
    """A call is requested. Has no events: the append of the call holds only while the policies are as they were looked at."""

    policies_id: UUID
    changes: int


PolicyCommand = PublishPolicy | RemovePolicy | UsePolicies


@lru_cache(maxsize=10_000)
def policies_id_of(tenant_id: UUID) -> UUID:
    return derive_id(tenant_id, "approval policies")


def decide(policies: Policies, command: PolicyCommand) -> list[Event]:
    match command:
        case UsePolicies():
            if policies.changes != command.changes:
                raise PoliciesChanged("the approval policies have changed meanwhile")
            return []
        case PublishPolicy():
            current = policies.current.get(command.name)
            if current is not None and current.definition == command.definition:
                return []
            if current is None and len(policies.current) >= MOST_POLICIES:
                raise InvalidState(f"a tenant has at most {MOST_POLICIES} approval policies: remove one, or add rules to another")
            return [
                ApprovalPolicyPublished(
                    name=command.name, version=policies.versions.get(command.name, 0) + 1, definition=command.definition.said(),
                    by=command.by, on_behalf_of=command.on_behalf_of, reason=command.reason,
                )
            ]  # fmt: skip
        case RemovePolicy():
            if command.name not in policies.current:
                if command.name in policies.versions:
                    return []
                raise NotFound(f"there is no approval policy '{command.name}'")
            return [
                ApprovalPolicyRemoved(name=command.name, by=command.by, on_behalf_of=command.on_behalf_of, reason=command.reason)
            ]  # fmt: skip
        case _:
            assert_never(command)


def definition_of(stored: Json) -> PolicyDefinition:
    """A definition as an event holds it."""
    return PolicyDefinition.model_validate(stored)


def evolve(policies: Policies, event: PolicyEvent) -> Policies:
    changes = policies.changes + 1
    match event:
        case ApprovalPolicyPublished():
            policy = Policy(event.name, event.version, definition_of(event.definition), event.by)
            versions = policies.versions.set(event.name, event.version)
            return replace(policies, current=policies.current.set(event.name, policy), versions=versions, changes=changes)
        case ApprovalPolicyRemoved():
            return replace(policies, current=policies.current.delete(event.name), changes=changes)
        case _:
            assert_never(event)


DECIDER: Decider[Policies] = Decider("approval_policies", Policies, decide, evolve)
