"""An event store that tells this process what it has appended, before the log on NATS brings the events back."""

from collections.abc import Callable, Iterable, Iterator

from application.engine.ports.log import AppendRequest, AppendResult, EventStore
from application.engine.reading.watches import HeardEvent

Told = Callable[[Iterable[HeardEvent]], None]
"""Called with the events of an append that is durable. It must neither wait nor raise."""


class TellingStore:
    """Implements the port `EventStore` over another store. `told` is not called for a command that was recorded before."""

    def __init__(self, store: EventStore, told: Told) -> None:
        self._store = store
        self._told = told
        self.read_stream = store.read_stream
        self.read_streams = store.read_streams
        self.find_command = store.find_command
        self.read_append = store.read_append

    async def append(self, request: AppendRequest) -> AppendResult:
        result = await self._store.append(request)
        if not result.duplicate:
            self._told(_events(request))
        return result


def _events(request: AppendRequest) -> Iterator[HeardEvent]:
    versions = [stream.expected_version for stream in request.streams]
    for index, event, _ in request.events:
        versions[index] += 1
        yield HeardEvent(request.streams[index].stream_id, event.topic, versions[index])
