"""The approval policies of a tenant: read from their stream, checked as a whole before they are published."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.expressions import Expressions
from application.views.approvals import PolicyVersionView, PolicyView
from domain.approval_policies import DECIDER, ApprovalPolicyPublished, Policies, PolicyDefinition, policies_id_of
from domain.approval_rules import VARIABLES
from domain.errors import InvalidCommand, NotFound
from domain.kernel import Json, who_asked

MOST_VERSIONS_SHOWN = 100


async def policies_of(commands: CommandLoop, tenant_id: UUID) -> tuple[Policies, int]:
    """The policies, and the position of the last change. Raises Unavailable."""
    loaded = await commands.load(DECIDER, tenant_id, policies_id_of(tenant_id))
    return loaded.state, loaded.position


def listed(policies: Policies, within: Sequence[UUID] | None) -> list[PolicyView]:
    """By name. `within`: only those that are about calls in these projects, those of the tenant included."""
    return [
        PolicyView(
            name=name, version=policy.version, description=policy.definition.description, project_id=policy.definition.project_id,
            rules=_rules(policy.definition.said()), by=policy.by,
        )
        for name, policy in sorted(policies.current.items())
        if within is None or policy.definition.project_id is None or policy.definition.project_id in within
    ]  # fmt: skip


async def versions_of(commands: CommandLoop, tenant_id: UUID, name: str) -> list[PolicyVersionView]:
    """The versions of a policy, the newest first, also of one that was removed. Raises NotFound, Unavailable."""
    found: list[PolicyVersionView] = []
    for recorded in reversed(await commands.history(tenant_id, policies_id_of(tenant_id))):
        if recorded.topic != ApprovalPolicyPublished.TOPIC or len(found) >= MOST_VERSIONS_SHOWN:
            continue
        event: ApprovalPolicyPublished = commands.registry.decoded(recorded)
        if event.name == name:
            said: dict[str, Any] = event.definition
            _, on_behalf_of = who_asked(recorded.metadata)
            found.append(
                PolicyVersionView(
                    name=name, version=event.version, description=said.get("description", ""), project_id=said.get("project_id"),
                    rules=_rules(said), by=event.by, at=recorded.recorded_at, reason=event.reason, on_behalf_of=on_behalf_of,
                )
            )  # fmt: skip
    if not found:
        raise no_policy(name)
    return found


def _rules(said: dict[str, Json]) -> list[dict[str, Json]]:
    rules: list[dict[str, Json]] = said["rules"]
    return rules


def no_policy(name: str) -> NotFound:
    return NotFound(f"there is no approval policy '{name}'")


def check_policy(expressions: Expressions, definition: PolicyDefinition) -> None:
    """Raises InvalidCommand with all expressions that cannot be used."""
    faults = [
        (f"/rules/{number}/when", fault)
        for number, rule in enumerate(definition.rules)
        if rule.when is not None and (fault := expressions.look(rule.when, VARIABLES).fault) is not None
    ]
    if faults:
        told = "; ".join(f"{place}: {text}" for place, text in faults)
        raise InvalidCommand(f"the policy cannot be used: {told}", pointer=faults[0][0], faults=faults)
