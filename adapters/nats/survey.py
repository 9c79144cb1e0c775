"""Lists Tidelog's streams on a NATS, with their logs and their last use: for operators who clean up.

The survey cannot prove that a log is gone, only that nobody has written to its streams, or read them, for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from adapters.nats.connection import NatsConnection
from adapters.nats.jetstream import STREAM_NOT_FOUND, JetStreamError, call, delete_stream
from adapters.nats.names import StreamOwner, owner_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FoundStream:
    """A stream of Tidelog as it was at `seen_at`. Times are those of the NATS server's clock, in UTC."""

    name: str
    owner: StreamOwner
    messages: int
    bytes: int
    created_at: datetime
    written_at: datetime | None
    """Time of its newest message. None: it never had one, or the server no longer knows."""
    used_at: datetime
    """When it was last created, written or read. `seen_at` if a reader waits for its messages."""
    seen_at: datetime
    waiting: int
    """Requests of readers that wait for messages."""


@dataclass(frozen=True, slots=True)
class FoundLog:
    """The streams of one log, or of an unknown log (`log_id` None: `WORK`, the queue of earlier releases)."""

    log_id: str | None
    streams: tuple[FoundStream, ...]

    @property
    def used_at(self) -> datetime:
        return max(stream.used_at for stream in self.streams)

    @property
    def written_at(self) -> datetime | None:
        return max((stream.written_at for stream in self.streams if stream.written_at is not None), default=None)

    def idle(self, at_least: timedelta) -> bool:
        """Whether no stream of the log was used for so long. A living log may read one stream and write another."""
        return max(stream.seen_at for stream in self.streams) - self.used_at >= at_least


async def survey(connection: NatsConnection) -> list[FoundLog]:
    """All logs that have streams on this NATS; the unknown log comes last. Raises Unavailable."""
    by_log: dict[str | None, list[FoundStream]] = {}
    for info in await _pages(connection, "STREAM.LIST", "streams"):
        if (owner := owner_of(info["config"]["name"])) is not None:
            found = await _examined(connection, info, owner)
            by_log.setdefault(owner.log_id, []).append(found)
    return [
        FoundLog(log_id, tuple(sorted(streams, key=lambda stream: stream.name)))
        for log_id, streams in sorted(by_log.items(), key=lambda item: (item[0] is None, item[0] or ""))
    ]


async def remove(connection: NatsConnection, streams: Sequence[str]) -> None:
    """Deletes streams with their messages. Raises Unavailable; some streams may be deleted by then."""
    for stream in streams:
        await delete_stream(connection, stream)
        log.info("stream_removed", stream=stream)


async def _examined(connection: NatsConnection, info: dict[str, Any], owner: StreamOwner) -> FoundStream:
    name, state = info["config"]["name"], info["state"]
    created_at, written_at = _time(info["created"]), _time(state.get("last_ts"))
    assert created_at is not None  # every stream was unused
    seen_at = _time(info.get("ts")) or datetime.now(UTC)
    used, waiting = [created_at, *([written_at] if written_at else [])], 0
    for consumer in await _consumers(connection, name):
        waiting += consumer.get("num_waiting", 0)
        if consumer.get("num_waiting") or consumer.get("push_bound"):
            used.append(seen_at)
        read = (_time((consumer.get(part) or {}).get("last_active")) for part in ("delivered", "ack_floor"))
        used += [time for time in (_time(consumer["created"]), *read) if time is not None]
    return FoundStream(
        name, owner, state["messages"], state["bytes"], created_at, written_at, max(used), seen_at=seen_at, waiting=waiting
    )


async def _consumers(connection: NatsConnection, stream: str) -> list[dict[str, Any]]:
    try:
        return await _pages(connection, f"CONSUMER.LIST.{stream}", "consumers")
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:  # deleted meanwhile
            return []
        raise


async def _pages(connection: NatsConnection, request: str, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await call(connection, request, {"offset": len(found)})
        page = answer.get(key) or []
        found.extend(page)
        if not page or len(found) >= answer.get("total", 0):
            return found


def _time(text: str | None) -> datetime | None:
    """Parses a time of NATS. Nanoseconds are cut. The year 1 stands for never (None)."""
    if text is None or text.startswith("0001-"):
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}").replace(tzinfo=UTC)
