"""The report on readiness: dependencies, lags, what goes on and what cannot go on; and the metrics, which show its figures.

Anybody may ask, without a key and at any rate. So all callers in the same second get the same report, which is made over a database
connection that nothing else uses. The report has numbers and names of agents and tools, and nothing that users wrote.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from prometheus_client import generate_latest

from api.container import Container, HealthCheck, MemberView
from api.free_room import free_bytes
from api.http import troubles
from api.http.conventions.shared import Shared
from api.metrics import HEAD, LAG, PARKED, UPKEEP_AGE, UPKEEP_REMOVED
from api.work_metrics import work_metrics
from application.engine.ports.log import Gaps
from application.engine.ports.sessions import UnofferedWork
from application.engine.ports.timers import PARKED_AS as DUE_TIMERS
from application.engine.ports.upkeep import UpkeepState
from application.engine.reading.histories import Histories
from application.engine.staying import asked_to_move
from application.views.activity import Activity
from domain.errors import TidelogError, Unavailable
from domain.kernel import timestamp

CHECK_TIMEOUT_S = 2.0
REUSED_FOR_S = 1.0
"""Seconds for which a report is reused."""
GAPS_TIMEOUT_S = 10.0
GAPS_REUSED_FOR_S = 10.0
"""Seconds for which a look at the whole index is reused."""


@cache  # reading the metadata of the distribution takes most of the time of an answer
def server_version() -> str:
    return version("tidelog-server")


class Reports:
    """The health reports of one application, computed once for all callers."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.readiness = Shared(self._readiness, reuse_s=REUSED_FOR_S)
        self.metrics = Shared(self._metrics)
        self.gaps = Shared(self._gaps, reuse_s=GAPS_REUSED_FOR_S)
        self._of_the_work = b""
        """The metrics of runs, agents, tools and queues, as text. Empty while the database is away: old figures mislead."""

    async def _readiness(self) -> dict[str, Any]:
        report, activity = await _readiness(self._container)
        self._of_the_work = b"" if activity is None else work_metrics(activity, report)
        return report

    async def _metrics(self) -> bytes:
        """The metrics as text. Figures of the log are as old as the report; the counters of this process are current."""
        await self.readiness()
        await asyncio.sleep(0)  # callers in the same turn of the event loop share this answer
        return generate_latest() + self._of_the_work

    async def _gaps(self) -> Gaps:
        """Raises Unavailable."""
        try:
            async with asyncio.timeout(GAPS_TIMEOUT_S):
                return await self._container.gaps()
        except TimeoutError:
            raise Unavailable("the database did not look through the log in time") from None


async def _readiness(container: Container) -> tuple[dict[str, Any], Activity | None]:
    """The report, and the activity that it is about. None: the database is away."""
    names = list(container.dependencies)
    checks = asyncio.gather(*(_check(container.dependencies[name]) for name in names))
    copied, results = await asyncio.gather(_copied(container), checks)
    dependencies = {name: result or "ok" for name, result in zip(names, results, strict=True)}
    report: dict[str, Any] = {"dependencies": dependencies, "consumers": {}}
    activity: Activity | None = None
    if dependencies.get("postgres") == "ok":
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                report |= await _lags(container, copied)
            dependencies["durability"], report["durable"] = await _durability(container)
            report["row_level_security"] = await container.row_level_security()
            dependencies["disk"] = await _disk(container)
        except (TidelogError, TimeoutError) as error:
            dependencies["postgres"] = str(error) or "no answer in time"
    if dependencies.get("postgres") == "ok":
        activity, work = await _work(container)
        report |= work
    else:
        LAG.clear()  # no figure is better than an old figure
    wrong = sorted(name for name, state in dependencies.items() if state != "ok")
    report["degraded"] = troubles.degraded(report)
    status = "unavailable" if wrong else "degraded" if report["degraded"] else "ok"
    return {"status": status, "version": server_version(), **report}, activity


