"""`/query`: filters, not prose. A line of filters is a request for one of the lists that there are, and nothing else."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from application.durations import seconds_of
from application.engine.ports.pages import MAX_LIMIT
from application.engine.reading.as_of import time_of
from application.slash_commands.line import BadLine, CommandLine, Option, shown
from application.suggestions import did_you_mean
from application.views.invocations import Status as CallStatus
from domain.errors import InvalidCommand
from domain.kernel import Json

Of = Literal["runs", "invocations", "messages"]
RunStatus = Literal["queued", "running", "paused", "completed", "failed", "cancelled", "degraded"]
Asker = Literal["client", "chain", "compensation"]

NAME = "query"
HELP = "Lists runs, tool calls or messages by filters: /query agent=critic status=failed since=24h"
OF_METADATA = "metadata."
MAX_TEXT = 500
LONGEST = timedelta(days=36_525)

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class NotSo(Exception):
    """A value is not what its filter takes. The text says what it takes."""


def duration_of(text: str) -> timedelta | None:
    """`24h`; no longer than `LONGEST`. None: the text is no duration."""
    seconds = seconds_of(text)
    return None if seconds is None else timedelta(seconds=min(seconds, LONGEST.total_seconds()))


def _time(text: str, now: datetime) -> datetime:
    if (ago := duration_of(text)) is not None:
        return now - ago
    try:
        at = time_of("time", f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    except InvalidCommand:
        at = None
    if at is None:
        raise NotSo("a duration before now (24h, 7d), a day (2026-01-31) or a time with its zone (2026-01-31T12:00:00Z)")
    return at.astimezone(UTC)


def _moment(text: str, now: datetime) -> str:
    return text if text.isascii() and text.isdecimal() else _time(text, now).isoformat()


def _text(text: str, now: datetime) -> str:
    if not text or len(text) > MAX_TEXT:
        raise NotSo(f"a text of 1 to {MAX_TEXT} characters")
    return text


def _id(text: str, now: datetime) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotSo("an id, as 0198c0de-0000-7000-8000-000000000000") from None


def _limit(text: str, now: datetime) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= MAX_LIMIT:
        raise NotSo(f"a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _one_of(names: tuple[str, ...]) -> Callable[[str, datetime], str]:
    def read(text: str, now: datetime) -> str:
        if text not in names:
            raise NotSo(f"one of {', '.join(names)}")
        return text

    return read


@dataclass(frozen=True, slots=True)
class QueryFilter:
    name: str
    parameter: str
    """Of the list's route, which a line may say, too."""
    read: Callable[[str, datetime], Any]
    help: str
    schema: Mapping[str, Json] = field(default_factory=lambda: {"type": "string"})


def _choice(name: str, names: tuple[str, ...], help: str) -> QueryFilter:
    return QueryFilter(name, name, _one_of(names), help, {"enum": list(names)})


_LIMIT = QueryFilter("limit", "limit", _limit, "At most so many", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT})
_CURSOR = QueryFilter("cursor", "cursor", _text, "The `next_cursor` of the page before")
_AT = QueryFilter("at", "as_of", _moment, "The list as it was then: a position, a time, or a duration before now")
_RUN = QueryFilter("run", "run_id", _id, "Of this run: its id", {"type": "string", "format": "uuid"})

FILTERS: Mapping[Of, tuple[QueryFilter, ...]] = {
    "runs": (
        QueryFilter("agent", "agent", _text, "With a step of this agent"),
        _choice("status", get_args(RunStatus), "With this status; `degraded`: completed without some of their steps"),
        QueryFilter("since", "started_after", _time, "Started from then on: 24h (before now), 2026-01-31, or a time"),
        QueryFilter("until", "started_before", _time, "Started before then"),
        QueryFilter("project", "project_id", _id, "Of this project: its id", {"type": "string", "format": "uuid"}),
        QueryFilter("error", "error", _text, "With these words in their errors"),
        QueryFilter("actor", "actor", _text, "Started by this one: `key:` and the id of a key"),
        QueryFilter("for", "on_behalf_of", _text, "Started on behalf of this one"),
        QueryFilter("workflow", "workflow", _text, "Of this workflow: `name`, or `name@version`"),
        QueryFilter("origin", "origin", _text, "Started by this: `command`, `schedule:nightly` …"),
        QueryFilter("key", "concurrency_key", _text, "With this key, which they share"),
        QueryFilter("parent", "parent", _id, "Started by steps of this run: its id", {"type": "string", "format": "uuid"}),
        _AT,
        _LIMIT,
        _CURSOR,
    ),
    "invocations": (
        _choice("status", get_args(CallStatus), "With this status"),
        _RUN,
        _choice("asked_by", get_args(Asker), "Asked for by this one, which is no agent"),
        _AT,
        _LIMIT,
        _CURSOR,
    ),
    "messages": (_RUN, _AT, _LIMIT, _CURSOR),
}
NEEDED: Mapping[Of, tuple[str, ...]] = {"runs": (), "invocations": (), "messages": ("run",)}
_OF = _one_of(get_args(Of))


