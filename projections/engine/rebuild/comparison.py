"""Compares two tables, row by row in the order of their keys: the live one, and the one that was made from the log."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pydantic_core
from pydantic import BaseModel

from domain import values
from projections.engine.kernel import EarlierForm
from projections.engine.versions import Column

MAX_SHOWN = 2_000
"""A difference shows at most so many characters of a value."""


class Difference(BaseModel):
    """The first row that differs from the log. Values as text; None: NULL, or no row."""

    table: str
    what: str
    """`changed`, `missing` (the log says there is one), `surplus` (the log knows nothing of it) or `columns`."""
    key: dict[str, str | None]
    column: str | None = None
    """The column. In a document also the place in it: `view/steps/0/status`."""
    live: str | None = None
    log: str | None = None
    position: int


@dataclass(frozen=True, slots=True)
class ComparedTable:
    name: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    """Columns of the primary key. Empty: rows are ordered by all columns."""
    due: str | None
    """See `Projection.taken_when_due`."""
    free: frozenset[str]
    """See `Projection.not_of_the_log`."""
    earlier: EarlierForm | None = None
    """Given if the table may have rows of an earlier form."""


@dataclass(frozen=True, slots=True)
class ComparedRow:
    key: tuple[Any, ...]
    values: tuple[Any, ...]


class Count(Protocol):
    """Counts the compared rows."""

    earlier: int
    """Rows in the form of an earlier release."""

    async def one_more(self) -> None: ...


class Comparison:
    """Merges two tables in the order of their keys."""

    def __init__(self, table: ComparedTable, position: int, now: datetime, count: Count) -> None:
        self._table, self._position, self._now, self._count = table, position, now, count
        self._names = [column.name for column in table.columns]
        self._document = None if table.earlier is None else self._names.index(table.earlier.column)

    async def run(self, live: AsyncIterator[ComparedRow], log: AsyncIterator[ComparedRow]) -> Difference | None:
        ours, theirs = await anext(live, None), await anext(log, None)
        while ours is not None or theirs is not None:
            await self._count.one_more()
            if theirs is None or (ours is not None and ours.key < theirs.key):
                assert ours is not None
                return self._difference("surplus", ours)
            if ours is None or theirs.key < ours.key:
                if not self._was_due(theirs):
                    return self._difference("missing", theirs)
                theirs = await anext(log, None)
                continue
            if self._document is not None and ours.values[self._document] is not None:
                self._count.earlier += 1
            if ours.values != theirs.values:
                changed = self._changed(ours, theirs)
                await asyncio.sleep(0)  # many rows may differ in form only, and each may be a large document
                if changed is not None:
                    return changed
            ours, theirs = await anext(live, None), await anext(log, None)
        return None

    def _was_due(self, row: ComparedRow) -> bool:
        column = self._table.due
        return column is not None and row.values[self._names.index(column)] <= self._now

    def _changed(self, live: ComparedRow, log: ComparedRow) -> Difference | None:
        for name, live_value, log_value in zip(self._names, live.values, log.values, strict=True):
            ours, theirs = self._contents(name, live_value, log_value)
            differ = ours != theirs and not (ours != ours and theirs != theirs)  # NaN is not equal to itself
            if differ and name not in self._table.free:
                place, here, there = _narrowed(name, ours, theirs)
                found = self._difference("changed", live)
                return found.model_copy(update={"column": place, "live": _shown(here), "log": _shown(there)})
        return None

    def _contents(self, name: str, live: Any, log: Any) -> tuple[Any, Any]:
        """What is to be equal of two values of a column: of documents of an earlier release, what they say."""
        earlier = self._table.earlier
        if earlier is None or name != earlier.column or live is None or log is None or live == log:
            return live, log
        try:
            return earlier.content(live), earlier.content(log)
        except ValueError:
            return live, log

    def _difference(self, what: str, row: ComparedRow) -> Difference:
        keys = self._table.keys or tuple(self._names)
        key = {name: _shown(row.values[self._names.index(name)]) for name in keys}
        return Difference(table=self._table.name, what=what, key=key, position=self._position)


def columns_differ(table: str, live: tuple[Column, ...], log: tuple[Column, ...], position: int) -> Difference:
    def shown(columns: tuple[Column, ...]) -> str:
        return ", ".join(f"{c.name} {c.type}{' NOT NULL' if c.not_null else ''}" for c in columns)

    return Difference(table=table, what="columns", key={}, live=shown(live), log=shown(log), position=position)


def _narrowed(place: str, live: Any, log: Any) -> tuple[str, Any, Any]:
    """The first place where two documents differ."""
    if isinstance(live, bytes) and isinstance(log, bytes):
        try:
            live_document, log_document = values.read(live), values.read(log)
        except ValueError:
            return place, live, log
        return _first_in(place, live_document, log_document) or (place, live, log)
    return place, live, log


def _first_in(place: str, live: Any, log: Any) -> tuple[str, Any, Any] | None:
    if isinstance(live, dict) and isinstance(log, dict) and live.keys() == log.keys():
        inside = ((f"{place}/{name}", live[name], log[name]) for name in live)
    elif isinstance(live, list) and isinstance(log, list) and len(live) == len(log):
        inside = ((f"{place}/{i}", ours, theirs) for i, (ours, theirs) in enumerate(zip(live, log, strict=True)))
    else:
        return None if live == log else (place, live, log)
    return next((found for deeper in inside if (found := _first_in(*deeper)) is not None), None)


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        text = value.decode(errors="backslashreplace")
    elif isinstance(value, dict | list | bool | int | float):
        text = pydantic_core.to_json(value).decode()
    else:
        text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
