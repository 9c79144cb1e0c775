"""`LogIndex` in memory."""

from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.ids import StreamStart


class MemoryLogIndex:
    """Implements `application.engine.ports.ids.LogIndex`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log

    async def streams(self, tenant_id: UUID, first: UUID, last: UUID, *, limit: int) -> tuple[list[StreamStart], bool]:
        self.log.reach()
        ids = sorted(stream for stream, events in self.log.streams.items() if events and first <= stream <= last)
        starts = [self.log.streams[stream][0] for stream in ids[:limit]]
        found = [
            StreamStart(event.stream_id, event.root_id, event.topic, event.position)
            for event in starts
            if event.tenant_id == tenant_id
        ]
        return found, len(ids) <= limit

    async def of_command(self, tenant_id: UUID, command_id: UUID) -> range | None:
        self.log.reach()
        result = self.log.commands.get((tenant_id, command_id))
        return None if result is None else range(result.last_position - result.event_count + 1, result.last_position + 1)

    async def of_event(self, tenant_id: UUID, stream_id: UUID, version: int) -> int | None:
        self.log.reach()
        events = [event for event in self.log.streams.get(stream_id, ()) if event.tenant_id == tenant_id]
        return events[version - 1].position if version <= len(events) else None