class Listing(NamedTuple):
    """A page of a list."""

    of: Of
    parameters: dict[str, Any]
    """As the list's route takes them: texts, whole numbers, ids and times; `metadata` is a list of `name=value`."""


def listing_of(line: CommandLine, now: datetime) -> Listing:
    """The list that a line of filters asks for. Raises BadLine, with all faults."""
    faults: list[str] = []
    of: Of = "runs"
    for option in line.options:
        if option.name == "of":
            try:
                of = _OF(option.value, now)  # type: ignore[assignment]
            except NotSo as takes:
                raise BadLine(_not_so(option, takes)) from None
    known = {name: one for one in FILTERS[of] for name in (one.name, one.parameter)}
    if line.text:
        faults.append(f"/{NAME} takes filters, not prose, and {shown(line.text)} is none. {filters_told(of)}")
    parameters: dict[str, Any] = {}
    given: set[str] = set()
    for option in line.options:
        found = known.get(option.name)
        is_metadata = of == "runs" and option.name.startswith(OF_METADATA) and len(option.name) > len(OF_METADATA)
        name = option.name if found is None else found.name
        if found is None and not is_metadata and option.name != "of":
            guess = did_you_mean(option.name, _names(of)) or f". {filters_told(of)}"
            faults.append(f"{shown(option.name)} at character {option.at} is no filter of {of}{guess}")
        elif name in given:
            faults.append(f"'{name}' is given twice, the second time at character {option.at}")
        elif is_metadata:
            parameters.setdefault("metadata", []).append(f"{option.name.removeprefix(OF_METADATA)}={option.value}")
        elif found is not None:
            try:
                parameters[found.parameter] = found.read(option.value, now)
            except NotSo as takes:
                faults.append(_not_so(option, takes))
        given.add(name)
    faults += [f"/{NAME} of={of} needs '{name}': write {name}=VALUE" for name in NEEDED[of] if name not in given]
    if faults:
        raise BadLine(*faults)
    return Listing(of, parameters)


def _not_so(option: Option, takes: NotSo) -> str:
    return f"'{option.name}' at character {option.at} takes {takes}, not {shown(option.value)}"


def _names(of: Of) -> list[str]:
    return ["of", *(one.name for one in FILTERS[of]), *((f"{OF_METADATA}NAME",) if of == "runs" else ())]


def filters_told(of: Of) -> str:
    return f"Filters of {of}: {', '.join(f'{name}=' for name in _names(of))}"


def schema_of_filters() -> dict[str, Json]:
    """The filters of all lists as JSON Schema, for people: `x-of` says of which lists a filter is."""
    said: dict[str, Any] = {
        "of": {"enum": list(get_args(Of)), "default": "runs", "description": "What is listed", "x-of": list(get_args(Of))}
    }
    for of, filters in FILTERS.items():
        for one in filters:
            schema = {**one.schema, "description": one.help}
            if one.name not in said:
                said[one.name] = {**schema, "x-of": [of]}
            elif said[one.name].get("enum") == schema.get("enum"):
                said[one.name]["x-of"].append(of)
            else:  # the same name with other values
                said[one.name] = {
                    **{key: value for key, value in said[one.name].items() if key != "enum"},
                    "enum": list(dict.fromkeys([*said[one.name]["enum"], *schema["enum"]])),
                    "x-of": [*said[one.name]["x-of"], of],
                }
    return {
        "type": "object",
        "properties": said,
        "patternProperties": {r"^metadata\..": {"type": "string", "description": "Runs whose metadata have this value"}},
        "additionalProperties": False,
    }
