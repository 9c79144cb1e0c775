"""What to do about a field that has not the right form."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from application.plans.likeness import similar_names
from domain.failures import Retry
from domain.kernel import NAME_PATTERN, Json
from domain.plans import Adaptive, AgentRef, ChildRun, Each, Gather, Repeat, Step, Wait, meant

_MODELS: Mapping[str, type[BaseModel]] = {
    "each": Each, "repeat": Repeat, "adaptive": Adaptive, "gather": Gather, "wait": Wait, "run": ChildRun, "retry": Retry,
    "fallbacks": AgentRef, "agents": AgentRef,
}  # fmt: skip
_QUOTED = re.compile(r"'([^']*)'")


def cure_of(problem: Mapping[str, Any], value: Json, place: Sequence[int | str]) -> str:
    """`problem`: as pydantic lists it. `value`: what stands at the place, or around it where something is missing there."""
    kind, context = str(problem["type"]), problem.get("ctx") or {}
    match kind:
        case "extra_forbidden":
            known = tuple(_fields_at(place[:-1]))
            found = similar_names(str(place[-1]), known) if place else ()
            return meant(found, f"take it out; there are {', '.join(f'`{name}`' for name in known)}")
        case "missing":
            return f"add `{problem['loc'][-1]}`" if problem.get("loc") else "add it"
        case "string_pattern_mismatch" if context.get("pattern") == NAME_PATTERN:
            return "write it in lower case, with - between words, such as 'first-draft'"
        case "string_pattern_mismatch":
            return "write a text without a NUL character"
        case "literal_error":
            known = tuple(_QUOTED.findall(str(context.get("expected", ""))))
            return meant(similar_names(value, known) if isinstance(value, str) else (), f"write one of {', '.join(known)}")
        case "int_type" if isinstance(value, float):
            return "write a number without a fraction"
        case "value_error":
            return _of_values(str(problem["msg"]))
    return _BY_KIND.get(kind) or next((cure for end, cure in _BY_END.items() if kind.endswith(end)), _OTHERWISE)


_OTHERWISE = "write a value as the reference of plans has it"
_BY_KIND = {
    "string_too_short": "write something, or leave the field out",
    "string_too_long": "write a shorter text",
    "too_short": "give more, or leave the field out",
    "too_long": "give fewer",
    "greater_than": "write a larger number", "greater_than_equal": "write a larger number",
    "less_than": "write a smaller number", "less_than_equal": "write a smaller number",
    "string_type": "write a text, in quotes", "bool_type": "write true or false", "int_type": "write a number without quotes",
    "float_type": "write a number without quotes", "finite_number": "write a number that is not infinite",
}  # fmt: skip
_BY_END = {
    "_type": "write an object, or a list, where one belongs",
    "_parsing": "write a number without quotes",
}


def _of_values(message: str) -> str:
    for part, cure in _VALUES.items():
        if part in message:
            return cure
    return _OTHERWISE


_VALUES = {
    "`good` is for": "write `good` beside the mode first_good, and nowhere else",
    "`by` is for": "take `by` out, or set the mode to vote",
    "`count` is for": "take `count` out, or set the mode to any",
    "give either `s` or `until`": "keep `s` for seconds, or `until` for a time",
    "give either `plan` or `workflow`": "add `plan` with the steps of the run, or `workflow` with a name",
    "`version` is that of": "take `version` out, or name the `workflow`",
    "NUL": "write a text without a NUL character",
}


def _fields_at(place: Sequence[int | str]) -> Sequence[str]:
    """The fields of the object at a place in a step."""
    names = [part for part in place if isinstance(part, str)]
    model = _MODELS.get(names[-1], Step) if names else Step
    return tuple(model.model_fields)
