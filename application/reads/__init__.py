"""Ports of queries: the queries of entrances to read models. `projections/` implements the ports, the composition root joins them.

Each query opens its own connection, so callers see neither connections nor statements. All queries raise Unavailable.

Others import from here, never from the modules.
"""

from dataclasses import dataclass

from application.reads.access import ApiKeyReads, AuditReads, AuditWanted, KeyOwner, KeysFound
from application.reads.agents import AgentReads, ProjectReads
from application.reads.answers import MOST_NAMES, ConsumerProgress, ConsumerReads, Positioned
from application.reads.approvals import ApprovalReads, ApprovalsWanted, Mine
from application.reads.bulk_actions import BulkActionReads, OpenBulkAction, OpenBulkActions
from application.reads.runs import ActivityReads, CurrentRun, CurrentRuns, DueInRun, MessageReads, RunCounts, RunReads, RunsWanted
from application.reads.starts import AllTriggers, MadeByAgents, ScheduleReads, SchedulesWanted, StoredTrigger, TriggerReads
from application.reads.tools import BreakerReads, DataTool, DataToolReads, InvocationReads, InvocationsWanted, ToolReads
from application.reads.usage import UsageBy, UsageReads, UsageWanted
from application.reads.workflows import WorkflowReads, WorkflowsWanted

__all__ = [
    "MOST_NAMES",
    "ActivityReads",
    "AgentReads",
    "AllTriggers",
    "ApiKeyReads",
    "ApprovalReads",
    "ApprovalsWanted",
    "AuditReads",
    "AuditWanted",
    "BreakerReads",
    "BulkActionReads",
    "ConsumerProgress",
    "ConsumerReads",
    "CurrentRun",
    "CurrentRuns",
    "DataTool",
    "DataToolReads",
    "DueInRun",
    "InvocationReads",
    "InvocationsWanted",
    "KeyOwner",
    "KeysFound",
    "MadeByAgents",
    "MessageReads",
    "Mine",
    "OpenBulkAction",
    "OpenBulkActions",
    "Positioned",
    "ProjectReads",
    "Reads",
    "RunCounts",
    "RunReads",
    "RunsWanted",
    "ScheduleReads",
    "SchedulesWanted",
    "StoredTrigger",
    "ToolReads",
    "TriggerReads",
    "UsageBy",
    "UsageReads",
    "UsageWanted",
    "WorkflowReads",
    "WorkflowsWanted",
]


@dataclass(frozen=True, slots=True)
class Reads:
    """The queries of all read models."""

    runs: RunReads
    messages: MessageReads
    agents: AgentReads
    tools: ToolReads
    projects: ProjectReads
    invocations: InvocationReads
    keys: ApiKeyReads
    consumers: ConsumerReads
    activity: ActivityReads
    audit: AuditReads
    breakers: BreakerReads
    workflows: WorkflowReads
    schedules: ScheduleReads
    triggers: TriggerReads
    approvals: ApprovalReads
    usage: UsageReads
    bulk_actions: BulkActionReads
