"""What a read model is written with: ours import it from here, and so do those of plug-ins, for which this page is a promise."""

from domain.registry import REGISTRY
from projections.engine.kernel import (
    Connection,
    Database,
    Handler,
    ListedRow,
    Projection,
    Timestamp,
    by_topic,
    dump_json,
    in_turns,
    listed,
    load_json,
    topics_of,
)
from projections.engine.positions import Positions

decoded = REGISTRY.decoded
"""The event of a `RecordedEvent`, upcast to its newest version. Raises ValueError, UnknownEvent."""

__all__ = [
    "Connection",
    "Database",
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
