"""The ASGI application: routers, errors, documents, and the gate around them."""

from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp

from api.container import Container
from api.http.conventions.browser_sessions import KnownSessions
from api.http.conventions.callers import Callers
from api.http.conventions.keys import Keys
from api.http.conventions.middleware import Gate
from api.http.conventions.routing import RouteTable
from api.http.documents import asyncapi, console, openapi, pages, schemas
from api.http.readiness import Reports
from api.http.routes import (
    agents,
    approval_links,
    approval_policies,
    approvals,
    audit,
    blobs,
    breakers,
    browser_sessions,
    budgets,
    bulk_actions,
    calls,
    commands,
    compensations,
    events,
    forks,
    health,
    hooks,
    ids,
    invocations,
    keys,
    looking_back,
    plans,
    projections,
    projects,
    reports,
    retries,
    run_contents,
    runs,
    schedules,
    signals,
    steering,
    tools,
    triggers,
    values,
    workers,
    workflows,
)
from api.http.sessions import limits as sessions
from api.http.sessions.endpoint import Sessions
from api.http.sockets import limits as event_sockets
from api.http.sockets.endpoint import EventSockets
from application.narrowing import ProjectsOfRoots

ROUTERS = (
    runs.router, steering.router, forks.router, run_contents.router, signals.router, compensations.router, values.of_runs,
    events.router, looking_back.router,
    ids.router, agents.router, tools.router, workflows.router, commands.router, calls.router, breakers.router, plans.router,
    schedules.router, projects.router, blobs.router, keys.router, browser_sessions.router,
    workers.router, reports.router, blobs.of_work,
    invocations.router, values.of_calls, health.router, health.of_log, pages.router, console.router, console.pages,
    schemas.router, openapi.router,
    asyncapi.router, projections.router, audit.router, triggers.router, hooks.router, approvals.router, approval_policies.router,
    approval_links.router,
    retries.router, bulk_actions.router,
    budgets.router,
)  # fmt: skip


def create_app(container: Container, *, console_files: Path = console.FOLDER) -> Gate:
    """`console_files`: the folder of the console's built files."""
    app = FastAPI(title="Tidelog", version=version("tidelog-server"), docs_url=None, redoc_url=None, openapi_url=None)
    app.state.callers = callers = Callers(
        Keys(container),
        KnownSessions(container.browser_sessions, container.session_endings),
        container.browser_sessions,
        container.settings.trusted_proxies,
    )
    app.state.console = console.Files(console_files)
    app.state.reports = Reports(container)
    app.state.known_at = {}
    app.state.projects_of_roots = ProjectsOfRoots(container.feed, container.commands.registry, container.histories)
    app.state.openapi = openapi.Document(app.version, routes := [route for router in ROUTERS for route in router.routes])
    sockets: dict[str, ASGIApp] = {
        sessions.PATH: Sessions(container, callers.keys),
        event_sockets.PATH: EventSockets(container, callers, app.state.projects_of_roots),
    }
    return Gate(app, RouteTable(routes), sockets, container, callers)
