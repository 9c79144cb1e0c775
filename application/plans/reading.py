"""Plans as somebody has written them, read as far as they can be read: what has not the right form is told, and left out."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pydantic_core
from pydantic import BaseModel, ValidationError

from application.plans.cures import cure_of
from application.plans.likeness import LONGEST, similar_names
from application.plans.spelling import AGGREGATE, name_and_version, spelled_step
from application.wording import meant as without_followers
from application.wording import told
from domain.errors import json_pointer
from domain.kernel import NAME_PATTERN, Json
from domain.plans import DOES, FORMS, MAX_DEPTH, MAX_STEPS, Gather, GatherNeeds, Node, PlanFlaw, Step, meant, unique_keys
from domain.tool_policy import MOST_EXPRESSION, Expression

KINDS = ("sequential", "parallel", "graph")
_NAME = re.compile(NAME_PATTERN)
_EITHER = ", ".join(f"`{name}`" for name in DOES)
_WORKS = ("agent", "capability", "run")


class ReadAgent(NamedTuple):
    """An agent that a plan names."""

    pointer: str
    name: str
    version: str | None = None


@dataclass(slots=True)
class ReadStep:
    pointer: str
    key: str
    """`#` and the place of a step that has none."""
    raw: Mapping[str, Json]
    after: tuple[tuple[int, str], ...] = ()
    agent: ReadAgent | None = None
    others: tuple[ReadAgent, ...] = ()
    """The agents of `fallbacks` and `adaptive`."""
    capability: str | None = None
    form: str | None = None
    child: "ReadPlan | None" = None
    workflow: tuple[str, int | None] | None = None
    is_aggregate: bool = False

    @property
    def node(self) -> Node:
        gather = self.raw.get("gather")
        gathering: GatherNeeds | None = None
        if isinstance(gather, dict):
            count = gather.get("count", 1)
            gathering = GatherNeeds(self.gather_pointer, str(gather.get("mode")), count if isinstance(count, int) else 1)
        form = self.form or ("run" if isinstance(self.raw.get("run"), dict) else None)
        return Node(self.pointer, self.key, self.after, form, isinstance(self.raw.get("when"), str), gathering)

    @property
    def works(self) -> bool:
        return any(self.raw.get(name) is not None for name in _WORKS)

    @property
    def gather_pointer(self) -> str:
        """Where it is said what the step gathers. The step of an `aggregate` is nothing else."""
        return self.pointer if self.is_aggregate else f"{self.pointer}/gather"


@dataclass(slots=True)
class ReadPlan:
    pointer: str
    steps: list[ReadStep] = field(default_factory=list)
    result: str | None = None
    depth: int = 0
    """The runs above the run of the plan."""

    def all(self) -> Iterator["ReadPlan"]:
        """The plan, and those of its child runs."""
        yield self
        for step in self.steps:
            if step.child is not None:
                yield from step.child.all()


def text_of(value: Json) -> str | None:
    """An expression, if the value can be one."""
    return value if isinstance(value, str) and 0 < len(value) <= MOST_EXPRESSION and "\x00" not in value else None


class Reading:
    """Reads one document. Adds what is wrong with its forms to a list."""

    def __init__(self, faults: list[PlanFlaw]) -> None:
        self._faults = faults
        self._left = MAX_STEPS
        self.is_over = False
        """Whether the plans in the plan were left out, since there are too many steps already."""

    def plan(self, document: Json, pointer: str, depth: int = 0) -> ReadPlan:
        """A plan in one of its forms: agents in a sequence or side by side, or a graph of steps."""
        plan = ReadPlan(pointer, depth=depth)
        if not isinstance(document, dict):
            self._faults.append(
                PlanFlaw(
                    pointer,
                    "a plan must be an object",
                    'write an object such as {"steps": [{"key": "a", "agent": "a"}]}',
                )
            )
            return plan
        kind = document.get("kind", "graph")
        if kind in ("sequential", "parallel"):
            self._agents(document, kind, plan)
            return plan
        if kind != "graph":
            found = similar_names(kind, KINDS) if isinstance(kind, str) else ()
            self._faults.append(
                PlanFlaw(
                    f"{pointer}/kind", f"`kind` must be one of {', '.join(KINDS)}", meant(found, "write graph, or leave `kind` out")
                )
            )
        self._faults += _unknown_fields(document, ("kind", "steps", "result"), pointer)
        if (result := document.get("result")) is not None:
            plan.result = text_of(result)
            if plan.result is None:
                self._faults += _expression_faults(result, f"{pointer}/result")
        steps = document.get("steps")
        if not isinstance(steps, list) or not steps:
            place = f"{pointer}/steps" if "steps" in document else pointer
            self._faults.append(
                PlanFlaw(place, "a plan has a list of steps, at least one", 'add `steps`, such as [{"key": "a", "agent": "a"}]')
            )
            return plan
        if len(steps) > MAX_STEPS:
            detail = f"a plan has at most {MAX_STEPS:,} steps, this one has {len(steps):,}; those after them were not looked at"
            self._faults.append(
                PlanFlaw(f"{pointer}/steps", detail, "put a part of them into a child run, or go over a list with `each`")
            )
        left_out = {step["key"] for step in steps[MAX_STEPS:] if isinstance(step, dict) and isinstance(step.get("key"), str)}
        for number, raw in enumerate(steps[:MAX_STEPS]):
            self._left -= 1
            if depth and self._left < 0:
                self.is_over = True
                break
            step = self._step(raw, number, f"{pointer}/steps/{number}", left_out, depth)
            if step is not None:
                plan.steps.append(step)
        return plan

    def _agents(self, document: Mapping[str, Json], kind: str, plan: ReadPlan) -> None:
        known = ("kind", "agents", "aggregator", "aggregate") if kind == "parallel" else ("kind", "agents")
        self._faults += _unknown_fields(document, known, plan.pointer)
        agents = document.get("agents")
        if not isinstance(agents, list) or not agents:
            place = f"{plan.pointer}/agents" if "agents" in document else plan.pointer
            self._faults.append(
                PlanFlaw(place, f"a {kind} plan has a list of agents, at least one", 'add `agents`, such as ["writer", "critic"]')
            )
            return
        most = MAX_STEPS - 1 if kind == "parallel" else MAX_STEPS
        if len(agents) > most:
            detail = f"at most {most:,} agents may be named, these are {len(agents):,}"
            self._faults.append(PlanFlaw(f"{plan.pointer}/agents", detail, "name fewer, or go over a list with `each` in a graph"))
        named = [(f"{plan.pointer}/agents/{place}", agent) for place, agent in enumerate(agents[:most])]
        if kind == "parallel" and document.get("aggregator") is not None:
            named.append((f"{plan.pointer}/aggregator", document["aggregator"]))
        names = [name_and_version(agent)[0] if isinstance(agent, str) else "" for _, agent in named]
        for (pointer, agent), key in zip(named, unique_keys(tuple(names)), strict=True):
            name, version = name_and_version(agent) if isinstance(agent, str) else ("", None)
            if _NAME.match(name) and len(name) <= LONGEST:
                plan.steps.append(ReadStep(pointer, key, {"agent": name}, agent=ReadAgent(pointer, name, version)))
            else:
                self._faults.append(_bad_name(pointer, agent))
        if kind == "parallel" and document.get("aggregate") is not None:
            self._aggregate(document, plan)

    def _aggregate(self, document: Mapping[str, Json], plan: ReadPlan) -> None:
        """Puts the results together without an agent."""
        said, pointer = document["aggregate"], f"{plan.pointer}/aggregate"
        if document.get("aggregator") is not None:
            self._faults.append(PlanFlaw(pointer, "give either `aggregator` or `aggregate`", "keep `aggregator` for an agent"))
        elif not isinstance(said, dict):
            self._faults.append(PlanFlaw(pointer, "must be an object", 'write an object with a `mode`, such as {"mode": "all"}'))
        else:
            self._faults += faults_of_model(Gather, said, pointer, said, inside="gather")
            after = tuple((place, step.key) for place, step in enumerate(plan.steps))
            plan.steps.append(ReadStep(pointer, f"#{AGGREGATE}", {"gather": said}, after, is_aggregate=True))

    def _step(self, raw: Json, place: int, pointer: str, left_out: set[str], depth: int) -> ReadStep | None:
        if not isinstance(raw, dict):
            self._faults.append(
                PlanFlaw(pointer, "a step must be an object", 'write an object with a `key`, such as {"key": "a", "agent": "a"}')
            )
            return None
        split = spelled_step(raw, MAX_DEPTH)
        self._faults += faults_of_model(Step, split, pointer, raw)
        self._faults += faults_of_forms(raw, pointer)
        key, after = raw.get("key"), raw.get("after")
        step = ReadStep(pointer, key if isinstance(key, str) and key else f"#{place}", raw)
        if isinstance(after, list):
            step.after = tuple((n, name) for n, name in enumerate(after) if isinstance(name, str) and name not in left_out)
        step.agent = _named(split, f"{pointer}/agent")
        step.others = tuple(_others(split, pointer))
        step.capability = raw["capability"] if isinstance(raw.get("capability"), str) and step.agent is None else None
        step.form = next((form for form in FORMS if isinstance(raw.get(form), dict)), None)
        if isinstance(run := raw.get("run"), dict):
            if run.get("plan") is not None:
                step.child = self._child(run["plan"], f"{pointer}/run/plan", depth + 1)
            elif isinstance(name := split["run"].get("workflow"), str):
                version = split["run"].get("version")
                step.workflow = name, version if isinstance(version, int) else None
        return step

    def _child(self, document: Json, pointer: str, depth: int) -> ReadPlan | None:
        if depth >= MAX_DEPTH:
            detail = f"plans may be {MAX_DEPTH} levels deep, the outermost one counted, and this one is deeper"
            self._faults.append(PlanFlaw(pointer, detail, "put its steps into the plan around it"))
            return None
        return self.plan(document, pointer, depth)


def _bad_name(pointer: str, given: Json) -> PlanFlaw:
    if not isinstance(given, str):
        return PlanFlaw(pointer, "must be a text", "write a name in quotes")
    fault = {"type": "string_pattern_mismatch", "msg": "", "ctx": {"pattern": NAME_PATTERN}}
    if _NAME.match(given):
        fault = {"type": "string_too_long", "msg": "", "ctx": {"max_length": 100}}
    return PlanFlaw(pointer, told(fault), cure_of(fault, given, ()))


def _unknown_fields(document: Mapping[str, Json], known: Sequence[str], pointer: str) -> Iterator[PlanFlaw]:
    for name in document:
        if name not in known:
            cure = meant(similar_names(name, known), f"take it out; there are {', '.join(f'`{each}`' for each in known)}")
            yield PlanFlaw(pointer + json_pointer([name]), "there is no such field", cure)


def _expression_faults(value: Json, pointer: str) -> Iterator[PlanFlaw]:
    yield from faults_of_model(_OneExpression, {"value": value}, pointer, {"value": value}, skip=1)


class _OneExpression(BaseModel):
    value: Expression


def _named(split: Mapping[str, Json], pointer: str) -> ReadAgent | None:
    agent, version = split.get("agent"), split.get("agent_version")
    if not isinstance(agent, str) or not _NAME.match(agent):
        return None
    return ReadAgent(pointer, agent, version if isinstance(version, str) else None)


def _others(split: Mapping[str, Json], pointer: str) -> Iterator[ReadAgent]:
    adaptive = split.get("adaptive")
    for place, agents in (
        ("fallbacks", split.get("fallbacks")),
        ("adaptive/agents", adaptive.get("agents") if isinstance(adaptive, dict) else None),
    ):
        for number, agent in enumerate(agents if isinstance(agents, list) else ()):
            if isinstance(agent, dict) and (named := _named(agent, f"{pointer}/{place}/{number}")) is not None:
                yield named


def faults_of_forms(raw: Mapping[str, Json], pointer: str) -> Iterator[PlanFlaw]:
    """What does not go together in a step. `Step` says the same of one whose fields have the right form."""
    does = [name for name in DOES if raw.get(name) is not None]
    works = any(name in _WORKS for name in does)
    forms = [name for name in FORMS if raw.get(name) is not None]
    if not does and not any(similar_names(name, DOES) for name in raw if name not in Step.model_fields):
        yield PlanFlaw(
            pointer, f"give exactly one of {_EITHER}", "say what the step does, such as `agent` with the name of an agent"
        )
    if len(does) > 1 and does != ["agent", "capability"]:
        given = " and ".join(f"`{name}`" for name in does)
        yield PlanFlaw(pointer, f"give exactly one of {_EITHER}, not {given}", f"keep `{does[0]}`, and make steps of the others")
    if len(forms) > 1:
        either = ", ".join(f"`{name}`" for name in FORMS)
        yield PlanFlaw(pointer, f"give at most one of {either}", f"keep `{forms[0]}`; put the inner one into a child run (`run`)")
    if forms and does and not works:
        yield PlanFlaw(f"{pointer}/{forms[0]}", f"`{forms[0]}` is for a step with an agent, a capability or a run", "take it out")
    if raw.get("adaptive") is not None and raw.get("run") is not None:
        yield PlanFlaw(
            f"{pointer}/adaptive", "`adaptive` is for a step with an agent or a capability", "take it out, or name an agent"
        )
    if raw.get("input") is not None and raw.get("input_from") is not None:
        cure = "keep `input` for a fixed value, `input_from` for one that is made of others"
        yield PlanFlaw(f"{pointer}/input_from", "give either `input` or `input_from`", cure)
    if raw.get("input_from") is not None and does and not works:
        yield PlanFlaw(f"{pointer}/input_from", "`input_from` is for a step with an agent, a capability or a run", "take it out")
    if raw.get("input") is not None and raw.get("each") is not None:
        told = "`input` is not for a step with `each`: the item is the input, or what `input_from` makes of it"
        yield PlanFlaw(f"{pointer}/input", told, "write `input_from`, in which `item` and `index` are there")
    if raw.get("fallbacks") and does and ("run" in does or not works):
        yield PlanFlaw(f"{pointer}/fallbacks", "`fallbacks` are for a step with an agent or a capability", "take it out")
    if raw.get("when") is not None and "gather" in does:
        told = "`when` is not for a step with `gather`, which looks on while the steps before it run"
        yield PlanFlaw(f"{pointer}/when", told, "put the condition on a step after it")


_SAID_BY_OTHERS = (
    "give exactly one of", "give at most one of", "is for a step with an agent", "give either `input` or",
    "`input` is not for a step", "`fallbacks` are for", "`gather` needs steps before",
    "`count` is ", "`when` is not for a step with `gather`",
)  # fmt: skip
"""What `Step` says of a step as a whole, and `faults_of_forms` and the checks of the graph say, too."""


def faults_of_model(
    model: type[BaseModel], given: Mapping[str, Json], pointer: str, document: Json, *, skip: int = 0, inside: str = ""
) -> list[PlanFlaw]:
    """`document`: what stands at the pointer. `skip`: the first parts of a place are not in the document. `inside`: the field of a
    step that is looked at."""
    try:
        model.model_validate_json(pydantic_core.to_json(given), strict=True)
    except ValidationError as error:
        problems = without_followers(error.errors(include_url=False))
    except ValueError:  # it has no JSON form, as values nested a thousand levels deep
        return [PlanFlaw(pointer, "the values are nested too deeply", "make them flatter, at most 64 levels deep")]
    else:
        return []
    found: dict[tuple[str, str], PlanFlaw] = {}
    for problem in problems:
        place, value = _place(document, problem["loc"], str(problem["type"]))
        if len(problem["loc"]) == 0 and any(part in str(problem["msg"]) for part in _SAID_BY_OTHERS):
            continue
        if _is_of_other_form(problem["loc"], place, value):
            continue
        text = told(problem)
        if problem["type"] == "missing":
            text = f"`{problem['loc'][-1]}` is missing"
        elif place == ["input_from"] and not isinstance(value, str | dict):
            text = "must be an expression, or an object of expressions by name"
        fault = PlanFlaw(pointer + json_pointer(place[skip:]), text, cure_of(problem, value, [inside, *place] if inside else place))
        found.setdefault((fault.pointer, fault.detail), fault)
    return list(found.values())


def _is_of_other_form(loc: Sequence[int | str], place: Sequence[int | str], value: Json) -> bool:
    """Whether a problem is one of a form of `input_from` in which it is not written."""
    if loc[:1] != ("input_from",) or len(loc) < 2:
        return False
    of_object = str(loc[1]).startswith("dict")
    if len(place) > 1:
        return not of_object
    return of_object if isinstance(value, str) else not of_object if isinstance(value, dict) else of_object


def _place(document: Json, loc: Iterable[int | str], kind: str) -> tuple[list[int | str], Json]:
    """The place of a problem in the document, and what stands there. The places of a problem name forms of unions, too."""
    place: list[int | str] = []
    parts: list[Any] = [part for part in loc if part != "[key]"]
    for number, part in enumerate(parts):
        try:
            document = document[part]
        except (LookupError, TypeError):
            if kind == "missing" and number == len(parts) - 1:
                return place, None
            continue
        place.append(part)
    return place, document
