"""The builder: versions of read models made beside the live ones, swapped in one transaction, and checks against the log.

A builder can be killed anywhere. Each page of a job is committed together with the job's position, and the next builder goes on
from there.
"""

import asyncio
import random
from collections.abc import Sequence
from functools import partial

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

from application.engine.ports.checkpoints import LostOwnership
from application.engine.ports.database import Listener
from application.engine.ports.log import EventFeed
from application.engine.ports.projections import Status
from application.engine.retry import persistently
from domain.errors import InvalidState, TidelogError, Unavailable
from projections.engine import plugins, versions
from projections.engine.kernel import Connection, Database, Projection
from projections.engine.rebuild import jobs, verify
from projections.engine.rebuild.backfill import Filler, HandlerBroken
from projections.engine.rebuild.jobs import Build

POLL_S = 60.0
"""How long the builder sleeps without a notification: a notification may be lost."""
LOCK_MS = (100, 200, 400, 800)
"""How long each attempt to swap waits for earlier readers. Later readers wait for the swap as long."""
MAX_ATTEMPTS = 20
"""After so many attempts, about three minutes, a version is held back, so that other jobs get their turn and readers are not
delayed."""
LONGEST_PAUSE_S = 15.0
MAX_GAP = 200
"""The most events that a version catches up while the live tables are locked."""

LIVE_LOCKED = """
INSERT INTO checkpoint AS c (name, position, epoch) VALUES (%s, 0, 0)
ON CONFLICT (name) DO UPDATE SET epoch = c.epoch RETURNING position
"""
LIVE = "SELECT position FROM checkpoint WHERE name = %s"
GO_LIVE = "UPDATE checkpoint SET position = %s, epoch = epoch + 1, updated_at = now() WHERE name = %s"
LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"

log = structlog.get_logger(__name__)


class _Again(Exception):
    """The live version ran ahead meanwhile. The new version must catch up first."""


