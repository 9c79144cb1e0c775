"""Tools as resources: what a declaration says is checked as a whole, and all that is wrong is told at once."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from pydantic import BaseModel

from application.chains import faults_of_expressions
from application.compensations import DEFAULT_ARGUMENTS
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.expressions import NO_EXPRESSIONS, Expressions
from application.engine.ports.sessions import WorkerSessions
from application.tool_schemas import ToolSchemas
from domain.approval_rules import VARIABLES
from domain.chain_plans import ChainPlan, plan_of
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.http_requests import Fault
from domain.kernel import Json
from domain.tools import DECIDER, Example, RegisterTool, RemoveTool, ToolDefinition, faults_of, faults_of_model, tool_id_of

MOST_TOLD = 10
"""Faults in the text of a refusal. The list beside it has all of them."""


class ToolInUse(InvalidState):
    """Workers offer the tool. It was not removed."""

    code = "tool-in-use"


class Declarations:
    """Checks declarations. The schemas are compiled once, and kept with those of calls."""

    def __init__(self, schemas: ToolSchemas, expressions: Expressions = NO_EXPRESSIONS) -> None:
        self._schemas = schemas
        self._expressions = expressions

    def faults_of(self, declared: RegisterTool) -> list[Fault]:
        """All that is wrong with a declaration, each with the JSON Pointer of its place. Empty: it can be registered."""
        found = faults_of(declared)
        usable: dict[str, bool] = {}
        for name, schema in (("parameters", declared.parameters), ("result", declared.result)):
            fault = None if schema is None and name == "result" else self._schemas.fault_of_schema(schema)
            usable[name] = fault is None
            if fault is not None:
                found.append((f"/{name}{fault[0]}", fault[1]))
        if declared.chain is not None and not faults_of_model(ChainPlan, declared.chain):
            faults = faults_of_expressions(self._expressions, plan_of(declared.chain))
            found += [(f"/chain{place}", text) for place, text in faults]
        found += self._faults_of_compensation(declared)
        approval = None if declared.policy is None else declared.policy.approval
        if isinstance(approval, str) and (why := self._expressions.look(approval, VARIABLES).fault) is not None:
            found.append(("/policy/approval", why))
        return found + self._faults_of_examples(declared, usable)

    def _faults_of_compensation(self, declared: RegisterTool) -> Iterator[Fault]:
        undo = None if declared.policy is None else declared.policy.compensation
        for name, expression in ((undo and undo.arguments) or {}).items():
            fault = self._expressions.look(expression, DEFAULT_ARGUMENTS).fault
            if fault is not None:
                place = name.replace("~", "~0").replace("/", "~1")
                yield f"/policy/compensation/arguments/{place}", fault

    def _faults_of_examples(self, declared: RegisterTool, usable: dict[str, bool]) -> list[Fault]:
        examples = {
            number: Example.model_validate(given)
            for number, given in enumerate(declared.examples)
            if not faults_of_model(Example, given)
        }
        found: list[Fault] = []
        if usable["parameters"]:
            found += self._misfits(declared.parameters, {f"/examples/{n}/arguments": e.arguments for n, e in examples.items()})
        if usable["result"] and declared.result is not None:
            results = {f"/examples/{n}/result": e.result for n, e in examples.items() if "result" in e.model_fields_set}
            found += self._misfits(declared.result, results)
        return found

    def _misfits(self, schema: Json, values: dict[str, Json]) -> list[Fault]:
        each = zip(values, self._schemas.faults_of(schema, *values.values()), strict=True)
        return [(place + inner, text) for place, faults in each for inner, text in faults]

    def check(self, declared: RegisterTool, more: Sequence[Fault] = ()) -> None:
        """Raises InvalidCommand, which has all faults. `more`: faults that were found elsewhere."""
        self._schemas.check(declared.name, declared.parameters, pointer="/parameters")
        faults = [*self.faults_of(declared), *more]
        if faults:
            told = "; ".join(f"{place}: {text}" for place, text in faults[:MOST_TOLD])
            rest = "; and more" if len(faults) > MOST_TOLD else ""
            raise InvalidCommand(f"declaration of tool '{declared.name}': {told}{rest}", pointer=faults[0][0], faults=faults)

    def faults_of_arguments(self, tool: ToolDefinition, arguments: Json) -> list[Fault]:
        """All that is wrong with the arguments of a call."""
        assert tool.current is not None
        fault = self._schemas.fault_of_schema(tool.current.parameters)
        if fault is not None:
            return [("", fault[1])]
        return self._schemas.faults_of(tool.current.parameters, arguments)[0]


def faults_of_given(
    declarations: Declarations, form: type[BaseModel], tenant_id: UUID, name: str, given: dict[str, Json]
) -> list[Fault]:
    """All that is wrong with a declaration as somebody has written it. `form`: the fields that it may have.

    Fields that have not even the right form are told and left out, and the others are checked without them.
    """
    found = faults_of_model(form, given)
    wrong = {place.split("/")[1] for place, _ in found if place}
    rest = {field: value for field, value in given.items() if field not in wrong}
    if wrong & {"parameters", "kind", "version"}:
        return found
    command = RegisterTool(tool_id=tool_id_of(tenant_id, name), name=name, **rest)
    return found + [(place, text) for place, text in declarations.faults_of(command) if place.split("/")[1] not in wrong]


async def load_tool(commands: CommandLoop, tenant_id: UUID, name: str) -> ToolDefinition:
    """The tool as the log has it. Raises NotFound for a tool that the tenant does not have, or not any more."""
    for fresh in (False, True):
        found = await commands.load(DECIDER, tenant_id, tool_id_of(tenant_id, name), fresh=fresh)
        tool: ToolDefinition = found.state
        if tool.current is not None:
            return tool
    raise no_tool(name)


def no_tool(name: str) -> NotFound:
    return NotFound(f"there is no tool '{name}'")


async def remove_tool(
    commands: CommandLoop, sessions: WorkerSessions, request: CommandRequest, name: str, expected_version: int | None
) -> CommandOutcome:
    """Removes a tool. Calls that were made go on. Its versions stay known, so none of them ever means something else.

    Raises NotFound, VersionConflict, Unavailable, and ToolInUse while workers offer it: they would announce it again.
    """
    offering = (await sessions.offering(request.tenant_id, "tool", [name])).get(name)
    if offering:
        current = (await load_tool(commands, request.tenant_id, name)).current
        if current is not None and current.kind == "python":
            workers = "a worker offers" if offering == 1 else f"{offering} workers offer"
            raise ToolInUse(f"{workers} the tool '{name}': stop them first, or deprecate the tool")
    command = RemoveTool(tool_id=tool_id_of(request.tenant_id, name), name=name)
    return await commands.execute(request, command, expected_version=expected_version)
