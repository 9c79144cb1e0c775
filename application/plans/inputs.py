"""What goes into the steps of a plan, and what comes out: checked by the schemas of agents and workflows where they are certain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from application.plans.expressions import PlacedExpression, Scope, Studied, mapped, variables_of
from application.plans.likeness import similar_names
from application.plans.reading import ReadStep, text_of
from application.plans.registry import FoundAgent, LookedUp
from application.plans.schemas import OF_EXPRESSIONS, Comparing, Missing, Schema, clash, field_of, one_of, required_of
from domain.errors import json_pointer
from domain.kernel import Json
from domain.plans import BASE, PlanFlaw, meant, shown
from domain.workflows import defaults_of

if TYPE_CHECKING:
    from application.tool_schemas import ToolSchemas

MOST_OF_INPUT = 20
"""Faults of one input that are told."""
LIST: Json = {"type": "array"}


class _Schemas(Protocol):
    @property
    def schemas(self) -> "ToolSchemas": ...


def agent_of(step: ReadStep, known: LookedUp) -> FoundAgent | None:
    """The agent of a step, if its schemas are known: those of the current version are."""
    name = step.agent.name if step.agent is not None else (known.capabilities or {}).get(step.capability or "")
    found = (known.agents or {}).get(name) if name is not None else None
    version = step.agent.version if step.agent is not None else None
    if found is None or not found.versions or version not in (None, found.version):
        return None
    return found


def results_of(steps: Sequence[ReadStep], known: LookedUp, studied: Studied) -> Mapping[str, Schema]:
    """Step → the schema of its result, where it is known."""
    found: dict[str, Schema] = {}
    for step in steps:
        if step.form == "each":
            found[step.key] = Schema(LIST, LIST)
        elif (text := text_of(step.raw.get("value"))) is not None:
            kind = studied.of(PlacedExpression("", text, BASE)).kind
            if kind in OF_EXPRESSIONS:
                schema: Json = {"type": sorted(OF_EXPRESSIONS[kind])}
                found[step.key] = Schema(schema, schema)
        elif step.form != "adaptive" and not step.others:
            agent = agent_of(step, known)
            if agent is not None and isinstance(agent.output_schema, dict):
                found[step.key] = Schema(agent.output_schema, agent.output_schema)
    return found


def _without_defaults(parameters: Json) -> Json:
    """The parameters of a workflow, without those of the required ones that have a default: a child run gets it."""
    required = parameters.get("required") if isinstance(parameters, dict) else None
    if not isinstance(required, list) or not (defaults := defaults_of(parameters)):
        return parameters
    return {**parameters, "required": [name for name in required if name not in defaults]}


class Inputs:
    def __init__(self, checks: _Schemas, known: LookedUp) -> None:
        self._checks = checks
        self._known = known
        self._comparing = Comparing()

    def schema(self, parameters: Json) -> Schema | None:
        return Schema(parameters, parameters) if isinstance(parameters, dict) else None

    def check(self, step: ReadStep, scope: Scope, studied: Studied) -> Iterator[tuple[PlanFlaw, bool]]:
        """What does not fit in the input of a step, and whether that is certain."""
        whose, wanted = self._wanted_by(step)
        if wanted is None or whose is None:
            return
        raw = step.raw
        if raw.get("input") is not None:
            yield from self._of_literal(step, whose, wanted.root)
        elif isinstance(raw.get("input_from"), dict):
            yield from self._of_names(step, whose, wanted, scope, studied)
        elif (text := text_of(raw.get("input_from"))) is not None:
            yield from self._of_expression(step, whose, wanted, scope, studied, text)
        elif step.form != "each" and raw.get("input_from") is None and scope.input is not None:
            yield from self._of_run(step, whose, wanted, scope.input)

    def _wanted_by(self, step: ReadStep) -> tuple[str | None, Schema | None]:
        """Who gets the input of a step, in words, and the schema that it must fit."""
        if step.workflow is not None:
            workflow = (self._known.workflows or {}).get(step.workflow)
            parameters = None if workflow is None else _without_defaults(workflow.parameters)
            return f"the workflow {shown(step.workflow[0])}", self.schema(parameters)
        agent = agent_of(step, self._known)
        return (None, None) if agent is None else (f"the agent {shown(agent.name)}", self.schema(agent.input_schema))

    def _of_literal(self, step: ReadStep, whose: str, schema: Json) -> Iterator[tuple[PlanFlaw, bool]]:
        schemas = self._checks.schemas
        if schemas.fault_of_schema(schema) is not None:
            return
        for place, text in schemas.faults_of(schema, step.raw["input"])[0][:MOST_OF_INPUT]:
            yield (
                PlanFlaw(
                    f"{step.pointer}/input{place}", f"{whose} does not take this: {text}", "give what its input schema asks for"
                ),
                True,
            )

    def _of_names(
        self, step: ReadStep, whose: str, wanted: Schema, scope: Scope, studied: Studied
    ) -> Iterator[tuple[PlanFlaw, bool]]:
        pointer, names = f"{step.pointer}/input_from", step.raw["input_from"]
        types = wanted.types()
        if types is not None and "object" not in types:
            yield PlanFlaw(pointer, f"{whose} takes {one_of(types)}, not an object", "give one expression instead of names"), True
            return
        for name, text in mapped(step).items():
            field = field_of(wanted, name)
            place = pointer + json_pointer([name])
            if isinstance(field, Missing):
                detail = (
                    f"{whose} takes no `{name}`" if field.is_certain else f"the input schema of {whose} does not tell of `{name}`"
                )
                known = f"it takes {', '.join(f'`{each}`' for each in field.known[:10])}" if field.known else "take it out"
                yield PlanFlaw(place, detail, meant(similar_names(name, field.known), known)), field.is_certain
            elif isinstance(field, Schema):
                yield from self._of_value(place, whose, PlacedExpression(place, text, variables_of(step)), field, scope, studied)
        for name in required_of(wanted):
            if name not in names:
                yield PlanFlaw(pointer, f"{whose} needs `{name}`, which is not given", f"add `{name}` with an expression"), True

    def _of_expression(
        self, step: ReadStep, whose: str, wanted: Schema, scope: Scope, studied: Studied, text: str
    ) -> Iterator[tuple[PlanFlaw, bool]]:
        place = f"{step.pointer}/input_from"
        yield from self._of_value(place, whose, PlacedExpression(place, text, variables_of(step)), wanted, scope, studied)

    def _of_value(
        self, place: str, whose: str, placed: PlacedExpression, wanted: Schema, scope: Scope, studied: Studied
    ) -> Iterator[tuple[PlanFlaw, bool]]:
        """Whether the value of an expression fits."""
        study = studied.of(placed)
        if study.fault is not None:
            return
        found = None if study.path is None or study.kind else scope.place_of(study.path)
        if isinstance(found, Schema):
            for conflict in self._comparing.conflicts(found, wanted):
                at_field = f"`{'.'.join(conflict.place)}`: " if conflict.place else ""
                cure = "map it to another value, or make one of the right kind, such as with `int(…)` or `string(…)`"
                yield PlanFlaw(place, f"{whose} does not take this: {at_field}{conflict.why}", cure), conflict.is_certain
            return
        given, types = scope.types_of(study), wanted.types()
        if clash(given, types):
            detail = f"{whose} does not take this: {one_of(given)} is given where {one_of(types)} is wanted"
            yield PlanFlaw(place, detail, "give a value of the right kind, such as with `int(…)` or `string(…)`"), True

    def _of_run(self, step: ReadStep, whose: str, wanted: Schema, given: Schema) -> Iterator[tuple[PlanFlaw, bool]]:
        """A step without an input of its own gets the run's."""
        for conflict in self._comparing.conflicts(given, wanted):
            at_field = f"`{'.'.join(conflict.place)}`: " if conflict.place else ""
            detail = f"{whose} gets the input of the run, and does not take it: {at_field}{conflict.why}"
            yield PlanFlaw(step.pointer, detail, "map its input with `input_from`, or change `parameters`"), conflict.is_certain