class ProjectionBuilder:
    """Works on the jobs that `jobs.ask` asked for, one at a time, the oldest first. One process should run it; two do no harm."""

    def __init__(self, projections: Sequence[Projection], database: Database, feed: EventFeed, listener: Listener) -> None:
        self._projections = {projection.name: projection for projection in projections}
        self._database = database
        self._feed = feed
        self._listener = listener

    async def run(self) -> None:
        """Works until cancelled; outages are waited out."""
        while True:
            build = await persistently(self._next)
            if build is None:
                await self._listener.wait(POLL_S)
            else:
                await self._do(build)

    async def _next(self) -> Build | None:
        async with self._database.connection() as connection:
            return await jobs.take_next(connection)

    async def _do(self, build: Build) -> None:
        log.info("build_taken", projection=build.projection, kind=build.kind, status=build.status, position=build.position)
        try:
            projection = self._projections.get(build.projection)
            if projection is None:
                await self._end(build, "failed", f"no projection '{build.projection}' is installed where builds are done")
            elif build.kind == "verify":
                await self._verify(projection, build)
            else:
                await self._version(projection, build)
        except LostOwnership as lost:
            log.info("build_let_go", projection=build.projection, kind=build.kind, reason=str(lost))
        except Exception as error:  # a broken job must not stop the jobs after it
            expected = isinstance(error, TidelogError | HandlerBroken | psycopg.Error)
            log.error("build_failed", projection=build.projection, kind=build.kind, error=str(error), exc_info=not expected)
            await self._fail(build, str(error) if expected else f"{type(error).__name__}: {error}")

    # --- a version ----------------------------------------------------------------------------------------------------

    async def _version(self, projection: Projection, build: Build) -> None:
        filler = await self._begun(projection, build)
        await filler.fill()
        swap = await persistently(lambda: self._ready(build))
        if not swap:
            log.info("build_ready", projection=build.projection)
            return
        await self._analyze(projection, build)
        patience = _Patience()
        try:
            while not await self._try_swap(filler, patience):
                await filler.fill()
        except InvalidState as error:  # the live tables have changed: the new version is kept until a person has looked
            log.warning("swap_refused", projection=build.projection, error=error.message)
            await persistently(partial(self._hold_back, build, error.message))
        else:
            log.info("projection_swapped", projection=build.projection, kind=build.kind, waits=patience.count)

    async def _begun(self, projection: Projection, build: Build) -> Filler:
        async def begin() -> None:
            async with self._database.connection() as connection, connection.transaction():
                if (await jobs.hold(connection, build)).status == "requested":
                    await self._begin(connection, projection, build)

        await persistently(begin)
        filler = Filler(projection, build, self._database, self._feed)
        await persistently(filler.load)
        return filler

    async def _begin(self, connection: Connection, projection: Projection, build: Build) -> None:
        if build.kind == "rollback":
            await versions.check_exchangeable(connection, projection, "previous")
            await jobs.bring_back(connection, build)
        else:
            await versions.make(connection, projection, build.schema)
        await jobs.set_status(connection, build, "building")

    async def _ready(self, build: Build) -> bool:
        """Records that the version is ready, and answers whether the version is to go live."""
        async with self._database.connection() as connection, connection.transaction():
            found = await jobs.hold(connection, build)
            await jobs.set_status(connection, build, "ready")
            return found.swap

    async def _hold_back(self, build: Build, error: str) -> None:
        async with self._database.connection() as connection, connection.transaction():
            await jobs.hold(connection, build)
            await jobs.hold_back(connection, build, error)

    async def _analyze(self, projection: Projection, build: Build) -> None:
        """Collects statistics, so that the first queries on the new tables are planned as well as those on the old ones."""
        async with self._database.connection() as connection:
            for table in projection.tables:
                await connection.execute(SQL("ANALYZE {}").format(Identifier(build.schema, table)))

    # --- the swap -----------------------------------------------------------------------------------------------------

    async def _try_swap(self, filler: Filler, patience: "_Patience") -> bool:
        """One attempt to swap. False: readers hold the tables, or the live version is ahead."""
        try:
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute(LOCK_TIMEOUT, [f"{patience.lock_ms}ms"])
                await self._swap(connection, filler)
        except _Again:
            return False
        except Unavailable as error:
            log.info("swap_waits", projection=filler.build.projection, reason=error.message)
            if patience.count >= MAX_ATTEMPTS:
                holders = await persistently(partial(self._holders, filler.projection))
                raise InvalidState(f"the live tables were never free for a swap: {holders or error.message}") from error
            await patience.pause()
            return False
        return True

    async def _holders(self, projection: Projection) -> str:
        async with self._database.connection() as connection:
            return await versions.holders(connection, projection.tables)

    async def _swap(self, connection: Connection, filler: Filler) -> None:
        """Takes locks in the same order as everybody else (job, tables, checkpoint), and moves the tables."""
        projection, build = filler.projection, filler.build
        found = await jobs.hold(connection, build)
        if found.status == "swapped":
            return  # the answer to the commit was lost
        await versions.check_exchangeable(connection, projection, "rebuild")
        await jobs.forget_previous(connection, projection)
        await versions.lock(connection, await versions.live_schema(connection), projection.tables, "ACCESS EXCLUSIVE")
        row = await (await connection.execute(LIVE_LOCKED, [build.projection])).fetchone()
        assert row is not None
        live, position = int(row[0]), found.position
        if live - position > MAX_GAP:
            raise _Again
        if live > position:
            missing = await self._feed.read(after=position, limit=live - position)
            await filler.apply(connection, position, missing)
            position = live
        await versions.exchange(connection, projection)
        # A version ahead of the live one is as good: the epoch has changed, so the owner reads its position again.
        await connection.execute(GO_LIVE, [position, build.projection])
        await jobs.exchange(connection, build, live)
        if projection.ddl:
            await plugins.remember(connection, projection)
        await jobs.set_status(connection, build, "swapped", position=position)

    # --- a check ------------------------------------------------------------------------------------------------------

    async def _verify(self, projection: Projection, build: Build) -> None:
        filler = await self._begun(projection, build)
        await filler.fill(until=await persistently(lambda: self._live_position(build.projection)))
        await persistently(lambda: self._comparing(build))
        outcome = await persistently(lambda: verify.compare_with_live(self._database, filler))
        status: Status = "equal" if outcome.difference is None else "different"

        async def note() -> None:
            async with self._database.connection() as connection, connection.transaction():
                await jobs.hold(connection, build)
                await jobs.discard(connection, projection, build)
                await jobs.set_status(connection, build, status, difference=outcome.as_text())

        await persistently(note)
        log.info("projection_verified", projection=build.projection, status=status, outcome=outcome.as_text())

    async def _comparing(self, build: Build) -> None:
        async with self._database.connection() as connection, connection.transaction():
            await jobs.hold(connection, build)
            await jobs.set_status(connection, build, "comparing")

    async def _live_position(self, name: str) -> int:
        async with self._database.connection() as connection:
            row = await (await connection.execute(LIVE, [name])).fetchone()
        return int(row[0]) if row else 0

    # --- the end of a job that went wrong -----------------------------------------------------------------------------

    async def _fail(self, build: Build, error: str) -> None:
        try:
            await self._end(build, "failed", error)
        except LostOwnership as lost:
            log.info("build_let_go", projection=build.projection, kind=build.kind, reason=str(lost))

    async def _end(self, build: Build, status: Status, error: str) -> None:
        """Drops the tables that the job made. An earlier version that was to come back is kept."""

        async def note() -> None:
            async with self._database.connection() as connection, connection.transaction():
                found = await jobs.hold(connection, build)
                projection = self._projections.get(build.projection)
                if projection is not None:
                    await jobs.discard(connection, projection, found)
                await jobs.set_status(connection, build, status, error=error)

        await persistently(note)


class _Patience:
    """Pauses between attempts to swap. They are random, to meet a gap between readers, and grow, to leave readers room."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def lock_ms(self) -> int:
        return LOCK_MS[min(self.count, len(LOCK_MS) - 1)]

    async def pause(self) -> None:
        self.count += 1
        longest = min(LONGEST_PAUSE_S, 0.1 * 2 ** min(self.count, 10))
        await asyncio.sleep(random.uniform(longest / 4, longest))
