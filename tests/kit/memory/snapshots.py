"""Snapshots in memory."""

from collections.abc import Sequence
from uuid import UUID

from application.engine.ports.snapshots import Snapshot, SnapshotPlace, StreamSince
from domain.kernel import RecordedEvent
from tests.kit.memory.log import MemoryLog

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
        newest = max(fitting, key=lambda snapshot: snapshot.version, default=None)
        return newest, [event for event in events if newest is None or event.version > newest.version][:limit]

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
            for version in sorted(kept)[:-KEPT]:
                del kept[version]
