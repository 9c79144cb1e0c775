"""The expressions of a plan: where they stand, which names may stand in them, and what is wrong with each."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from application.engine.ports.expressions import Compared, Expressions, ExpressionStudy
from application.plans.likeness import similar_names
from application.plans.reading import ReadPlan, ReadStep, text_of
from application.plans.schemas import OF_EXPRESSIONS, Missing, Schema, at, clash, one_of
from domain.errors import json_pointer
from domain.plans import BASE, OF_EACH, OF_JUDGES, OF_REPEAT, OF_UNTIL, GraphOf, PlanFlaw, meant, shown

OF_STEP = ("status", "result", "error")
STATUSES = ("completed", "failed", "cancelled", "skipped")
"""Of a step that has ended."""
GOING_ON = ("pending", "scheduled")
"""Of others, which only a step that gathers results can see."""
_UNKNOWN = re.compile(r"undeclared reference to '([^']+)'")
_BELONGS = {"item": "each", "index": "each", "iteration": "repeat", "last": "repeat"}


class PlacedExpression(NamedTuple):
    """An expression in its place."""

    pointer: str
    text: str
    variables: tuple[str, ...]
    wants: str = ""
    """`bool`, `list`, `time`; empty: any value."""


def expressions_of(step: ReadStep) -> Iterator[PlacedExpression]:
    raw = step.raw
    of_input = variables_of(step)
    at, gather = step.pointer, step.gather_pointer
    places: tuple[tuple[str, object, tuple[str, ...], str], ...] = (
        (f"{at}/when", raw.get("when"), BASE, "bool"),
        (f"{at}/value", raw.get("value"), BASE, ""),
        (f"{at}/each/over", _inside(raw, "each", "over"), BASE, "list"),
        (f"{at}/repeat/until", _inside(raw, "repeat", "until"), OF_UNTIL, "bool"),
        (f"{gather}/good", _inside(raw, "gather", "good"), OF_JUDGES, "bool"),
        (f"{gather}/by", _inside(raw, "gather", "by"), OF_JUDGES, ""),
        (f"{at}/wait/until", _inside(raw, "wait", "until"), BASE, "time"),
        (f"{at}/input_from", raw.get("input_from"), of_input, ""),
    )
    for pointer, text, variables, wants in places:
        if (found := text_of(text)) is not None:
            yield PlacedExpression(pointer, found, variables, wants)
    for name, text in mapped(step).items():
        yield PlacedExpression(f"{step.pointer}/input_from{json_pointer([name])}", text, of_input)


def variables_of(step: ReadStep) -> tuple[str, ...]:
    """The names that may stand in the input of a step."""
    return OF_EACH if step.form == "each" else OF_REPEAT if step.form == "repeat" else BASE


def _inside(raw: Mapping[str, object], name: str, field: str) -> object:
    found = raw.get(name)
    return found.get(field) if isinstance(found, dict) else None


def mapped(step: ReadStep) -> dict[str, str]:
    """Names of the input → their expressions."""
    given = step.raw.get("input_from")
    found = {name: text_of(text) for name, text in given.items()} if isinstance(given, dict) else {}
    return {name: text for name, text in found.items() if text is not None}


def names_the_turn(study: ExpressionStudy) -> bool:
    """Whether the condition of a loop can change from one turn to the next."""
    return any(use.path[0] in ("result", "iteration") for use in study.uses)


class Studied:
    """The expressions of one document, each studied once."""

    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions
        self._known: dict[tuple[str, tuple[str, ...]], ExpressionStudy] = {}

    def of(self, placed: PlacedExpression) -> ExpressionStudy:
        key = (placed.text, placed.variables)
        study = self._known.get(key)
        if study is None:
            study = self._known[key] = self._expressions.study(placed.text, placed.variables)
        return study


class Scope(NamedTuple):
    """What the expressions of a plan may name."""

    plan: ReadPlan
    graph: GraphOf
    results: Mapping[str, Schema]
    """Step → the schema of its result, where that is known."""
    input: Schema | None
    """Of the run's input."""

    def schema_of(self, path: tuple[str, ...]) -> tuple[Schema | None, tuple[str, ...]]:
        """The schema in which a path goes on, and the rest of the path."""
        match path:
            case ("input", *rest):
                return self.input, tuple(rest)
            case ("steps", key, "result", *rest):
                return self.results.get(key), tuple(rest)
        return None, ()

    def place_of(self, path: tuple[str, ...]) -> Schema | Missing | None:
        schema, rest = self.schema_of(path)
        return None if schema is None else at(schema, rest)[0]

    def types_of(self, study: ExpressionStudy) -> frozenset[str] | None:
        """The types that the value of an expression may have."""
        if study.kind:
            return OF_EXPRESSIONS.get(study.kind)
        found = None if study.path is None else self.place_of(study.path)
        return found.types() if isinstance(found, Schema) else None


