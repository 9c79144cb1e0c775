"""The approval policies of a tenant: read from their stream, checked as a whole before they are published."""

import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.expressions import Expressions
from application.tool_schemas import ToolSchemas
from application.views.approvals import PolicyVersionView, PolicyView
from domain.access import Action, may
from domain.approval_policies import DECIDER, ApprovalPolicyPublished, Policies, PolicyDefinition, policies_id_of
from domain.approval_rules import VARIABLES
from domain.errors import InvalidCommand, NotFound
from domain.kernel import Json, who_asked
from domain.notices import BUILTINS, FIELDS, MOST_TEMPLATE, PolicyNotice, arguments_of
from domain.tenants import DECIDER as TENANTS
from domain.tenants import Tenant
from domain.tools import DECIDER as TOOLS
from domain.tools import ToolDefinition, tool_id_of

MOST_VERSIONS_SHOWN = 100
_PLACEHOLDER = re.compile(r"\{\{\s{0,8}([A-Za-z0-9_.-]{1,200})\s{0,8}\}\}")


async def policies_of(commands: CommandLoop, tenant_id: UUID) -> tuple[Policies, int]:
    """The policies, and the position of the last change. Raises Unavailable."""
    loaded = await commands.load(DECIDER, tenant_id, policies_id_of(tenant_id))
    return loaded.state, loaded.position


def listed(policies: Policies, within: Sequence[UUID] | None) -> list[PolicyView]:
    """By name. `within`: only those that are about calls in these projects, those of the tenant included."""
    return [
        PolicyView(
            name=name, version=policy.version, description=policy.definition.description, project_id=policy.definition.project_id,
            rules=_rules(policy.definition.said()), notices=_notices(policy.definition.said()), by=policy.by,
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
                    rules=_rules(said), notices=_notices(said),
                    by=event.by, at=recorded.recorded_at, reason=event.reason, on_behalf_of=on_behalf_of,
                )
            )  # fmt: skip
    if not found:
        raise no_policy(name)
    return found


def _rules(said: dict[str, Json]) -> list[dict[str, Json]]:
    rules: list[dict[str, Json]] = said.get("rules", [])
    return rules


def _notices(said: dict[str, Json]) -> list[dict[str, Json]]:
    notices: list[dict[str, Json]] = said.get("notices", [])
    return notices


async def check_notices(
    commands: CommandLoop, schemas: ToolSchemas, tenant_id: UUID, definition: PolicyDefinition, public_url: str | None
) -> None:
    """Raises InvalidCommand for a notice that could not be sent, or that tells somebody who may not decide; Unavailable."""
    if not definition.notices:
        return
    tenant: Tenant = (await commands.load(TENANTS, tenant_id, tenant_id)).state
    for number, notice in enumerate(definition.notices):
        place = f"/notices/{number}"
        tool: ToolDefinition = (await commands.load(TOOLS, tenant_id, tool_id_of(tenant_id, notice.tool))).state
        current = tool.current
        if current is None or current.kind != "builtin" or current.builtin not in BUILTINS:
            what = f"there is no tool '{notice.tool}'" if current is None else f"'{notice.tool}' is another kind of tool"
            told = f"{what}: a notice is sent by a tool of the catalogue that is built in as {' or '.join(BUILTINS)}"
            raise InvalidCommand(f"{told}; define one with `tidelog tools create`", pointer=f"{place}/tool")
        if len(json.dumps(notice.arguments).encode()) > MOST_TEMPLATE:
            raise InvalidCommand(f"the arguments of a notice have at most {MOST_TEMPLATE:,} bytes", pointer=f"{place}/arguments")
        _check_placeholders(notice, place)
        for each, person in enumerate(notice.to or (None,)):
            if person is not None:
                at = f"{place}/to/{each}"
                key = tenant.keys.get(person.key)
                if key is None:
                    raise InvalidCommand(f"there is no key {person.key}", pointer=f"{at}/key")
                if not may(key.role, Action.APPROVALS_DECIDE):
                    told = f"a key of the role {key.role} decides nothing: its link would be worthless"
                    raise InvalidCommand(told, pointer=f"{at}/key")
                if public_url is None:
                    told = "a link needs the URL under which people reach this server: set TIDELOG_PUBLIC_URL"
                    raise InvalidCommand(told, pointer=f"{place}/to")
            arguments = arguments_of(notice, current.builtin, person)
            if current.builtin == "smtp.send" and "to" not in arguments:
                raise InvalidCommand("a mail needs an `address`, or `to` in `arguments`", pointer=f"{place}/to/{each}/address")
            if current.builtin == "http.post" and not {"url", "url_secret"} & arguments.keys():
                raise InvalidCommand("a post needs `url`, or `url_secret`, in `arguments`", pointer=f"{place}/arguments")
            try:
                schemas.check_arguments(notice.tool, current.parameters, arguments)
            except InvalidCommand as error:
                raise InvalidCommand(error.message, pointer=f"{place}{error.pointer or '/arguments'}") from None


def _check_placeholders(notice: PolicyNotice, place: str) -> None:
    values = notice.arguments.get("values")
    known = {*FIELDS, *(values if isinstance(values, dict) else ())}
    for name in sorted(set(_PLACEHOLDER.findall(json.dumps(notice.arguments, ensure_ascii=False)))):
        if name.partition(".")[0] not in known:
            told = f"there is no {{{{{name}}}}}; placeholders: {', '.join(FIELDS)}"
            raise InvalidCommand(told, pointer=f"{place}/arguments")
        if name == "link" and not notice.to:
            raise InvalidCommand("a link is for one person: name people with `to`", pointer=f"{place}/to")


def no_policy(name: str) -> NotFound:
    return NotFound(f"there is no approval policy '{name}'")


def check_policy(expressions: Expressions, definition: PolicyDefinition) -> None:
    """Raises InvalidCommand with all expressions that cannot be used."""
    if not definition.rules and not definition.notices:
        raise InvalidCommand("a policy has rules, or notices, or both", pointer="/rules")
    faults = [
        (f"/rules/{number}/when", fault)
        for number, rule in enumerate(definition.rules)
        if rule.when is not None and (fault := expressions.look(rule.when, VARIABLES).fault) is not None
    ]
    if faults:
        told = "; ".join(f"{place}: {text}" for place, text in faults)
        raise InvalidCommand(f"the policy cannot be used: {told}", pointer=faults[0][0], faults=faults)
