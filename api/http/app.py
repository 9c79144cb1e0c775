"""The ASGI application: routers, errors, documents, and the gate around them."""

from importlib.metadata import version

from fastapi import FastAPI

from api.container import Container
from api.http.conventions import errors
from api.http.conventions.deps import RawRoute
from api.http.conventions.keys import Keys
from api.http.conventions.middleware import Gate
from api.http.documents import asyncapi, cached, openapi, schemas
from api.http.routes import agent_runs, agents, events, health, invocations, projections, projects, runs, tools, workers

ROUTERS = (
    runs.busy, runs.router, events.router, agents.router, tools.router, projects.router, workers.router, agent_runs.router,
    invocations.of_workers, invocations.router,
    health.router, cached.router, schemas.router, asyncapi.router, projections.router,
)  # fmt: skip


def create_app(container: Container) -> Gate:
    app = FastAPI(
        title="Tidelog",
        version=version("tidelog-server"),
        docs_url="/docs",
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is in the gate; asking for it costs 7 % of a request
    )
    app.state.container = container
    app.state.keys = keys = Keys(container)
    app.state.reports = health.Reports(container)
    # In one table, before the framework's own: `include_router` would ask router after router, and its own pages first.
    app.router.routes[:0] = [route for router in ROUTERS for route in router.routes]
    errors.install(app)
    openapi.install(app)
    busy = {
        (method, route.path): route.direct
        for route in runs.busy.routes
        if isinstance(route, RawRoute) and not route.param_convertors
        for method in route.methods or ()
    }
    return Gate(app, container, busy, keys)