def check(placed: PlacedExpression, study: ExpressionStudy, scope: Scope, step: int | None) -> Iterator[tuple[PlanFlaw, bool]]:
    """What is wrong with an expression, and whether that is certain. `step`: its place. None: it gives the result of the run."""
    if study.fault is not None:
        yield PlanFlaw(placed.pointer, study.fault, _cure_of(study.fault, placed, scope)), True
        return
    for fault, is_certain in _of_uses(study, scope, step):
        yield fault._replace(pointer=placed.pointer), is_certain
    for comparison in study.comparisons:
        for fault in _of_comparison(comparison, scope, placed):
            yield fault._replace(pointer=placed.pointer), True
    yield from _of_kind(placed, study, scope)


def _cure_of(fault: str, placed: PlacedExpression, scope: Scope) -> str:
    unknown = _UNKNOWN.search(fault)
    if unknown is None:
        if "no matching overload" in fault:
            return "make both sides of one kind, such as with `int(…)`, `double(…)` or `string(…)`"
        return "mend it at the place that is marked; the reference of expressions has all operators and functions"
    name = unknown[1].partition(".")[0]
    if f"{unknown[1]}(" in placed.text.replace(" ", ""):
        return "there is no such function; the reference of expressions has all of them"
    if name in scope.graph.by_key:
        return f"the result of a step is `steps.{name}.result`, its status `steps.{name}.status`"
    form = _BELONGS.get(name)
    if form is not None and placed.variables == BASE:
        return f"`{name}` is there in `input_from` of a step with `{form}`: give the step one, or name something else"
    known = ", ".join(f"`{each}`" for each in placed.variables)
    return meant(similar_names(name, placed.variables), f"name one of {known}, or put a text in quotes")


def _of_uses(study: ExpressionStudy, scope: Scope, step: int | None) -> Iterator[tuple[PlanFlaw, bool]]:
    told: set[tuple[str, ...]] = set()
    tested = {use.path for use in study.uses if use.firm < len(use.path)}
    for path, firm in study.uses:
        if path[0] == "steps" and len(path) > 1:
            if (path[:2] not in told) and (fault := _of_step(path[1], scope, step)) is not None:
                told.add(path[:2])
                yield fault, True
                continue
            if path[:2] in told:
                continue
            if len(path) > 2 and path[2] not in OF_STEP:
                if path[:3] not in told:
                    told.add(path[:3])
                    cure = meant(
                        similar_names(path[2], OF_STEP),
                        f"a step has {', '.join(OF_STEP)}: did you mean `steps.{path[1]}.result.{path[2]}`?",
                    )
                    yield PlanFlaw("", f"a step has no `{path[2]}`", cure), True
                continue
        sure = path[:firm]
        while any(sure[:end] in tested for end in range(2, len(sure) + 1)):
            sure = sure[:-1]
        yield from _of_schema(sure, scope, told)


def _of_step(key: str, scope: Scope, step: int | None) -> PlanFlaw | None:
    """Why the step of a key cannot be named."""
    graph, place = scope.graph, scope.graph.by_key.get(key)
    if place is None:
        return PlanFlaw("", f"there is no step {shown(key)}", meant(similar_names(key, graph.by_key), "name a step of the plan"))
    if step is None or graph.is_before(place, step):
        return None
    own = graph.nodes[step].key
    if any(other not in graph.by_key for _, other in graph.nodes[step].after):
        return None  # it may be the step that is meant there
    if place == step:
        return PlanFlaw("", f"the step {shown(key)} names itself, and has no result before it runs", "name a step before it")
    if graph.is_before(step, place):
        detail = f"the step {shown(key)} comes after {shown(own)}, so its result is not there yet"
        return PlanFlaw("", detail, "name a step that stands before this one")
    detail = f"the step {shown(key)} does not stand before {shown(own)}, so its result may not be there yet"
    return PlanFlaw("", detail, f"add {shown(key)} to `after` of {shown(own)}")


