"""What every slice is made of: events, commands, states, identity, metadata and the decider that ties them together."""

import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, Self, TypeVar
from uuid import UUID, SafeUUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_EVENT_BYTES = 256 * 1024
"""Largest encoded event accepted by default; the hard limit is NATS's max_payload (1 MiB)."""

Json = Any
"""Any JSON value. Kept as `Any`: pydantic's recursive JsonValue would copy and re-check every nested value."""

NAME_PATTERN = r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=100)]
"""A name of an agent, tool or step: lower-case words, dots between; safe as tokens of a NATS subject."""
NAME_AT_VERSION = r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*(@[^\x00]+)?$"
"""A name, and perhaps `@` and a version."""


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain a NUL character")  # Postgres text cannot hold it
    return value


Text = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_no_nul)]
ShortText = Annotated[str, StringConstraints(max_length=500), AfterValidator(_no_nul)]


Priority = Literal["high", "normal", "low"]
MAX_DEADLINE_S = 10 * 365 * 86_400.0
Deadline = Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)]
"""Seconds after which a run fails that has not ended."""
"""The class of a run. Its work waits for workers among the work of its class."""

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
"""All classes, the one that goes first in front."""


class Value(BaseModel):
    """A frozen value. Unknown fields are refused, so that a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(BaseModel):
    """A fact. `TOPIC` and `VERSION` name it for ever. Unknown fields are ignored: an older reader survives a newer writer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    TOPIC: ClassVar[str]
    VERSION: ClassVar[int] = 1

    @property
    def stored_version(self) -> int:
        """The version as which the event is stored: the oldest one that it fits, where older readers shall not miss it."""
        return self.VERSION

    def dated(self, recorded_at: datetime) -> Self:
        """The event with the time of its recording in its own field of time, if it has such a field and the field is empty."""
        return self


def unsaid(value: object) -> bool:
    """Whether a field says nothing, and is left out of stored JSON (`exclude_if`): events that do not need it stay as small as
    they were, and older readers of a value know all of its fields."""
    return value is None or value is False or value == () or value == {}


is_empty = operator.not_
"""The same for fields that hold no number and not just any JSON: a function of C, which takes a tenth of the time."""


def unsaid_number(value: object) -> bool:
    """As `unsaid`, for a number whose 0 says nothing."""
    return value == 0


class Command(Value):
    """What should happen to one stream."""


class Scheduled(NamedTuple):
    """A command that an event schedules for later."""

    delay_s: float
    """Counted from the time at which the event was recorded."""
    command: Command
    at: datetime | None = None
    """The time at which it is due, where the event says one."""


class Evaluated(NamedTuple):
    """The value of an expression. Where it has none, `error` says why."""

    value: Json = None
    error: str | None = None


@dataclass(slots=True)
class Spent:
    """What one decision has spent on expressions. It begins with nothing."""

    units: float = 0.0


class Functions(Protocol):
    """Pure functions that the rules of a slice may use beside their state and their command. The catalog puts them in.

    A result belongs into an event, so that a fold and a replay never ask.
    """

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        """The value of a CEL expression over named JSON values. Raises nothing: an error is a value, too.

        `spent`: what the decision has spent on expressions. They may take 50 ms together, or each of them without it.
        """
        ...

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """The values that an expression names, by their paths (`steps.review.result`). Raises nothing: an expression that cannot be
        evaluated names none."""
        ...

    def misfit(self, schema: Json, value: Json) -> str | None:
        """What does not fit a JSON Schema. None: the value fits."""
        ...


class NoFunctions:
    """Where no expression can be evaluated, and nothing is known of schemas."""

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        return Evaluated(error="no expression can be evaluated here")

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        return {}

    def misfit(self, schema: Json, value: Json) -> str | None:
        return None


NO_FUNCTIONS: Functions = NoFunctions()


E_co = TypeVar("E_co", bound=Event)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Decider(Generic[S]):
    """One slice's rules: the state of a stream that has no events, what follows from a command, what an event changes.

    `decide` raises a `DomainError` for a refused command and returns no events if there is nothing to do (a repeated command).
    """

    slice: str
    initial: Callable[[], S]
    decide: Callable[[S, Any], list[Event]]
    evolve: Callable[[S, Any], S]
    evolve_by_all: Callable[[S, Sequence[Any]], S] | None = None
    """The same as `evolve` for one event after the other, where a slice has a faster way for many."""
    decide_with: Callable[[S, Any, Functions], list[Event]] | None = None
    """Decides instead of `decide`, where a slice needs functions. `decide` is then the same without any (`without_functions`)."""

    def events(self, state: S, command: Any, functions: Functions) -> list[Event]:
        """What follows from a command."""
        return self.decide(state, command) if self.decide_with is None else self.decide_with(state, command, functions)

    def fold(self, state: S, events: Sequence[Any]) -> S:
        """The state after all of the events."""
        if self.evolve_by_all is not None:
            return self.evolve_by_all(state, events)
        for event in events:
            state = self.evolve(state, event)
        return state


