"""An event store that tells this process what it has appended, before the log on NATS brings the events back."""

from collections.abc import Callable

from application.engine.ports.log import AppendRequest, AppendResult, EventStore

Told = Callable[[AppendRequest, AppendResult], None]
"""Called with an append that is durable, and with its result. It must neither wait nor raise."""


class TellingStore:
    """Implements the port `EventStore` over another store. `told` is not called for a command that was recorded before."""

    def __init__(self, store: EventStore, told: Told) -> None:
        self._store = store
        self._told = told
        self.read_stream = store.read_stream
        self.read_streams = store.read_streams
        self.read_page = store.read_page
        self.find_command = store.find_command
        self.read_append = store.read_append

    async def append(self, request: AppendRequest) -> AppendResult:
        result = await self._store.append(request)
        if not result.known:
            self._told(request, result)
        return result
