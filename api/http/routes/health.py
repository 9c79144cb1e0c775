"""Liveness, readiness with every dependency and lag, and metrics for Prometheus.

Anybody may ask, without a key and at any rate. So all callers in the same second get the same report, which is made over a database
connection that nothing else uses.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api.container import Container, HealthCheck, MemberView
from api.http.conventions.answers import answer
from api.http.conventions.routing import DirectRoute
from api.http.conventions.shared import Shared
from api.metrics import HEAD, LAG, PARKED, UPKEEP_AGE, UPKEEP_REMOVED
from application.engine.ports.timers import PARKED_AS as DUE_TIMERS
from application.engine.ports.upkeep import UpkeepState
from application.engine.reading.histories import Histories
from domain.errors import TidelogError
from domain.kernel import timestamp

router = APIRouter(tags=["operations"], route_class=DirectRoute)

CHECK_TIMEOUT_S = 2.0
REUSED_FOR_S = 1.0
"""Seconds for which a report is reused."""


@cache  # reading the metadata of the distribution takes most of the time of an answer
def _version() -> str:
    return version("tidelog-server")


@router.get("/health/live", summary="The process is alive")
async def live(request: Request) -> Response:
    return answer({"status": "ok", "version": _version()})


@router.get("/health/ready", summary="Dependencies of this process, and the lag of each consumer")
async def ready(request: Request) -> Response:
    """200 if commands and queries are served; otherwise 503, and the report says what is wrong."""
    report = await _reports(request).readiness()
    return answer(report, 200 if report["status"] == "ok" else 503)


class Reports:
    """The health reports of one application, computed once for all callers."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.readiness = Shared(self._readiness, reuse_s=REUSED_FOR_S)
        self.metrics = Shared(self._metrics)

    async def _readiness(self) -> dict[str, Any]:
        return await _readiness(self._container)

    async def _metrics(self) -> bytes:
        """The metrics as text. The gauges of the log are as old as the report; the counters of this process are current."""
        await self.readiness()
        await asyncio.sleep(0)  # callers in the same turn of the event loop share this answer
        return generate_latest()


def _reports(request: Request) -> Reports:
    reports: Reports = request.app.state.reports
    return reports


async def _readiness(container: Container) -> dict[str, Any]:
    names = list(container.dependencies)
    checks = asyncio.gather(*(_check(container.dependencies[name]) for name in names))
    copied, results = await asyncio.gather(_copied(container), checks)
    dependencies = {name: result or "ok" for name, result in zip(names, results, strict=True)}
    report: dict[str, Any] = {"dependencies": dependencies, "consumers": {}}
    if dependencies.get("postgres") == "ok":
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                report |= await _lags(container, copied)
            dependencies["durability"], report["durable"] = await _durability(container)
        except (TidelogError, TimeoutError) as error:
            dependencies["postgres"] = str(error) or "no answer in time"
    if dependencies.get("postgres") != "ok":
        LAG.clear()  # no figure is better than an old figure
    wrong = sorted(name for name, state in dependencies.items() if state != "ok")
    return {"status": "unavailable" if wrong else "ok", "version": _version(), **report}


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
    members = await container.members()
    upkeep = await container.upkeep()
    HEAD.set(head)
    consumers, streams = _behind(head, progress.positions), _behind(head, copied)
    LAG.clear()
    for name, state in {**consumers, **streams}.items():
        LAG.labels(name).set(state["lag"])
    for name in (*consumers, DUE_TIMERS):
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


@router.get("/metrics", summary="Metrics in the Prometheus text format")
async def metrics(request: Request) -> Response:
    return Response(await _reports(request).metrics(), media_type=CONTENT_TYPE_LATEST)
