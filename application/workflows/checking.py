"""All that is wrong with a definition that is to be published."""

from collections.abc import Iterator
from uuid import UUID

from application.budgets.books import fault_of_unit
from application.plans.check import PlanChecks
from application.plans.registry import TenantRegistry
from application.workflows.asked_agents import keys_with_agents
from application.workflows.children import InvalidChild
from application.workflows.start import MOST_TOLD, Workflows
from domain.errors import InvalidCommand, json_pointer
from domain.http_requests import Fault
from domain.workflows import WorkflowDefinition


async def check_definition(
    workflows: Workflows, checks: PlanChecks, tenant_id: UUID, name: str, definition: WorkflowDefinition
) -> None:
    """Raises InvalidCommand, whose `faults` are all that is wrong, with their places in the definition.

    Agents are not looked up: they may be registered later. What a step maps is held against the parameters of a child workflow.
    """
    faults = await faults_of_definition(workflows, tenant_id, name, definition)
    told_before = {place for place, _ in faults}
    registry = TenantRegistry(workflows.commands, None, workflows.lookup, tenant_id)
    found = await checks.check(definition.model_dump(mode="json", exclude_defaults=True), registry)
    faults += [(fault.pointer, f"{fault.detail}; {fault.cure}") for fault in found.faults if fault.pointer not in told_before]
    if faults:
        told = "; ".join(f"{place}: {text}" for place, text in faults[:MOST_TOLD])
        more = "; and more" if len(faults) > MOST_TOLD else ""
        raise InvalidCommand(f"workflow '{name}': {told}{more}", pointer=faults[0][0], faults=faults)


async def faults_of_definition(workflows: Workflows, tenant_id: UUID, name: str, definition: WorkflowDefinition) -> list[Fault]:
    """What is wrong beside the form, which the model of the definition checks."""
    found = [*_of_parameters(workflows, definition), *_of_command(definition)]
    found += await fault_of_unit(workflows.commands, tenant_id, definition.budget)
    try:
        await workflows.children.resolved(tenant_id, definition.plan, of=name, fresh=True)
    except InvalidChild as error:
        found.append((error.pointer or "/plan", error.message))
    return found


def _of_parameters(workflows: Workflows, definition: WorkflowDefinition) -> Iterator[Fault]:
    if definition.parameters is None:
        return
    fault = workflows.schemas.fault_of_schema(definition.parameters)
    if fault is not None:
        yield f"/parameters{fault[0]}", fault[1]
        return
    properties = definition.parameters.get("properties")
    for name, schema in (properties if isinstance(properties, dict) else {}).items():
        if isinstance(schema, dict) and "default" in schema:
            alone = {**definition.parameters, "required": [], "properties": {name: schema}}
            for _, text in workflows.schemas.faults_of(alone, {name: schema["default"]})[0]:
                yield f"/parameters/properties{json_pointer((name,))}/default", text


def _of_command(definition: WorkflowDefinition) -> Iterator[Fault]:
    command = definition.command
    if command is None:
        return
    found = (definition.parameters or {}).get("properties")
    properties = found if isinstance(found, dict) else {}
    if command.text is not None and command.text not in properties:
        yield "/command/text", f"`{command.text}` is none of the properties of the parameters"
    keys = set(keys_with_agents(definition.plan.model_dump(mode="json"))) if command.agents else set()
    for parameter, steps in command.agents.items():
        where = f"/command/agents{json_pointer((parameter,))}"
        if parameter not in properties:
            yield where, f"`{parameter}` is none of the properties of the parameters"
        for place, key in enumerate(steps):
            if key not in keys:
                yield f"{where}/{place}", f"there is no step `{key}` with an agent"
