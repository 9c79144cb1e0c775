"""An event store that tells this process what it has appended, before the log on NATS brings the events back."""

from collections.abc import Callable, Iterable
from uuid import UUID

from application.engine.ports.log import AppendRequest, AppendResult, EventStore

Told = Callable[[Iterable[tuple[UUID, str]]], None]
"""Called with the stream and the topic of each event of an append that is durable. It must neither wait nor raise."""


class TellingStore:
    """Implements the port `EventStore` over another store. `told` is not called for a command that was recorded before."""

    def __init__(self, store: EventStore, told: Told) -> None:
        self._store = store
        self._told = told
        self.read_stream = store.read_stream
        self.find_command = store.find_command
        self.read_append = store.read_append

    async def append(self, request: AppendRequest) -> AppendResult:
        result = await self._store.append(request)
        if not result.duplicate:
            self._told((request.streams[placed.stream].stream_id, placed.event.topic) for placed in request.events)
        return result
