"""Values that are too large for a document or a list. A reference stands in the place of such a value, and has a route of its own.

A reference stands beside the value, in `large` of the same object, by the name of the field. Users write values and never `large`,
so no value of theirs can be taken for a reference.
"""

from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

import pydantic_core
from pydantic import BaseModel
from pydantic import Field as ModelField

from domain.failures import Failure
from domain.kernel import Json

LARGE_BYTES = 16 * 1024
"""A value with more bytes of JSON is a reference."""
TOGETHER_BYTES = 1024 * 1024
"""The results in a run's document have at most so many bytes together."""
SHOWN_OF_MESSAGE = 2_000
"""Characters of the message of an error that is a reference."""


Field = Literal["input", "metadata", "result", "error", "entry", "body"]
"""A value that an event holds. `entry`: the result of a journal's entry. `body`: of a message."""


class Held(NamedTuple):
    """A value that an event holds."""

    value: Json


class LargeValue(BaseModel):
    """Where a value is that is too large for its place."""

    ref: str
    """Path whose answer is the value itself."""
    bytes: int
    """Size of the value as JSON."""


Large = dict[str, LargeValue] | None
MEANING = "By field: the values that are too large to stand here. The field itself is then empty. Null: every value is here"


class HoldsLarge(BaseModel):
    """An object that people see, with fields that may be references."""

    large: Large = ModelField(default=None, description=MEANING)

    def put(self, field: str, value: Any, place: LargeValue | None = None) -> None:
        """Sets a field. `place`: where the value is, if it does not stand in the field."""
        setattr(self, field, value)
        if place is not None:
            self.large = {**(self.large or {}), field: place}
        elif self.large is not None:
            self.large = {name: other for name, other in self.large.items() if name != field} or None


class HasLarge(Protocol):
    def put(self, field: str, value: Any, place: LargeValue | None = None) -> None: ...


def most_of_results(steps: int) -> int:
    """A result with more bytes is a reference in the document of a run with so many steps."""
    return min(LARGE_BYTES, TOGETHER_BYTES // steps)


def json_bytes(value: Any) -> int:
    """Size of a value as JSON."""
    return len(pydantic_core.to_json(value))


def put_value(part: HasLarge, field: str, value: Any, path: str, position: int, *, empty: Any = None) -> None:
    """Sets a field to the value, or to `empty` with a reference. `position`: of the event that holds the value."""
    size = json_bytes(value)
    if size <= LARGE_BYTES:
        part.put(field, value)
    else:
        part.put(field, empty, place_of(path, field, position, size))


def put_error(part: HasLarge, error: Failure | None, path: str, position: int) -> None:
    """Sets `error`. A large error keeps its kind, its place and the beginning of its message."""
    size = 0 if error is None else json_bytes(error)
    if error is None or size <= LARGE_BYTES:
        part.put("error", error)
        return
    message = error.message if len(error.message) <= SHOWN_OF_MESSAGE else error.message[:SHOWN_OF_MESSAGE] + "…"
    cut = error.model_copy(update={"message": message, "traceback": None, "causes": ()})
    part.put("error", cut, place_of(path, "error", position, size))


def place_of(path: str, field: str, position: int, size: int) -> LargeValue:
    """`path`: of the object with the field. The reference names the event, so that its answer never changes."""
    return LargeValue(ref=f"{path}/{field}?as_of={position}", bytes=size)


def position_of(place: LargeValue) -> int:
    """The position that a reference names."""
    return int(place.ref.rpartition("=")[2])


def path_of_run(run_id: UUID) -> str:
    return f"/v1/runs/{run_id}"


def path_of_step(run_id: UUID, key: str) -> str:
    return f"/v1/runs/{run_id}/steps/{key}"


def path_of_part(run_id: UUID, key: str, number: int) -> str:
    return f"{path_of_step(run_id, key)}/parts/{number}"


def path_of_call(invocation_id: UUID) -> str:
    return f"/v1/invocations/{invocation_id}"


def path_of_entry(run_id: UUID, position: int) -> str:
    return f"/v1/runs/{run_id}/journal/{position}"


def path_of_message(run_id: UUID, message_id: UUID) -> str:
    return f"/v1/runs/{run_id}/messages/{message_id}"
