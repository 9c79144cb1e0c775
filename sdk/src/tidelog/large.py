"""Large values: the server's answers have references in their place, in `large` of the same object. The client gets the values."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from tidelog.errors import TidelogConnectionError

READ_TOGETHER = 8
"""Values that are read at a time."""

Read = Callable[[str, Mapping[str, str]], Awaitable[Any]]
"""(path, query) → the JSON answer."""


async def value_of(ref: str, read: Read) -> Any:
    """The value that a reference names. Raises TidelogConnectionError for a reference that is no path of the API."""
    path, _, query = ref.partition("?")
    if not path.startswith("/v1/"):
        raise TidelogConnectionError(f"the server's reference to a large value is no path of its API: {ref!r:.200}")
    return await read(path, dict(parse_qsl(query)))


async def fill_run(run: dict[str, Any], read: Read) -> None:
    """Puts all large values into a run's document."""
    planned = {step.get("key"): step for step in (run.get("plan") or {}).get("steps", ())}
    places = []
    for holder, field, ref in _places(_inside(run)):
        step = planned.get(holder.get("key")) if field == "input" and holder is not run else None
        of_plan = step is not None and step.get("input_from") is None  # the input that a plan gives to a step stands in the plan
        places.append((step if step is not None and of_plan else holder, field, ref))
    await _fill(places, read)
    for holder in _inside(run):
        _forget(holder)


async def fill(holders: Iterable[dict[str, Any]], read: Read) -> None:
    """Puts the large values into objects: calls, entries of a journal, messages."""
    found = [part for holder in holders for part in (holder, holder.get("resolution")) if isinstance(part, dict)]
    await _fill([*_places(found)], read)
    for holder in found:
        _forget(holder)


def _inside(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of a run's document that may have references. Values of users are not looked into."""
    yield run
    for step in run.get("steps", ()):
        yield step
        for call in step.get("calls", ()):
            yield call
            if isinstance(call.get("resolution"), dict):
                yield call["resolution"]


def _places(holders: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, str]]:
    for holder in holders:
        for field, place in (holder.get("large") or {}).items():
            yield holder, field, place["ref"]


async def _fill(places: list[tuple[dict[str, Any], str, str]], read: Read) -> None:
    refs = list(dict.fromkeys(ref for _, _, ref in places))  # the result of a run is that of its final step
    values: dict[str, Any] = {}
    for first in range(0, len(refs), READ_TOGETHER):
        some = refs[first : first + READ_TOGETHER]
        values |= zip(some, await asyncio.gather(*(value_of(ref, read) for ref in some)), strict=True)
    for holder, field, ref in places:
        holder[field] = values[ref]


def _forget(holder: dict[str, Any]) -> None:
    if "large" in holder:
        holder["large"] = None
