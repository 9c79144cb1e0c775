"""The queries of all read models, as the ports of `application/reads`."""

from application.reads import ConsumerProgress, Reads
from projections.activity import ActivityQueries
from projections.agents import AgentQueries
from projections.approvals import ApprovalQueries
from projections.audit import AuditQueries
from projections.breakers import BreakerQueries
from projections.bulk_actions import BulkActionQueries
from projections.engine import checkpoints
from projections.invocations import InvocationQueries
from projections.kernel import Database
from projections.messages import MessageQueries
from projections.projects import ProjectQueries
from projections.runs import RunQueries
from projections.schedules import ScheduleQueries
from projections.tenants import ApiKeyQueries
from projections.tools import ToolQueries
from projections.triggers import TriggerQueries
from projections.usage import UsageQueries
from projections.workflows import WorkflowQueries


class ConsumerQueries:
    """The port `ConsumerReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def progress(self) -> ConsumerProgress:
        async with self._database.connection() as connection:
            return ConsumerProgress(await checkpoints.positions(connection), await checkpoints.parked(connection))


def reads_of(database: Database, *, keys: Database, health: Database) -> Reads:
    """`keys`: where API keys are looked up. `health`: where the progress of consumers and the activity are looked up.

    Each of them has connections of its own.
    """
    return Reads(
        runs=RunQueries(database),
        messages=MessageQueries(database),
        agents=AgentQueries(database),
        tools=ToolQueries(database),
        projects=ProjectQueries(database),
        invocations=InvocationQueries(database),
        keys=ApiKeyQueries(keys, database),
        consumers=ConsumerQueries(health),
        activity=ActivityQueries(health),
        audit=AuditQueries(database),
        breakers=BreakerQueries(database),
        workflows=WorkflowQueries(database),
        schedules=ScheduleQueries(database),
        approvals=ApprovalQueries(database),
        triggers=TriggerQueries(database),
        usage=UsageQueries(database),
        bulk_actions=BulkActionQueries(database),
    )