async def _disk(container: Container) -> str:
    """`ok`, or that the disk of the database is full. A database that is slow or away is for the other checks."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await container.room()
    except TidelogError as error:
        return error.message
    except TimeoutError:
        return "ok"
    return "ok"


async def _work(container: Container) -> tuple[Activity | None, dict[str, Any]]:
    """What goes on, and its part of the report. Nothing if it cannot be read: a process that serves stays ready without it."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            activity, problems = await container.reads.activity.now(), await container.problems.count()
            unoffered = await _unoffered(container, activity)
    except (TidelogError, TimeoutError):
        return None, {}
    return activity, {
        "work": troubles.work(activity, container.settings.max_open_runs, unoffered),
        "import_problems": problems,
        "free_bytes": free_bytes(container.settings.data_dir),
    }


async def _unoffered(container: Container, activity: Activity) -> list[UnofferedWork]:
    """Agents and tools with work and without a worker. While all work is being done, nothing is asked."""
    if not troubles.suspects(activity):
        return []
    found = await container.health_sessions.unoffered(waiting_s=troubles.UNOFFERED_S, limit=troubles.MAX_UNOFFERED)
    return troubles.without_worker(activity, found)


async def _check(check: HealthCheck) -> str | None:
    """None if the check passes, otherwise what is wrong."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        return "no answer in time"
    except TidelogError as error:
        return error.message
    return None


async def _durability(container: Container) -> tuple[str, bool]:
    """("ok", or what is wrong; whether an answered append is on disk). An append is not on disk in a throw-away database."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return "ok", await container.durable()
    except (TidelogError, TimeoutError) as error:
        return str(error) or "no answer in time", False


async def _copied(container: Container) -> Mapping[str, int]:
    """The positions up to which streams have copied the log. Empty while NATS is away: the check of NATS reports the outage."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await container.streams()
    except (TidelogError, TimeoutError):
        return {}


async def _lags(container: Container, copied: Mapping[str, int]) -> dict[str, Any]:
    head = await container.log_head()
    progress = await container.reads.consumers.progress()
    if await asked_to_move(container.positions, progress.positions, head):
        progress = await container.reads.consumers.progress()
    members = await container.members()
    upkeep = await container.upkeep()
    HEAD.set(head)
    consumers, streams = _behind(head, progress.positions), _behind(head, copied)
    LAG.clear()
    for name, state in {**consumers, **streams}.items():
        LAG.labels(name).set(state["lag"])
    PARKED.clear()
    for name in {*consumers, DUE_TIMERS, *progress.parked}:
        PARKED.labels(name).set(progress.parked.get(name, 0))
    for chore in upkeep:
        UPKEEP_AGE.labels(chore.name).set(math.inf if chore.success_age_s is None else chore.success_age_s)
        UPKEEP_REMOVED.labels(chore.name).set(chore.removed_in_all)
    shown = [_member(member) for member in members]
    return {
        "head": head,
        "history": _history(container.histories.known),
        "consumers": consumers,
        "streams": streams,
        "parked": progress.parked,
        "members": shown,
        "upkeep": [_chore(chore) for chore in upkeep],
    }


def _history(known: Histories | None) -> dict[str, Any] | None:
    """The current history, as far as this process knows. None before the process has asked."""
    if known is None:
        return None
    current = known.current
    return {
        "id": current.history_id,
        "began_at": timestamp(current.began_at),
        "cause": current.cause,
        "last_common_position": current.last_common,
    }


def _behind(head: int, positions: Mapping[str, int]) -> dict[str, dict[str, int]]:
    return {name: {"position": position, "lag": max(head - position, 0)} for name, position in sorted(positions.items())}


def _chore(chore: UpkeepState) -> dict[str, Any]:
    return {**asdict(chore), "ended_at": timestamp(chore.ended_at)}


def _member(member: MemberView) -> dict[str, Any]:
    return {
        "place": member.place,
        "joined_at": timestamp(member.joined_at),
        "alive": member.alive,
        "units": list(member.units),
        "release": member.release,
        "formats": None if member.formats is None else list(member.formats),
    }
