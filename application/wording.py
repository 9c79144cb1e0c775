"""Faults of requests in plain words. pydantic's own texts name its types and its steps, which no caller knows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from domain.kernel import NAME_AT_VERSION, NAME_PATTERN

MAX_SHOWN = 100
"""Characters of a caller's own text in a fault."""


def told(fault: Mapping[str, Any]) -> str:
    """The description of a fault of pydantic (`type`, `msg`, `ctx`)."""
    text = str(fault["msg"])
    word = _WORDS.get(fault.get("type", ""))
    if word is None:
        return text.removeprefix("Value error, ")
    try:
        return word(fault.get("ctx") or {}) or text
    except (KeyError, TypeError, ValueError):  # the limit is not a number, or is not told
        return text


def meant(faults: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The faults without those that only follow from others: a list whose items are invalid counts as empty for pydantic."""
    found = list(faults)
    places = [tuple(fault["loc"]) for fault in found]

    def follows(fault: Mapping[str, Any]) -> bool:
        place = tuple(fault["loc"])
        return fault.get("type") == "too_short" and any(
            len(other) > len(place) and other[: len(place)] == place for other in places
        )

    return [fault for fault in found if not follows(fault)]


def _number(count: Any, word: str = "item") -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _limit(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _size(context: Mapping[str, Any]) -> str:
    return "none is given" if context["actual_length"] == 0 else f"{context['actual_length']:,} are given"


_A_NAME = "a name has lower-case letters, digits, _ and -, and dots between such words"
_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda context: "this field is missing",
    "extra_forbidden": lambda context: "there is no such field",
    "too_short": lambda context: f"at least {_number(context['min_length'])} must be given; {_size(context)}",
    "too_long": lambda context: f"at most {_number(context['max_length'])} may be given; {_size(context)}",
    "string_too_short": lambda context: f"the text must have at least {_number(context['min_length'], 'character')}",
    "string_too_long": lambda context: f"the text may have at most {_number(context['max_length'], 'character')}",
    "string_pattern_mismatch": lambda context: (
        _A_NAME + {NAME_PATTERN: "", NAME_AT_VERSION: "; a version comes after an @"}[context["pattern"]]
    ),
    "union_tag_not_found": lambda context: f"the field {context['discriminator']} is missing",
    "union_tag_invalid": lambda context: (
        f"{context['discriminator']} must be one of {context['expected_tags']}, not '{context['tag'][:MAX_SHOWN]}'"
    ),
    "literal_error": lambda context: f"must be {context['expected']}",
    "string_type": lambda context: "must be a text",
    "dict_type": lambda context: "must be an object",
    "model_type": lambda context: "must be an object",
    "model_attributes_type": lambda context: "must be an object",
    "list_type": lambda context: "must be an array",
    "tuple_type": lambda context: "must be an array",
    "int_type": lambda context: "must be an integer",
    "int_parsing": lambda context: "must be an integer",
    "int_from_float": lambda context: "must be an integer",
    "float_type": lambda context: "must be a number",
    "float_parsing": lambda context: "must be a number",
    "bool_type": lambda context: "must be true or false",
    "bool_parsing": lambda context: "must be true or false",
    "greater_than": lambda context: f"must be greater than {_limit(context['gt'])}",
    "greater_than_equal": lambda context: f"must be at least {_limit(context['ge'])}",
    "less_than": lambda context: f"must be less than {_limit(context['lt'])}",
    "less_than_equal": lambda context: f"must be at most {_limit(context['le'])}",
    "uuid_type": lambda context: "must be a UUID",
    "uuid_parsing": lambda context: f"must be a UUID ({context['error']})",
    "json_invalid": lambda context: f"the body is not JSON: {context['error']}",
}
"""Type of a fault → its description. An empty one, and a type that is not here: pydantic's own text."""
