"""The events of a set of slices: the class of each topic, older versions with their upcasts, schemas, encoding and decoding.

Readers and writers of events are given a registry. The product's registry is the list in `domain/registry.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from domain import values
from domain.kernel import Event, RecordedEvent


@dataclass(frozen=True, slots=True)
class Upcast:
    """An older version of an event. The shape is its former class, with a name of its own (`RunStartedV1`) and its `VERSION`."""

    shape: type[Event]
    to_next: Callable[[dict[str, Any]], dict[str, Any]]
    """From this version's JSON object to the next version's."""


def unchanged(value: dict[str, Any]) -> dict[str, Any]:
    """The upcast of a version whose events are events of the next version as they are."""
    return value


class UnknownEvent(Exception):
    """This release does not know a stored topic or version. A newer release wrote it."""


class EventRegistry:
    """The events of some slices, of every version that the log can hold."""

    def __init__(self, slices: Mapping[str, tuple[type[Event], ...]], upcasts: Mapping[tuple[str, int], Upcast]) -> None:
        self.slices = slices
        """Slice → its events, each in its newest version."""
        self.upcasts = upcasts
        """(topic, version) → the upcast of an older version."""
        self.events: dict[str, type[Event]] = {event.TOPIC: event for events in slices.values() for event in events}
        """Topic → the class of its newest version."""
        self.slice_of: dict[str, str] = {event.TOPIC: name for name, events in slices.items() for event in events}
        """Topic → the slice that it is of."""
        # Nearly all events are of the newest version, or are such as they are. One step finds their reader, because a fold does
        # little else.
        self._read_newest: dict[tuple[str, int], Callable[[bytes], Event]] = {
            (topic, version): event.__pydantic_validator__.validate_json
            for topic, event in self.events.items()
            for version in self._read_as_newest(event)
        }

    def _read_as_newest(self, event: type[Event]) -> Iterator[int]:
        """The versions of an event that need no upcast."""
        yield event.VERSION
        for version in range(event.VERSION - 1, 0, -1):
            if self.upcasts[event.TOPIC, version].to_next is not unchanged:
                return
            yield version

    def shapes(self) -> dict[tuple[str, int], type[Event]]:
        """(topic, version) → the class that has the fields of that version, oldest first; all versions that the log can hold."""
        newest = {(topic, event.VERSION): event for topic, event in self.events.items()}
        found = newest | {key: upcast.shape for key, upcast in self.upcasts.items()}
        topics = list(self.events)
        return dict(sorted(found.items(), key=lambda item: (topics.index(item[0][0]), item[0][1])))

    def schema(self, topic: str, version: int) -> dict[str, Any]:
        """The JSON Schema (2020-12) of one version of an event. Every event that was ever stored in that version fits it.

        A field with a default is not required: it may have been added after the first events of the version.

        Raises:
            UnknownEvent: there is no such event or version.
        """
        shape = self.shapes().get((topic, version))
        if shape is None:
            raise UnknownEvent(f"there is no event {topic} of version {version}")
        return shape.model_json_schema(mode="validation")

    def encode(self, event: Event) -> bytes:
        """The canonical JSON of an event, which is stored and hashed."""
        return event.__pydantic_serializer__.to_json(event)

    def decode(self, topic: str, version: int, state: bytes) -> Event:
        """The event of a stored JSON object, upcast to the newest version. Its values may be as deep as `values.read` takes.

        Raises:
            UnknownEvent: this release does not know the topic, or only older versions of it.
            ValueError: the stored object does not fit its class.
        """
        read = self._read_newest.get((topic, version))
        try:
            if read is not None:
                try:
                    return read(state)
                except pydantic.ValidationError as error:
                    if not values.is_beyond_parser(error):
                        raise
            event_class = self.events.get(topic)
            if event_class is None or version > event_class.VERSION:
                raise UnknownEvent(f"event {topic} version {version} is not known to this release")
            value = values.read(state)
            for old in range(version, event_class.VERSION):
                value = self.upcasts[topic, old].to_next(value)
            return event_class.model_validate(value)
        except pydantic.ValidationError as error:
            raise ValueError(f"a stored {topic} version {version} does not fit its class: {error}") from error

    def decoded(self, recorded: RecordedEvent) -> Any:
        """The event that the log holds, as `decode` makes it."""
        return self.decode(recorded.topic, recorded.schema_version, recorded.state)
