"""What the options and the text of a line are for a workflow: the input of its run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic_core

from application.slash_commands.line import BadLine, CommandLine, Option, shown
from application.suggestions import did_you_mean
from domain import values
from domain.kernel import Json

MOST_NAMED = 20
_NO_JSON: Any = object()


def input_of(line: CommandLine, text: str | None, parameters: Json) -> dict[str, Json]:
    """The input. `text`: the parameter that takes the free text; None: the command has none. `parameters`: JSON Schema of the
    input, or None. What else does not fit the schema is for whoever checks the input.

    Raises BadLine, with all faults.
    """
    properties = properties_of(parameters)
    given, faults = _given(line, properties, takes_any=_takes_any(parameters))
    if line.text:
        if text is None:
            faults.append(f"/{line.name} takes no text, and {shown(line.text)} is some: {_told(properties, 'it takes')}")
        elif text in given:
            faults.append(f"the text is given twice: as {text}=… and as {shown(line.text)}")
        else:
            given[text] = line.text
    faults += _missing(line, text, parameters, given)
    if faults:
        raise BadLine(*faults)
    return given


def properties_of(parameters: Json) -> Mapping[str, Json]:
    """The parameters by name, as far as a schema lists them."""
    found = parameters.get("properties") if isinstance(parameters, dict) else None
    return found if isinstance(found, dict) else {}


def _takes_any(parameters: Json) -> bool:
    """Whether parameters may have names that the schema does not list. A schema that says nothing of that takes none beside those
    that it lists: a misspelt name would be lost without a word."""
    if not isinstance(parameters, dict):
        return parameters is None or parameters is True
    others = parameters.get("additionalProperties")
    return not properties_of(parameters) if others is None else others is not False


def _given(line: CommandLine, properties: Mapping[str, Json], *, takes_any: bool) -> tuple[dict[str, Json], list[str]]:
    given: dict[str, Json] = {}
    faults: list[str] = []
    for option in line.options:
        name = option.name
        if name not in properties and name.replace("-", "_") in properties:
            name = name.replace("-", "_")  # `--max-rounds` for `max_rounds`
        if name in given:
            faults.append(f"'{name}' is given twice, the second time at character {option.at}")
        elif name not in properties and not takes_any:
            faults.append(_unknown(line.name, option, properties))
        else:
            given[name] = value_of(option.value, properties.get(name))
            if values.is_deeper(pydantic_core.to_json(given[name]), values.MAX_DEPTH - 1):
                faults.append(f"'{name}' at character {option.at}: a value may be nested {values.MAX_DEPTH - 1} levels deep")
    return given, faults


def _unknown(command: str, option: Option, known: Iterable[str]) -> str:
    names = list(known)
    guess = did_you_mean(option.name, names) or f": {_told(names, 'it takes')}"
    place = f"/{command} has no parameter {shown(option.name)} (at character {option.at})"
    return f"{place}{guess} (a word of the text? Then put the text in quotes)"


def _told(known: Iterable[str], what: str) -> str:
    names = sorted(known)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{what} {', '.join(names[:MOST_NAMED]) or 'no options'}{more}"


def _missing(line: CommandLine, text: str | None, parameters: Json, given: Mapping[str, Json]) -> Iterator[str]:
    required = parameters.get("required") if isinstance(parameters, dict) else None
    properties = properties_of(parameters)
    for name in required if isinstance(required, list) else ():
        described = properties.get(name)
        if name in given or (isinstance(described, dict) and "default" in described):
            continue
        if name == text:
            yield f"/{line.name} needs a text: write it after the command, as in `/{line.name} Write release notes`"
        else:
            yield f"/{line.name} needs '{name}': write {name}=VALUE"


def value_of(text: str, schema: Json = None) -> Json:
    """A value as an option gives it: JSON, if the text is JSON, else the text itself. For a parameter that is only ever a string,
    other JSON is text, too: `ticket=17` is "17" there.
    """
    value = _json(text)
    if value is _NO_JSON:
        return text
    only_text = isinstance(schema, dict) and schema.get("type") == "string"
    return text if only_text and not isinstance(value, str) else value


def _json(text: str) -> Any:
    try:
        value = pydantic_core.from_json(text)
    except ValueError:
        return _NO_JSON
    return _NO_JSON if values.not_finite(value) is not None else value
