"""All read models. The runner, rebuilds and checks go by this tuple."""

from projections import agents, messages, projects, runs, tenants, timers, tools, work
from projections.kernel import Projection

PROJECTIONS: tuple[Projection, ...] = (
    tenants.PROJECTION,
    projects.PROJECTION,
    agents.PROJECTION,
    tools.PROJECTION,
    runs.PROJECTION,
    messages.PROJECTION,
    timers.PROJECTION,
    work.PROJECTION,
)
