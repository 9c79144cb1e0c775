"""Snapshots in memory."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.snapshots import Snapshot, SnapshotPlace, StreamSince
from domain.kernel import RecordedEvent

KEPT = 2


class MemorySnapshots:
    """Implements `application.engine.ports.snapshots.Snapshots`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.rows: dict[UUID, dict[int, Snapshot]] = {}
        """Stream → version → snapshot."""

    async def read_stream(
        self, tenant_id: UUID, stream_id: UUID, *,
        slice_name: str, model: str, until_position: int | None = None, limit: int | None = None,
    ) -> tuple[Snapshot | None, list[RecordedEvent]]:  # fmt: skip
        self.log.reach()
        events = [
            event
            for event in self.log.streams.get(stream_id, ())
            if event.tenant_id == tenant_id and (until_position is None or event.position <= until_position)
        ]
        places = {(event.version, event.position) for event in events}
        fitting = [
            snapshot
            for snapshot in self.rows.get(stream_id, {}).values()
            if (snapshot.tenant_id, snapshot.slice_name, snapshot.model) == (tenant_id, slice_name, model)
            and (snapshot.version, snapshot.position) in places
        ]
        chain = _chain(fitting)
        if not chain:
            return None, events[:limit]
        whole, newest = chain[0], chain[-1]
        found = replace(whole, version=newest.version, position=newest.position, changes=tuple(one.state for one in chain[1:]))
        return found, [event for event in events if event.version > newest.version][:limit]

    async def read_streams(self, places: Sequence[SnapshotPlace]) -> list[StreamSince]:
        return [
            await self.read_stream(tenant_id, stream_id, slice_name=slice_name, model=model)
            for tenant_id, stream_id, slice_name, model in places
        ]

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        self.log.reach()
        for snapshot in snapshots:
            kept = self.rows.setdefault(snapshot.stream_id, {})
            kept[snapshot.version] = snapshot
            whole = sorted(version for version, one in kept.items() if not one.since)
            for version in [version for version in kept if whole[-KEPT:] and version < whole[-KEPT:][0]]:
                del kept[version]


def _chain(fitting: Sequence[Snapshot]) -> list[Snapshot]:
    """The newest snapshot with all that it builds on, the whole state first. Empty where something is missing."""
    by_version = {snapshot.version: snapshot for snapshot in fitting}
    chain: list[Snapshot] = []
    version = max(by_version, default=0)
    while version:
        if version not in by_version or (chain and version >= chain[0].version):
            return []
        chain.insert(0, by_version[version])
        version = chain[0].since
    return chain
