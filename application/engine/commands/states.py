"""States of streams: from the cache, a snapshot, the log. A state is believed only as far as an append checks its version."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any
from uuid import UUID

from application.engine.background import end
from application.engine.catalog import Catalog
from application.engine.commands import snapshots as loading
from application.engine.commands.cache import Loaded, StateCache
from application.engine.commands.joint_reads import JointReads
from application.engine.commands.snapshots import Snapshotter
from application.engine.ports.log import EventStore, StreamEvent, StreamPlace
from domain.kernel import Decider, RecordedEvent

PART = 100
"""Events of a long stream that become state at once."""
FOREIGN = "another program"
"""Stands in place of the slice for a stream of a program that only uses the log."""

_Event = RecordedEvent | StreamEvent


class States:
    """The states of streams that one process knows, and how it learns of others."""

    def __init__(self, store: EventStore, catalog: Catalog, snapshots: Snapshotter | None) -> None:
        self._store = store
        self._newer = JointReads(partial(_one_stream, store), store.read_streams)
        self._registry = catalog.registry
        self._rules = catalog.rules
        self._snapshots = snapshots
        self._cache = StateCache()

    def forget(self) -> None:
        self._cache = StateCache()
        if self._snapshots is not None:
            self._snapshots.forget()

    def known(self, tenant_id: UUID, stream_id: UUID) -> Loaded | None:
        """The stream as this process knows it. The log may hold newer events."""
        return self._cache.get(tenant_id, stream_id)

    async def read(self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, *, in_company: bool = False) -> Loaded:
        """The stream with all its events. `decider`: the rules that the caller expects the stream to have.

        A stream of another slice is folded by its own rules and cached all the same. A cached one is not read again: its slice,
        which is all that the caller can learn, is for ever. `in_company`: other streams are read in this moment, too.
        """
        known = self._cache.get(tenant_id, stream_id)
        if known is not None and known.slice != decider.slice:
            return known
        if known is not None or self._snapshots is None:
            base = known or Loaded(decider.initial())
            newer = await self._newer.read(StreamPlace(tenant_id, stream_id, base.version), in_company=in_company)
        else:
            restored = await self._snapshots.load(decider, tenant_id, stream_id, in_company=in_company)
            base = Loaded(
                restored.state, restored.version, restored.position, restored.size, decider.slice if restored.version else ""
            )
            newer = restored.newer
        if not newer:
            if known is None and base.version:
                self._cache.put(tenant_id, stream_id, base)
            return base
        rules, state, size = decider, base.state, base.size
        if not base.version:
            own = self._rules.get(newer[0].topic)
            if own is None:  # no slice has rules for its events
                return await self._foreign(tenant_id, stream_id, newer)
            if own.slice != decider.slice:
                rules, state = own, own.initial()
        decode = self._registry.decode

        def fold(part: Sequence[_Event]) -> None:
            nonlocal state, size
            state = rules.fold(state, [decode(one.topic, one.schema_version, one.state) for one in part])
            size += sum([len(one.state) for one in part])

        if len(newer) < min(PART, loading.PAGE):  # nearly every stream
            fold(newer)
            last: _Event = newer[-1]
        else:
            async with aclosing(self._parts(tenant_id, stream_id, newer)) as parts:
                async for part in parts:
                    fold(part)
                    last = part[-1]
        loaded = Loaded(state, last.version, last.position, size, rules.slice, last.root_id)
        self.learned(rules, tenant_id, stream_id, loaded, since=base.version)
        return loaded

    async def meet(self, tenant_id: UUID, streams: Mapping[UUID, Decider[Any]], *, fresh: bool = False) -> None:
        """Reads those of the streams that this process does not know, together; with `fresh`, what is newer of the others, too.

        What cannot be read is left to who needs it.
        """
        reading = [
            self.read(decider, tenant_id, stream_id, in_company=True)
            for stream_id, decider in streams.items()
            if fresh or self.known(tenant_id, stream_id) is None
        ]
        if reading:
            await asyncio.gather(*reading, return_exceptions=True)

    async def _foreign(self, tenant_id: UUID, stream_id: UUID, newer: list[RecordedEvent]) -> Loaded:
        """A stream without rules: only its version and its root count."""
        async with aclosing(self._parts(tenant_id, stream_id, newer)) as parts:
            async for part in parts:
                last = part[-1]
        foreign = Loaded(None, last.version, last.position, slice=FOREIGN, root_id=last.root_id)
        self._cache.put(tenant_id, stream_id, foreign)
        return foreign

    async def _parts(self, tenant_id: UUID, stream_id: UUID, page: Sequence[_Event]) -> AsyncGenerator[Sequence[_Event]]:
        """The events of a stream from a first page on, to the end of the stream. Other work goes on between the parts.

        The database reads the next page while this process works on the one before.
        """
        while page:
            reading = None
            if len(page) == loading.PAGE:
                place = StreamPlace(tenant_id, stream_id, page[-1].version)
                reading = asyncio.create_task(self._store.read_page(place, loading.PAGE), name=f"page:{stream_id}")
            try:
                for first in range(0, len(page), PART):
                    if reading is not None:
                        await asyncio.sleep(0)
                    yield page[first : first + PART]
                page = [] if reading is None else await reading
            finally:
                if reading is not None:
                    await end(reading)

    def learned(self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, loaded: Loaded, *, since: int) -> None:
        """The stream got from version `since` to `loaded`: keeps the state, and offers it for a snapshot."""
        self._cache.put(tenant_id, stream_id, loaded)
        if self._snapshots is not None:
            self._snapshots.offer(
                decider, tenant_id, stream_id, since=since, state=loaded.state, version=loaded.version, position=loaded.position,
                size=loaded.size,
            )  # fmt: skip


async def _one_stream(store: EventStore, place: StreamPlace) -> list[RecordedEvent]:
    return await store.read_stream(place.tenant_id, place.stream_id, after_version=place.after_version, limit=loading.PAGE)
