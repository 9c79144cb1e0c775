"""All read models: ours by name, and those of installed plug-ins. The runner, rebuilds and checks use this list."""

from functools import cache

from domain.registry import REGISTRY
from projections import agents, invocations, messages, projects, runs, tenants, timers, tools, work
from projections.engine.plugins import Discovery, discover
from projections.kernel import Projection

PROJECTIONS: tuple[Projection, ...] = (
    tenants.PROJECTION,
    projects.PROJECTION,
    agents.PROJECTION,
    tools.PROJECTION,
    runs.PROJECTION,
    messages.PROJECTION,
    invocations.PROJECTION,
    timers.PROJECTION,
    work.PROJECTION,
)
"""Those of this distribution; their tables are made by migrations."""


@cache
def plugins() -> Discovery:
    """What plug-ins bring, and what is wrong with them. Looked for once in a process."""
    return discover(PROJECTIONS, REGISTRY.events)


def load_projections() -> tuple[Projection, ...]:
    """All that are to run: ours, then those of plug-ins. Call `projections.engine.plugins.installed` before running them."""
    return PROJECTIONS + plugins().projections
