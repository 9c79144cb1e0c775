"""Parts on PostgreSQL that several roles need."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import ChannelListener, Notifications, listening
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.histories import CHANNEL as HISTORIES
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.log.identity import log_id_of
from api.assembly import access, tables
from api.assembly.parts import Listening, Parts, part
from api.assembly.pools import Pools, Waits, open_pools
from application.engine.ports.blobs import BlobStore
from application.engine.ports.browser_sessions import BrowserSessions, SessionEndings
from application.engine.ports.idempotency import IdempotencyKeys
from application.engine.ports.log import EventFeed, EventStore
from application.engine.ports.outcomes import OutcomeCounts
from application.engine.ports.permits import PermitBook, PermitNews
from application.engine.ports.sessions import WorkerSessions
from application.engine.ports.snapshots import Snapshots
from application.engine.ports.upkeep import RecordedCommands, UpkeepRuns
from application.engine.ports.work_logs import WorkLogs
from application.engine.reading.histories import HistoryStore
from application.engine.retry import persistently
from projections.engine.kernel import Database

if TYPE_CHECKING:
    from adapters.postgres.log.own_appends import OwnAppends

Share = Literal["commands", "reads", "health"]


@part
async def waits(_: Parts) -> Waits:
    return Waits()


@part
async def pools(parts: Parts) -> Pools:
    database_url, _ = access.urls(parts.settings)
    access.nats_security(parts.settings)  # reports wrong settings before a connection is opened
    shares = await waits(parts) if "api" in parts.roles else None
    size = parts.settings.database_pool_size
    return await open_pools(database_url, role=parts.name, size=size, shares=shares, stack=parts.stack)


@part
async def database(parts: Parts) -> Database:
    """The database for the process's own work."""
    return PostgresDatabase((await pools(parts)).own)


async def database_of(parts: Parts, share: Share) -> Database:
    """The database over the connections of one class of requests."""
    return parts.given["database"] if "database" in parts.given else PostgresDatabase(getattr(await pools(parts), share))


@part
async def feed(parts: Parts) -> EventFeed:
    """The log for the process's own work."""
    return PostgresEventFeed((await pools(parts)).own)


async def feed_of(parts: Parts, share: Share) -> EventFeed:
    """The log over the connections of one class of requests."""
    return parts.given["feed"] if "feed" in parts.given else PostgresEventFeed(getattr(await pools(parts), share))


@part
async def log_id(parts: Parts) -> str:
    """The id of the log. Waits for the database."""
    pool = (await pools(parts)).own
    return await persistently(partial(access.let_in, partial(log_id_of, pool)))


@part
async def history_store(parts: Parts) -> HistoryStore:
    return PostgresHistories((await pools(parts)).commands)


@part
async def notifications(parts: Parts) -> Notifications:
    """The connection on which the process listens."""
    own = Notifications(access.urls(parts.settings)[0])
    await own.start()
    parts.stack.push_async_callback(own.close)
    parts.loops["notifications"] = own.failed
    return own


@part
async def history_signal(parts: Parts) -> Listening:
    return await parts.stack.enter_async_context(listening(await notifications(parts), HISTORIES))


@part
async def own_appends(parts: Parts) -> "OwnAppends | None":
    """What this process appends, for its relay. None: no relay here, or no writer, or another signal is given."""
    if "relay" not in parts.roles or not parts.roles & {"api", "saga"} or {"store", "appends"} & parts.given.keys():
        return None
    from adapters.postgres.log.own_appends import OwnAppends

    return OwnAppends(patient=(await tables.catalog(parts)).is_settled)


@part
async def store(parts: Parts) -> EventStore:
    from adapters.postgres.log.event_store import PostgresEventStore  # relay and projector append nothing

    database_url, _ = access.urls(parts.settings)
    written = None
    if "api" in parts.roles:
        from api import metrics  # only the api role exports metrics

        written = metrics.written
    own = PostgresEventStore(
        database_url,
        (await pools(parts)).commands,
        max_event_bytes=parts.settings.max_event_bytes,
        written=written,
        own=await own_appends(parts),
    )
    await own.start()
    parts.stack.push_async_callback(own.close)
    parts.loops["writer"] = own.failed
    if "api" in parts.roles:
        metrics.WAITING_APPENDS.set_function(lambda: own.waiting)
    return own


@part
async def idempotency(parts: Parts) -> IdempotencyKeys:
    from adapters.postgres.idempotency import PostgresIdempotencyKeys

    return PostgresIdempotencyKeys((await pools(parts)).commands)


@part
async def recorded_commands(parts: Parts) -> RecordedCommands:
    from adapters.postgres.upkeep import PostgresRecordedCommands

    return PostgresRecordedCommands(await database(parts))


@part
async def outcomes(parts: Parts) -> OutcomeCounts:
    from adapters.postgres.outcomes import PostgresOutcomeCounts

    return PostgresOutcomeCounts(await database(parts))


@part
async def work_logs(parts: Parts) -> WorkLogs:
    from adapters.postgres.work_logs import PostgresWorkLogs

    return PostgresWorkLogs(await database(parts))


@part
async def browser_sessions(parts: Parts) -> BrowserSessions:
    from adapters.postgres.browser_sessions import PostgresBrowserSessions

    return PostgresBrowserSessions(await database_of(parts, "commands"))


@part
async def session_endings(parts: Parts) -> SessionEndings:
    from adapters.postgres.browser_sessions import PostgresSessionEndings

    own = PostgresSessionEndings(await notifications(parts))
    parts.stack.push_async_callback(own.close)
    return own


@part
async def blob_store(parts: Parts) -> BlobStore:
    from adapters.postgres.blobs import PostgresBlobs

    return PostgresBlobs(await database_of(parts, "commands"), reads=await database_of(parts, "reads"))


@part
async def upkeep_runs(parts: Parts) -> UpkeepRuns:
    from adapters.postgres.upkeep import PostgresUpkeepRuns

    return PostgresUpkeepRuns(await database_of(parts, "health"))


@part
async def snapshots(parts: Parts) -> Snapshots | None:
    """The snapshots. None: no snapshots are written or read."""
    if not parts.settings.snapshot_every:
        return None
    from adapters.postgres.log.snapshots import PostgresSnapshots

    return PostgresSnapshots((await pools(parts)).commands)


@part
async def worker_sessions(parts: Parts) -> WorkerSessions:
    from adapters.postgres.worker_sessions import PostgresWorkerSessions

    return PostgresWorkerSessions(await database(parts), member_id=parts.settings.member_id)


@part
async def permits(parts: Parts) -> PermitBook:
    from adapters.postgres.permits import PostgresPermits

    return PostgresPermits(await database(parts))


@part
async def permit_news(parts: Parts) -> PermitNews:
    from adapters.postgres.permits import PostgresPermitNews

    own = PostgresPermitNews(await notifications(parts))
    await own.start()
    parts.stack.push_async_callback(own.close)
    return own


@asynccontextmanager
async def listening_on(parts: Parts, channel: str) -> AsyncIterator[ChannelListener]:
    """A listener for the time of the block."""
    async with listening(await notifications(parts), channel) as listener:
        yield listener
