"""The composition root: settings → a container of real parts. The only place, with the supervisor, that knows the adapters."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from adapters.nats import (
    CredentialsError,
    FanOut,
    FanOutSettings,
    JetStreamSubscription,
    JetStreamWorkQueue,
    LogStream,
    NatsConnection,
    NatsSecurity,
    Relay,
    StreamSettings,
)
from adapters.nats.connection import probe
from adapters.nats.log.stream import parting
from adapters.postgres import migrate as migrations
from adapters.postgres import pool as postgres
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.durability import Durability, durability_of, inspect
from adapters.postgres.leases import PostgresLeases, members
from adapters.postgres.listener import ChannelListener
from adapters.postgres.log.append_signal import AppendSignal
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.histories import CHANNEL as HISTORIES
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.log.identity import become_a_copy, log_id_of
from adapters.postgres.log.snapshots import PostgresSnapshots
from adapters.postgres.read_models.open_work import PostgresOpenWork
from adapters.postgres.read_models.timers import PostgresTimers
from adapters.postgres.shares import PoolShare, sizes
from adapters.telemetry.logging import configure_logging
from api.container import Container, NatsAccess
from api.settings import Role, Settings, SettingsError
from application.catalog import CATALOG
from application.engine.background import side_by_side
from application.engine.commands.loop import CommandLoop
from application.engine.commands.snapshots import Snapshotter
from application.engine.leases import LEASE_S, Group, Membership
from application.engine.parked import ParkedOperations
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.histories import History
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.engine.reconciler import WorkReconciler
from application.engine.retry import persistently
from application.engine.sagas.manager import PARTITIONS, SagaManager
from application.engine.sagas.retry_parked import SagaRetry
from application.engine.timers import TimerService
from projections import timers
from projections.engine import plugins
from projections.engine.checkpoints import PostgresCheckpoints
from projections.engine.operations import Operations
from projections.engine.parked import PostgresParkedEvents
from projections.engine.positions import Positions
from projections.engine.rebuild import jobs
from projections.engine.rebuild.builder import ProjectionBuilder
from projections.engine.runner import ProjectionRunner
from projections.reads import reads_of
from projections.registry import PROJECTIONS, load_projections
from projections.registry import plugins as discovered
from projections.replays import RunReplays

log = structlog.get_logger(__name__)

WORKER_INBOX = "_INBOX_worker"

Loop = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Assembly:
    """A container, and the named loops that the roles of this process must keep running."""

    container: Container | None
    """For the api role; the others need none."""
    loops: dict[str, Loop]
    """Those of the roles, and for each task of an adapter one that raises when that task has ended."""
    joined: asyncio.Event | None
    """Set when this process shares in the work of the engine; None for the api role alone, which has no part in it."""


async def migrate(database_url: str) -> list[str]:
    """Brings the schema up to this release; returns the names of the migrations that were applied.

    Raises:
        SettingsError: the database is there, but there is no way in with this URL and its certificates.
    """
    return [migration.name for migration in await _let_in(partial(migrations.migrate, database_url))]


async def pending_migrations(database_url: str) -> list[str]:
    return [migration.name for migration in await migrations.pending(database_url)]


async def begin_history(
    database_url: str, reason: str, last_common: int | None, *, copy: bool = False
) -> tuple[History, History, int]:
    """For a log that was restored: the history that ended, the one that goes on, and the head.

    They are the same where a new one has begun already. See `HistoryKeeper.restored`. `copy`: the log gets an id of its own first,
    because the one that it was copied from goes on. Raises SettingsError, Unavailable.
    """
    await migrate(database_url)
    pool = await postgres.open_pool(database_url, role="restored", max_size=1)
    try:
        if copy:
            await become_a_copy(pool)
        histories = HistoryKeeper(PostgresHistories(pool))
        before, now = await histories.restored(reason, last_common)
        return before, now, (await histories.fresh()).head
    finally:
        await pool.close()


def set_up_logging(settings: Settings, role: str) -> None:
    configure_logging(settings.log_level, settings.log_format, role=role)


@asynccontextmanager
async def assemble(settings: Settings, roles: set[Role]) -> AsyncIterator[Assembly]:
    """Builds what the given roles need; everything is closed again at the end of the block.

    Nothing here waits for Postgres or NATS longer than it takes to find out who they are.

    Raises:
        SettingsError: no URL of a database or of NATS; certificates or credentials that cannot be used; a database that refuses us.
    """
    database_url, nats_url = _urls(settings)
    security = nats_security(settings)
    name = "+".join(sorted(roles))
    async with AsyncExitStack() as stack:
        pools = await _pools(settings, roles, database_url, stack)
        pool = pools.all
        database, feed = PostgresDatabase(pool), PostgresEventFeed(pool)
        written = None
        if "api" in roles:
            from api import metrics  # for who is asked for them

            written = metrics.written
        store = PostgresEventStore(database_url, pools.commands, max_event_bytes=settings.max_event_bytes, written=written)
        await store.start()
        stack.push_async_callback(store.close)
        nats = NatsConnection(nats_url, name=f"tidelog-{name}", security=security)
        await nats.start()
        stack.push_async_callback(nats.close)
        log_id = await persistently(partial(_let_in, partial(log_id_of, pool)))
        histories = HistoryKeeper(PostgresHistories(pools.reads))
        histories.witnesses.append(partial(parting, LogStream(nats, log_id), feed))
        subscription = JetStreamSubscription(nats, feed, histories=histories, log_id=log_id)
        queue = JetStreamWorkQueue(nats, log_id=log_id, replicas=settings.nats_replicas)
        every = settings.snapshot_every
        snapshots = Snapshotter(PostgresSnapshots(pools.commands), CATALOG.registry, every=every) if every else None
        commands = CommandLoop(store, CATALOG, max_event_bytes=settings.max_event_bytes, snapshots=snapshots)
        cloud_events = CloudEventEncoder(CATALOG.registry.events)
        kept = FanOutSettings(settings.fanout_max_age_s, settings.fanout_max_bytes, settings.nats_replicas)
        fanout: FanOut | None = None
        if settings.fanout:
            fanout = FanOut(nats, subscription, feed, cloud_events, histories=histories, log_id=log_id, settings=kept)
            histories.witnesses.append(fanout.parting)
        stack.enter_context(histories.on_change(commands.forget))
        begun = await stack.enter_async_context(listening(database_url, HISTORIES))
        container: Container | None = None
        loops: dict[str, Loop] = {
            "writer": store.failed(),
            "nats": nats.failed(),
            "histories": histories.run(begun.wait),
            "histories-listener": begun.failed(),
        }
        if snapshots is not None and roles & {"api", "saga"}:  # those that give commands
            loops["snapshots"] = snapshots.run()
        if "api" in roles:
            from application.workers import Workers  # brings jsonschema-rs, which only this role needs

            reads = PostgresEventFeed(pools.reads)
            positions, replays = Positions(database), RunReplays(feed)  # one question at a time, whoever and however many ask
            stack.push_async_callback(positions.close)
            stack.push_async_callback(replays.close)
            live = LiveFeed(reads, subscription, histories)
            operations = Operations(PostgresDatabase(pools.reads), reads, PROJECTIONS, discovered)
            parked_events = PostgresParkedEvents(PostgresDatabase(pools.reads))
            container = Container(
                settings=settings,
                database=PostgresDatabase(pools.reads),
                feed=reads,
                command_database=PostgresDatabase(pools.commands),
                histories=histories,
                commands=commands,
                cloud_events=cloud_events,
                workers=Workers(commands, queue, live),
                live=live,
                positions=positions,
                reads=reads_of(
                    PostgresDatabase(pools.reads), keys=PostgresDatabase(pools.commands), health=PostgresDatabase(pools.health)
                ),
                projections=operations,
                parked=ParkedOperations(parked_events, operations, SagaRetry(commands, queue, CATALOG, reads, parked_events)),
                replays=replays,
                work_queue=queue,
                nats_access=NatsAccess(_for_workers(settings, nats_url), WORKER_INBOX),
                log_head=PostgresEventFeed(pools.health).head,
                members=partial(members, pools.health),
                streams=partial(_copied, LogStream(nats, log_id), fanout),
                durable=partial(_durable, pools.health),
                dependencies={"postgres": partial(postgres.check_health, pools.health), "nats": nats.check_health},
            )
            loops["live"] = container.live.run()
            metrics.WAITING_APPENDS.set_function(lambda: store.waiting)
        groups: list[Group] = []
        joined: asyncio.Event | None = None
        if "relay" in roles:
            signal = AppendSignal(database_url)
            await signal.start()
            stack.push_async_callback(signal.close)
            loops["appends"] = signal.failed()
            relay = partial(Relay, nats, feed, signal, histories=histories, log_id=log_id, settings=_relay_settings(settings))
            groups.append(Group("relay", ("relay",), lambda _: relay().run()))
            if fanout is not None:
                run_fanout = fanout.run
                groups.append(Group("fanout", ("fanout",), lambda _: run_fanout()))
        if "projector" in roles:
            projections = await plugins.installed(database, load_projections())
            by_unit = {f"projection:{projection.name}": projection for projection in projections}

            async def project(units: frozenset[str]) -> None:
                await ProjectionRunner([by_unit[unit] for unit in sorted(units)], database, subscription).run()

            async def build(_: frozenset[str]) -> None:
                async with listening(database_url, jobs.CHANNEL) as requests:
                    await side_by_side(requests.failed(), ProjectionBuilder(projections, database, feed, requests).run())

            groups += [Group("projections", tuple(by_unit), project), Group("rebuilds", ("rebuilds",), build)]
        if "saga" in roles:
            checkpoints = PostgresCheckpoints(database)

            async def react(units: frozenset[str]) -> None:
                await SagaManager(commands, subscription, checkpoints, queue, CATALOG, units).run()

            async def fire(_: frozenset[str]) -> None:
                async with listening(database_url, timers.CHANNEL) as set_timers:
                    service = TimerService(commands, PostgresTimers(database, set_timers), kinds=CATALOG.commands)
                    await side_by_side(set_timers.failed(), service.run())

            groups += [
                Group(
                    "sagas", PARTITIONS, lambda units: SagaManager(commands, subscription, checkpoints, queue, CATALOG, units).run()
                ),
                Group("timers", ("timers",), fire),
                Group("sweeper", ("sweeper",), lambda _: WorkReconciler(PostgresOpenWork(database), queue).run()),
            ]
        if groups:
            sharing = Membership(PostgresLeases(pool, lease_s=LEASE_S, member_id=settings.member_id), groups)
            joined = sharing.joined
            loops["sharing"] = sharing.run()
            loops |= {name: worker.run() for name, worker in sharing.workers.items()}
        yield Assembly(container, loops, joined)


async def _durable(pool: postgres.Connections) -> bool:
    return (await durability_of(pool)).fsync


COMMANDS_WAIT_S, READS_WAIT_S = 10.0, 5.0
"""How long a request waits for a connection."""
MAX_COMMANDS_WAITING, MAX_READS_WAITING = 10_000, 5_000


@dataclass(frozen=True, slots=True)
class _Pools:
    """Where connections come from. Only requests can come in floods, so only the api has shares."""

    all: postgres.Pool
    commands: postgres.Connections
    reads: postgres.Connections
    health: postgres.Connections


async def _pools(settings: Settings, roles: set[Role], database_url: str, stack: AsyncExitStack) -> _Pools:
    name, size = "+".join(sorted(roles)), settings.database_pool_size
    pool = await postgres.open_pool(database_url, role=name, max_size=size)
    stack.push_async_callback(pool.close)
    if "api" not in roles:
        return _Pools(pool, pool, pool, pool)
    health = await postgres.open_pool(database_url, role=f"{name}-health", min_size=0, max_size=1)
    stack.push_async_callback(health.close)
    commands, reads = sizes(size)
    return _Pools(
        all=pool,
        commands=PoolShare(pool, commands, timeout=COMMANDS_WAIT_S, max_waiting=MAX_COMMANDS_WAITING),
        reads=PoolShare(pool, reads, timeout=READS_WAIT_S, max_waiting=MAX_READS_WAITING),
        health=health,
    )


async def _copied(stream: LogStream, fanout: FanOut | None) -> dict[str, int]:
    found = {"relay": await stream.copied()}
    if fanout is not None:
        found["fanout"] = await fanout.copied()
    return {name: position for name, position in found.items() if position is not None}


@asynccontextmanager
async def listening(database_url: str, channel: str) -> AsyncIterator[ChannelListener]:
    """A listener on a connection of its own, for as long as it is needed."""
    listener = ChannelListener(database_url, channel)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


def _urls(settings: Settings) -> tuple[str, str]:
    if settings.database_url is None or settings.nats_url is None:
        raise SettingsError("TIDELOG_DATABASE_URL and TIDELOG_NATS_URL must be set; `tidelog up` starts servers of its own")
    return settings.database_url.get_secret_value(), settings.nats_url.get_secret_value()


def _relay_settings(settings: Settings) -> StreamSettings:
    max_bytes = settings.relay_max_bytes
    return StreamSettings(settings.nats_replicas, settings.relay_max_age_s, -1 if max_bytes is None else max_bytes)


def nats_security(settings: Settings) -> NatsSecurity:
    """Raises SettingsError for a file that cannot be used."""
    security = NatsSecurity(
        ca_file=settings.nats_ca_file,
        cert_file=settings.nats_cert_file,
        key_file=settings.nats_key_file,
        tls_first=settings.nats_tls_first,
        creds_file=settings.nats_creds_file,
        nkey_file=settings.nats_nkey_file,
        token=settings.nats_token.get_secret_value() if settings.nats_token is not None else None,
    )
    try:
        security.check()
    except CredentialsError as error:
        raise SettingsError(f"TIDELOG_NATS_…: {error}") from None
    return security


async def durability(database_url: str) -> Durability:
    """What the database does with acknowledged appends. Raises Unavailable: it is away, or the log would take none."""
    with postgres.translate_errors():
        async with await postgres.connect(database_url, role="doctor") as connection:
            return await inspect(connection)


async def check_nats(settings: Settings, *, timeout: float) -> None:
    """Whether NATS lets us in and JetStream answers. Raises Unavailable with the reason, SettingsError."""
    assert settings.nats_url is not None
    await probe(settings.nats_url.get_secret_value(), security=nats_security(settings), timeout=timeout)


T = TypeVar("T")


async def _let_in(attempt: Callable[[], Awaitable[T]]) -> T:
    """At start there is nobody yet to whom health could tell that the database refuses us."""
    try:
        return await attempt()
    except postgres.DatabaseRefused as error:
        raise SettingsError(f"TIDELOG_DATABASE_URL: {error.message}") from error


def _for_workers(settings: Settings, nats_url: str) -> str:
    return settings.worker_nats_url.get_secret_value() if settings.worker_nats_url is not None else nats_url
