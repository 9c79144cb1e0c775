"""The parameters of an endpoint in the path and the query, read from its signature. What is not declared is refused.

A parameter that the server does not know would be ignored, and the answer would look right: `?stauts=failed` would list all runs.

Parameters that several routes share are declared once, as the fields of a class: `filters: Annotated[Filters, Depends()]` in the
signature. FastAPI documents such fields as parameters of the route, and `Parameters` reads them so.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from fastapi import Request
from fastapi.params import Depends, Query
from pydantic import TypeAdapter, ValidationError

from api.http.conventions.errors import InvalidParameters

_FORMS: Mapping[type, tuple[re.Pattern[str], str]] = {
    int: (re.compile(r"-?[0-9]+"), "Input should be a valid integer, unable to parse string as an integer"),
    float: (
        re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"),
        "Input should be a valid number, unable to parse string as a number",
    ),
    bool: (re.compile("true|false"), "Input should be true or false"),
}
"""The forms of numbers and booleans as JSON has them, and the problem of another form. pydantic would also read `1_000`, `1.0`,
`+1`, ` 1 ` and `yes`."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter of an endpoint, in the path or in the query."""

    name: str
    in_path: bool
    type: TypeAdapter[Any]
    form: tuple[re.Pattern[str], str] | None
    default: Any
    """`inspect.Parameter.empty` if the parameter is required."""
    is_list: bool = False
    """Whether the parameter may be given more than once."""
    argument: str = ""
    """Its name in the signature. It differs where the query's name is a word of Python: `from`."""

    def read(self, text: str | list[str], problems: list[Any]) -> Any:
        """The value of a text, or of the texts of a list. Adds what is wrong with the text to `problems`."""
        if self.form is not None and isinstance(text, str) and not self.form[0].fullmatch(text):
            problems.append({"loc": (self.name,), "msg": self.form[1]})
            return None
        try:
            return self.type.validate_python(text)
        except ValidationError as error:
            problems += [{**problem, "loc": (self.name, *problem["loc"])} for problem in error.errors(include_url=False)]
            return None


class Parameters:
    """The parameters of one endpoint. The signature is read once, at start-up."""

    def __init__(self, endpoint: Callable[..., Any], in_path: Iterable[str]) -> None:
        """Raises TypeError if the first parameter of the endpoint is not the request."""
        hints = _hints(endpoint)
        first, *others = inspect.signature(endpoint).parameters.values()
        if hints[first.name] is not Request:
            raise TypeError(f"{endpoint.__name__}: the first parameter of an endpoint is the request")
        path = set(in_path)
        self._groups = {p.name: _plain(hints[p.name]) for p in others if _is_group(hints[p.name])}
        found = [_parameter(p, hint, p.name in path) for p, hint in _flat(others, hints)]
        self._of_groups = {
            group: tuple(p.name for p, _ in _flat(_declared(kind), _hints(kind))) for group, kind in self._groups.items()
        }
        self._in_path = tuple(parameter for parameter in found if parameter.in_path)
        self._in_query = tuple(parameter for parameter in found if not parameter.in_path)
        self._defaults = {p.argument: p.default for p in self._in_query if p.default is not inspect.Parameter.empty}
        self._required = tuple(p.name for p in self._in_query if p.default is inspect.Parameter.empty)

    def arguments(self, request: Request) -> dict[str, Any]:
        """The arguments of the endpoint by name.

        Raises InvalidParameters, which names each parameter that is invalid, missing, unknown or repeated.
        """
        arguments = self._defaults.copy()
        problems: list[Any] = []
        for parameter in self._in_path:
            arguments[parameter.name] = parameter.read(request.path_params[parameter.name], problems)
        if request.scope["query_string"] or self._required:
            self._read_query(request, arguments, problems)
        if problems:
            raise InvalidParameters(problems)
        for group, names in self._of_groups.items():
            arguments[group] = self._groups[group](**{name: arguments.pop(name) for name in names})
        return arguments

    def _read_query(self, request: Request, arguments: dict[str, Any], problems: list[Any]) -> None:
        given = self._given(request, problems)
        for parameter in self._in_query:
            if parameter.name in given:
                arguments[parameter.argument] = parameter.read(given[parameter.name], problems)
        problems += [{"loc": (name,), "msg": "Field required"} for name in self._required if name not in given]

    def _given(self, request: Request, problems: list[Any]) -> dict[str, Any]:
        """The query's parameters by name."""
        names = {parameter.name: parameter.is_list for parameter in self._in_query}
        given: dict[str, Any] = {}
        for name, text in request.query_params.multi_items():
            if name not in names:
                known = f"the parameters are {', '.join(names)}" if names else "this route has none"
                problems.append({"loc": (name,), "msg": f"unknown parameter; {known}"})
            elif names[name]:
                given.setdefault(name, []).append(text)
                continue
            elif name in given:
                problems.append({"loc": (name,), "msg": "the parameter is given more than once"})
            given[name] = text
        return given


def _hints(declaring: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(declaring, include_extras=True)


def _declared(kind: type) -> list[inspect.Parameter]:
    """The fields of a class of parameters."""
    return list(inspect.signature(kind).parameters.values())


def _flat(declared: Iterable[inspect.Parameter], hints: Mapping[str, Any]) -> Iterator[tuple[inspect.Parameter, Any]]:
    """Each parameter with its hint. The fields of a class stand in the place of the class."""
    for parameter in declared:
        hint = hints[parameter.name]
        if _is_group(hint):
            yield from _flat(_declared(_plain(hint)), _hints(_plain(hint)))
        else:
            yield parameter, hint


def _is_group(hint: Any) -> bool:
    """Whether a hint names a class of parameters."""
    return get_origin(hint) is Annotated and any(isinstance(note, Depends) for note in get_args(hint)[1:])


def _parameter(declared: inspect.Parameter, hint: Any, in_path: bool) -> _Parameter:
    name, form = _alias(hint) or declared.name, _FORMS.get(_plain(hint))
    return _Parameter(name, in_path, TypeAdapter(hint), form, declared.default, _is_list(hint), declared.name)


def _alias(hint: Any) -> str | None:
    """The name that a hint gives to a parameter of the query."""
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((note.alias for note in notes if isinstance(note, Query) and note.alias is not None), None)


def _plain(hint: Any) -> Any:
    """The type in a hint, without its annotations and without None."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        return _plain(members[0]) if len(members) == 1 else None
    return hint


def _is_list(hint: Any) -> bool:
    plain = _plain(hint)
    return plain is list or get_origin(plain) is list
