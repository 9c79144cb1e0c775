"""The names that read models are written with. Plug-ins import them from here too, so this module keeps its path and its names."""

from application.engine.ports.views import ListedRow, Timestamp
from domain.registry import REGISTRY
from projections.engine.kernel import (
    Connection,
    Database,
    EarlierForm,
    Handler,
    Projection,
    by_topic,
    dump_json,
    in_turns,
    listed,
    load_json,
    once,
    topics_of,
)
from projections.engine.positions import Positions

decoded = once(REGISTRY.decoded)
"""The event of a `RecordedEvent`, upcast to its newest version, for reading only. Raises ValueError, UnknownEvent."""

__all__ = [
    "Connection",
    "Database",
    "EarlierForm",
    "Handler",
    "ListedRow",
    "Positions",
    "Projection",
    "Timestamp",
    "by_topic",
    "decoded",
    "dump_json",
    "in_turns",
    "listed",
    "load_json",
    "topics_of",
]
