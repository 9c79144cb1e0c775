"""Liveness, readiness with every dependency and lag, metrics for Prometheus, and gaps in the log."""

from dataclasses import asdict

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import answer
from api.http.conventions.request import operator_of
from api.http.conventions.routing import DirectRoute
from api.http.readiness import Reports, server_version

router = APIRouter(tags=["operations"], route_class=DirectRoute)
"""Routes that need no key."""
of_log = APIRouter(tags=["events"], route_class=DirectRoute)


@router.get("/health/live", summary="The process is alive")
async def live(request: Request) -> Response:
    return answer({"status": "ok", "version": server_version()})


@router.get("/health/ready", summary="Dependencies of this process, the lag of each consumer, and what cannot go on")
async def ready(request: Request) -> Response:
    """200 if commands and queries are served; otherwise 503, and the report says what is wrong."""
    report = await _reports(request).readiness()
    return answer(report, 503 if report["status"] == "unavailable" else 200)


@router.get("/metrics", summary="Metrics in the Prometheus text format")
async def metrics(request: Request) -> Response:
    return Response(await _reports(request).metrics(), media_type=CONTENT_TYPE_LATEST)


class LogGaps(BaseModel):
    head: int
    """Position of the newest event."""
    looked_from: int
    """The first position that was looked at."""
    missing: int
    """How many positions from there on have no event."""
    gaps: list[tuple[int, int]]
    """The first of the gaps: first and last missing position."""


@of_log.get("/v1/log/gaps", summary="Positions of the log without an event", responses={200: {"model": LogGaps}})
async def gaps(request: Request) -> Response:
    """Looks at the newest million positions. Every position has an event, unless somebody deleted rows."""
    operator_of(request, "the log is")
    return answer(asdict(await _reports(request).gaps()))


def _reports(request: Request) -> Reports:
    reports: Reports = request.app.state.reports
    return reports