def without_functions(decide_with: Callable[[S, Any, Functions], list[Event]]) -> Callable[[S, Any], list[Event]]:
    """The rules of a slice that needs functions, where there are none."""

    def decide(state: S, command: Any) -> list[Event]:
        return decide_with(state, command, NO_FUNCTIONS)

    return decide


if TYPE_CHECKING:
    from dataclasses import replace as replace  # type checkers know its fields
else:

    def replace(state: S, /, **changes: Any) -> S:
        """A frozen dataclass (without slots) with some fields changed: `dataclasses.replace` in a fifth of its time.

        A fold does little else. Nothing need be checked: the other fields were checked when the state was built.
        """
        copy = object.__new__(type(state))
        fields = copy.__dict__
        fields.update(state.__dict__)
        fields.update(changes)
        return copy


class Metadata(BaseModel):
    """Who asked for an event and why. The command loop puts it on every event; nobody does so by hand.

    Unknown fields are ignored, as those of events are. A new field is read one release before a release writes it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    actor: str
    """Who asked: `key:<key id>`, `saga:<name>`, `trigger:<name>`, `timer`, `system`."""
    correlation_id: UUID
    """The same on everything that follows from one request."""
    causation_id: str
    """What directly caused this: a command id, or `<stream id>:<version>` of an event."""
    command_id: UUID
    traceparent: str | None = None
    on_behalf_of: str | None = None
    """For whom the actor asked, as the caller says. None: for nobody."""


def who_asked(metadata: str) -> tuple[str | None, str | None]:
    """Actor and `on_behalf_of` of stored metadata. None where the metadata, which another program may have written, has none."""
    said = json.loads(metadata)
    return said.get("actor"), said.get("on_behalf_of")


class RecordedEvent(NamedTuple):
    """An event as the log holds it. `state` is the canonical JSON, decoded on demand by an `EventRegistry`."""

    position: int
    """Place in the total order of the log: 1, 2, 3 … without a gap."""
    tenant_id: UUID
    stream_id: UUID
    version: int
    """Place in its stream: 1, 2, 3 …"""
    root_id: UUID
    """The run for everything inside a run, else the stream itself."""
    topic: str
    schema_version: int
    state: bytes
    metadata: str
    """`Metadata` as JSON text. Parsed only where it is needed."""
    recorded_at: datetime
    settled: int = 0
    """Mask of the sagas whose whole answer was appended together with the event. Bit n stands for the saga with the number n."""

    @property
    def name(self) -> str:
        """`<stream id>:<version>`: names the event, also before it has a position."""
        return f"{self.stream_id}:{self.version}"


_TIME_BITS = 0xFFFFFFFFFFFF << 80
_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_OTHER_BITS = ((1 << 80) - 1) & ~(0xF << 76) & ~(0x3 << 62)
_FROM_NUMBER, _SET = object.__new__, object.__setattr__


def derive_id(parent: UUID, name: str) -> UUID:
    """A UUIDv7-shaped id that follows from its parent and a name.

    The parent's millisecond stamp is kept, so that derived ids land near the right edge of the indexes, where random ones (UUIDv5)
    would scatter. The other 74 bits are SHA-256 of parent and name; RFC 9562, section 5.7, leaves their content open.
    """
    digest = int.from_bytes(hashlib.sha256(parent.bytes + name.encode()).digest()[:10], "big")
    derived = _FROM_NUMBER(UUID)  # the constructor of UUID looks at six other forms of an id first
    _SET(derived, "int", (parent.int & _TIME_BITS) | (digest & _OTHER_BITS) | _VERSION_AND_VARIANT)
    _SET(derived, "is_safe", SafeUUID.unknown)
    return derived


def same_json(one: Json, other: Json) -> bool:
    """Whether two JSON values are equal, whatever the order of their fields. Python's `==` would take `true` for `1`."""
    return one is other or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@lru_cache(maxsize=1_000)
def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as every interface of ours writes time. All events of an append have one time."""
    text = at.isoformat(timespec="milliseconds")
    if not text.endswith("+00:00"):
        text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text[:-6] + "Z"
