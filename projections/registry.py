"""The read models of this distribution by name. `api.assembly` adds those that installed plug-ins bring."""

from projections import (
    activity,
    agents,
    approvals,
    audit,
    breakers,
    bulk_actions,
    invocations,
    messages,
    projects,
    run_terms,
    runs,
    schedules,
    tenants,
    timers,
    tool_versions,
    tools,
    triggers,
    usage,
    work,
    workflows,
)
from projections.kernel import Projection

PROJECTIONS: tuple[Projection, ...] = (
    tenants.PROJECTION,
    projects.PROJECTION,
    agents.PROJECTION,
    tools.PROJECTION,
    tool_versions.PROJECTION,
    runs.PROJECTION,
    messages.PROJECTION,
    invocations.PROJECTION,
    timers.PROJECTION,
    work.PROJECTION,
    activity.PROJECTION,
    run_terms.PROJECTION,
    audit.PROJECTION,
    breakers.PROJECTION,
    workflows.PROJECTION,
    schedules.PROJECTION,
    triggers.PROJECTION,
    approvals.PROJECTION,
    usage.PROJECTION,
    bulk_actions.PROJECTION,
)
"""Their tables are made by migrations."""
