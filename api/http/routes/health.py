"""Liveness, readiness with every dependency and lag, metrics for Prometheus, and gaps in the log."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from api.http.conventions.answers import answer
from api.http.conventions.callers import Callers
from api.http.conventions.permissions import needs, public
from api.http.conventions.request import operator_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.documents.readiness import Liveness, Readiness
from api.http.readiness import Reports, server_version
from domain.access import Action, may
from domain.errors import TidelogError

router = APIRouter(tags=["operations"], route_class=DirectRoute)
"""Routes that need no key."""
of_log = APIRouter(tags=["events"], route_class=DirectRoute)

KEY_TIMEOUT_S = 1.0


@router.get("/health/live", summary="The process is alive", responses={200: openapi.gives(Liveness)})
@public
async def live(request: Request) -> Response:
    return answer({"status": "ok", "version": server_version()})


@router.get(
    "/health/ready",
    summary="Dependencies of this process, the lag of each consumer, and what cannot go on",
    responses={200: openapi.gives(Readiness), 503: openapi.gives(Readiness)},
)
@public
async def ready(request: Request) -> Response:
    """200 if commands and queries are served; otherwise 503, and the report says what is wrong.

    Names of hosts, numbers of processes and texts of errors are only shown to a caller with a valid API key whose role allows
    `projections.read`.
    """
    report = await _reports(request).readiness()
    if "members" in report and not await _shows_key(request):
        report = _for_strangers(report)
    return answer(report, 503 if report["status"] == "unavailable" else 200)


def _for_strangers(report: dict[str, Any]) -> dict[str, Any]:
    """The report without names of hosts and numbers of processes. Of an error only its class stays."""
    members = [{name: value for name, value in member.items() if name != "place"} for member in report["members"]]
    upkeep = [{**chore, "error": chore["error"] and chore["error"].partition(":")[0]} for chore in report["upkeep"]]
    return {**report, "members": members, "upkeep": upkeep}


async def _shows_key(request: Request) -> bool:
    """Whether the request has a valid API key, or the cookie of a browser, that may read about the server.

    False if that cannot be known soon: a report does not wait for a database.
    """
    callers: Callers = request.app.state.callers
    try:
        async with asyncio.timeout(KEY_TIMEOUT_S):
            principal = await callers.admit(request.scope)
    except (TidelogError, TimeoutError):
        return False
    return principal.projects is None and may(principal.role, Action.PROJECTIONS_READ)


@router.get(
    "/metrics",
    summary="Metrics in the Prometheus text format",
    response_class=PlainTextResponse,
    responses={200: openapi.gives_content({"text/plain": {"type": "string"}}, description="The metrics")},
)
@public
async def metrics(request: Request) -> Response:
    return Response(await _reports(request).metrics(), media_type=CONTENT_TYPE_LATEST)


class LogGaps(openapi.Shown):
    head: int
    """Position of the newest event."""
    looked_from: int
    """The first position that was looked at."""
    missing: int
    """How many positions from there on have no event."""
    gaps: list[tuple[int, int]]
    """The first of the gaps: first and last missing position."""


@of_log.get("/v1/log/gaps", summary="Positions of the log without an event", responses={200: openapi.gives(LogGaps)})
@needs(Action.LOG_READ)
async def gaps(request: Request) -> Response:
    """Looks at the newest million positions. Every position has an event, unless somebody deleted rows."""
    operator_of(request, "the log is")
    return answer(asdict(await _reports(request).gaps()))


def _reports(request: Request) -> Reports:
    reports: Reports = request.app.state.reports
    return reports
