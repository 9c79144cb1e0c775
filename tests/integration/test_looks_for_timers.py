"""A new timer causes a look at the table only if it fires before the process wakes up anyway."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.postgres.listener import ChannelListener
from adapters.postgres.read_models.timers import PostgresTimers
from application.catalog import CATALOG
from application.engine.timers import TimerService
from domain import agent_runs
from projections import timers
from projections.engine.runner import ProjectionRunner
from tests.integration.projection_kit import CountedDatabase, Log, handled, log_on
from tests.integration.system_kit import eventually, new_id, stopped
from tests.integration.test_projections import working
from tests.kit.waiting import turns


class Heard(ChannelListener):
    """Counts the notifications, and keeps what they say."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.payloads: list[str] = []

    def on_notification(self, payload: str) -> None:
        self.payloads.append(payload)
        super().on_notification(payload)


async def timed(log: Log, timeout_s: float) -> None:
    """Appends an agent run with a time-out."""
    run_id = new_id()
    requested = agent_runs.AgentRunRequested(run_id=run_id, step="write", agent="editor", agent_version=None, timeout_s=timeout_s)
    await log.append(run_id, (new_id(), 0, [requested]))


async def test_only_a_timer_that_fires_earlier_is_looked_at(database_url: str) -> None:
    async with log_on(database_url) as log:
        listener, database = Heard(database_url, timers.CHANNEL), CountedDatabase(log.database)
        await listener.start()
        found = PostgresTimers(database, listener)
        service = asyncio.create_task(TimerService(log.commands, found, kinds=CATALOG.commands).run())
        try:
            async with working(ProjectionRunner((timers.PROJECTION,), log.database, log)):
                await timed(log, 3_600)
                await eventually(lambda: _asleep(found), "the time of the only timer")
                first, looks = found._asleep_until, database.asked
                assert first is not None
                for number in range(3):
                    heard = len(listener.payloads)
                    await timed(log, 7_200 + number)
                    await eventually(lambda heard=heard: _more(listener, heard), "the notification")  # type: ignore[misc]
                    await turns()
                assert (database.asked, found._asleep_until) == (looks, first), "the process wakes up before"
                await timed(log, 600)
                await eventually(lambda: _asleep(found, before=first), "a look at the earlier timer")
                assert database.asked == looks + 1, "one look says that nothing is due, and until when to sleep"
                await log.rows("SELECT pg_notify(%s, '')", timers.CHANNEL)  # a process of the release before
                await eventually(lambda: _looked(database, looks + 2), "a look without a named time")
        finally:
            await stopped(service)
            await listener.close()


async def _asleep(found: PostgresTimers, before: datetime | None = None) -> bool:
    return found._asleep_until is not None and (before is None or found._asleep_until < before)


async def _more(listener: Heard, heard: int) -> bool:
    return len(listener.payloads) > heard


async def _looked(database: CountedDatabase, looks: int) -> bool:
    return database.asked >= looks


@pytest.mark.parametrize(("behind", "named"), [(timedelta(0), True), (timedelta(hours=-1), False)])
async def test_a_timer_of_the_future_names_no_time(database_url: str, behind: timedelta, named: bool) -> None:
    """While the clock is set back, a timer fires one delay after a look has seen it, which may be before its time of the log."""
    async with log_on(database_url) as log:
        listener = Heard(database_url, timers.CHANNEL)
        await listener.start()
        try:
            await listener.listening.wait()
            await timed(log, 600)
            [event] = await log.feed.read(after=0, limit=10)
            async with log.database.transaction() as connection:
                await timers.apply(connection, [event._replace(recorded_at=event.recorded_at - behind)])
            await eventually(lambda: _more(listener, 0), "the notification")
            assert bool(listener.payloads[0]) == named
            if named:
                assert datetime.fromisoformat(listener.payloads[0]) == event.recorded_at + timedelta(seconds=600)
        finally:
            await listener.close()


async def test_what_was_told_during_a_look_is_looked_at(database_url: str) -> None:
    """The look may have begun before the timer was there."""
    async with log_on(database_url) as log:
        listener = ChannelListener(database_url, timers.CHANNEL)
        found = PostgresTimers(log.database, listener)
        await timed(log, 3_600)
        await handled(log, timers.PROJECTION)
        for _ in range(2):
            assert await found.due(10) == [] and await found.seconds_until_next() == pytest.approx(3_600, abs=600)
            await found.wait_for_change(0.0)
        listener.on_notification((datetime.now(UTC) + timedelta(days=1)).isoformat())
        async with asyncio.timeout(60):
            await found.wait_for_change(3_600)
