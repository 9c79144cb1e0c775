"""Replay of the whole log: every stream is folded to its state, which proves that it can be, and gives a digest.

Events come stream after stream, so one state at a time is in memory. Only the digest of a stream is kept. The sum of the digests is
the same however the log was cut and whichever process folded which part.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from application.engine.catalog import Catalog
from application.engine.commands.state_models import model_of
from application.engine.ports.log import StreamRange, StreamRanges, StreamRow
from domain.kernel import Decider

RANGE_EVENTS = 20_000
"""Events in one range: small enough that processes end at about the same time."""
MAX_FAILURES = 100
"""At most so many failures of one range are reported one by one. All failures are counted."""
_MODULUS = 2**256


class ForeignStream(Exception):
    """A stream of a program that only uses the log: no slice has its events."""


class NotFoldable(Exception):
    """The rules do not accept an event at its place."""

    def __init__(self, version: int, topic: str, reason: object) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason))
        self.version = version
        self.topic = topic


@dataclass(frozen=True, slots=True)
class StreamFailure:
    """A stream that does not fold, and its first event that did not."""

    stream_id: UUID
    version: int
    topic: str
    error: str


@dataclass(slots=True)
class Replayed:
    """The result of a replay. Results of parts can be added."""

    events: int = 0
    streams: Counter[str] = field(default_factory=Counter)
    """Folded streams by slice."""
    foreign: int = 0
    """Streams of programs that only use the log: there are no rules to fold them. Their events are counted."""
    failed: int = 0
    failures: list[StreamFailure] = field(default_factory=list)
    """The first ones of each range."""
    digest: int = 0

    def add(self, other: "Replayed") -> None:
        self.events += other.events
        self.streams += other.streams
        self.foreign += other.foreign
        self.failed += other.failed
        self.failures += other.failures
        self.digest = (self.digest + other.digest) % _MODULUS

    @property
    def hex_digest(self) -> str:
        """SHA-256 digests of all streams' ids, versions and states, added up. Equal for equal logs and equal rules."""
        return f"{self.digest:064x}"


class StreamFolder:
    """Folds streams by the rules of a product's catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._decode = catalog.registry.decode
        self._rules = catalog.rules
        self._initial = {name: decider.initial() for name, decider in catalog.deciders.items()}
        self._models = {name: model_of(catalog.registry, decider) for name, decider in catalog.deciders.items()}
        self._subjects = frozenset(topic.partition(".")[0] for topic in catalog.rules)

    def fold_range(self, log: StreamRanges, part: StreamRange, *, until: int, tenant_id: UUID | None = None) -> Replayed:
        """The states of all streams of a range at a position. Raises Unavailable."""
        return self.fold(log.pages(part, until=until, tenant_id=tenant_id))

    def fold(self, pages: Iterable[list[StreamRow]]) -> Replayed:
        """Folds events that come stream after stream. A stream that does not fold is reported, and the rest goes on."""
        done = Replayed()
        for stream_id, rows in groupby(_counted(pages, done), key=itemgetter(0)):
            try:
                decider, version, state = self.fold_stream(rows)
            except ForeignStream:
                done.foreign += 1
                continue
            except NotFoldable as error:
                done.failed += 1
                if len(done.failures) < MAX_FAILURES:
                    done.failures.append(StreamFailure(UUID(bytes=stream_id), error.version, error.topic, str(error)[:500]))
                continue
            what = stream_id + version.to_bytes(8, "big") + self._models[decider.slice].encode(state)
            done.streams[decider.slice] += 1
            done.digest = (done.digest + int.from_bytes(hashlib.sha256(what).digest(), "big")) % _MODULUS
        return done

    def fold_stream(self, rows: Iterable[StreamRow]) -> tuple[Decider[Any], int, Any]:
        """Rules, version and state of one stream, of all of its events. Raises NotFoldable, ForeignStream."""
        decode, rules = self._decode, self._rules
        decider: Decider[Any] | None = None
        state, version = None, 0
        for _, number, topic, schema_version, data in rows:
            if decider is None:
                decider = rules.get(topic)
                if decider is None:
                    if topic.partition(".")[0] not in self._subjects:
                        raise ForeignStream(topic)
                    raise NotFoldable(number, topic, "this release has no event of that name")
                state, evolve = self._initial[decider.slice], decider.evolve
            elif rules.get(topic) is not decider:
                raise NotFoldable(number, topic, f"not an event of {decider.slice}, as those before it are")
            if number != version + 1:
                raise NotFoldable(number, topic, f"comes after version {version}")
            try:
                state = evolve(state, decode(topic, schema_version, data))
            except Exception as error:  # any error of the rules is the failure of this stream, and is reported
                raise NotFoldable(number, topic, error) from error
            version = number
        assert decider is not None, "a stream has events"
        return decider, version, state


def _counted(pages: Iterable[list[StreamRow]], done: Replayed) -> Iterator[StreamRow]:
    for page in pages:
        done.events += len(page)
        yield from page