def _of_schema(path: tuple[str, ...], scope: Scope, told: set[tuple[str, ...]]) -> Iterator[tuple[PlanFlaw, bool]]:
    schema, rest = scope.schema_of(path)
    if schema is None or not rest:
        return
    found, followed = at(schema, rest)
    if not isinstance(found, Missing):
        return
    place = path[: len(path) - len(rest) + followed + 1]
    if place in told:
        return
    told.add(place)
    whose = "the input" if path[0] == "input" else f"the result of {shown(path[1])}"
    if followed:
        whose = f"`{'.'.join(rest[:followed])}` of {whose}"
    if found.types:
        yield PlanFlaw("", f"{whose} is {one_of(found.types)}, so it has no `{found.name}`", "name the value itself"), True
        return
    known = f"it has {', '.join(f'`{name}`' for name in found.known[:10])}" if found.known else "take it out"
    cure = meant(similar_names(found.name, found.known), known)
    detail = f"{whose} has no `{found.name}`" if found.is_certain else f"the schema of {whose} does not tell of `{found.name}`"
    yield PlanFlaw("", detail, cure), found.is_certain


def _of_comparison(comparison: Compared, scope: Scope, placed: PlacedExpression) -> Iterator[PlanFlaw]:
    path, kind = comparison.path, comparison.kind
    name = ".".join(path)
    if len(path) == 3 and path[0] == "steps" and path[2] == "status":
        if kind != "string":
            yield PlanFlaw(
                "",
                f"`{name}` is a text, and is compared with {one_of(OF_EXPRESSIONS.get(kind))}",
                "compare it with a text in quotes",
            )
        elif comparison.text not in STATUSES and (placed.variables != OF_JUDGES or comparison.text not in GOING_ON):
            cure = meant(similar_names(str(comparison.text), STATUSES), f"a step before this one is {', '.join(STATUSES)}")
            yield PlanFlaw("", f"`{name}` is never {shown(str(comparison.text))}", cure)
        return
    found = scope.place_of(path)
    if not isinstance(found, Schema):
        return
    types, texts = found.types(), found.texts()
    if clash(OF_EXPRESSIONS.get(kind), types) and not (kind == "null" and comparison.operator in ("==", "!=")):
        yield PlanFlaw(
            "",
            f"`{name}` is {one_of(types)}, and is compared with {one_of(OF_EXPRESSIONS[kind])}",
            "compare it with a value of its kind",
        )
    elif texts and kind == "string" and comparison.operator in ("==", "!=") and comparison.text not in texts:
        cure = meant(similar_names(str(comparison.text), texts), f"it is one of {', '.join(shown(text) for text in texts[:10])}")
        yield PlanFlaw("", f"`{name}` is never {shown(str(comparison.text))}", cure)


_WANTED = {"bool": frozenset({"boolean"}), "list": frozenset({"array"}), "time": frozenset({"string"})}
_CURES = {
    "bool": "compare it with something, such as `… == 'yes'` or `size(…) > 0`",
    "list": "name a list, such as `input.items`, or write one: `[1, 2]`",
    "time": "give a time with its zone, such as `timestamp('2026-12-01T08:00:00Z')`, or use `s` for seconds",
}
_NOUNS = {"bool": "true or false", "list": "a list", "time": "a time"}


def _of_kind(placed: PlacedExpression, study: ExpressionStudy, scope: Scope) -> Iterator[tuple[PlanFlaw, bool]]:
    if not placed.wants:
        return
    types = scope.types_of(study)
    if study.kind == "duration" and placed.wants == "time":
        types = frozenset({"integer"})
    if study.kind == "type" or clash(types, _WANTED[placed.wants]):
        given = "a type" if study.kind == "type" else "a duration" if study.kind == "duration" else one_of(types)
        yield PlanFlaw(placed.pointer, f"this must be {_NOUNS[placed.wants]}, and is {given}", _CURES[placed.wants]), True
