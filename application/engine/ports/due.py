"""The port of a table of streams by the time at which something is due in them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


class DueStream(NamedTuple):
    """A stream in which something is due."""

    stream_id: UUID
    tenant_id: UUID
    version: int
    """Of the stream, as the table knows it. The stream may have gone on."""


class DueLook(NamedTuple):
    """What a look at the table has found. The times are those of the database's clock."""

    now: datetime
    due: Sequence[DueStream]
    waiting: Sequence[DueStream]
    """Streams that wait for something that has no time."""
    next_in_s: float | None
    """Seconds until the next one is due that was not found. None: there is none."""


class DueStreams(Protocol):
    """One task looks and waits."""

    async def look(self, limit: int, most_waiting: int) -> DueLook:
        """At most `limit` that are due, the earliest first, and some of those that wait, in turns. Raises Unavailable."""
        ...

    async def done(self, streams: Sequence[DueStream]) -> None:
        """What was due in the streams is in the log. A stream that has gone on since stays in the table. Raises Unavailable."""
        ...

    async def put_off(self, streams: Sequence[DueStream], seconds: float) -> None:
        """Nothing comes of the streams at present: they are due again later. Raises Unavailable."""
        ...

    async def wait_for_change(self, timeout: float) -> None:
        """Returns when the table may have something that is due earlier, or after the time-out in seconds."""
        ...
