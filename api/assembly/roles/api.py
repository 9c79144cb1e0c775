"""The api role: the container for HTTP."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from adapters.postgres import leases, pool, rights
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.durability import durability_of
from adapters.postgres.key_uses import PostgresKeyUses
from adapters.postgres.log.gaps import gaps_of
from adapters.postgres.log.ids import PostgresLogIndex
from adapters.postgres.outcomes import PostgresOutcomeCounts
from adapters.postgres.permits import PostgresPermits
from adapters.postgres.room import Room
from adapters.postgres.work_logs import PostgresWorkLogs
from adapters.postgres.worker_problems import PostgresWorkerProblems
from adapters.postgres.worker_sessions import PostgresInstallationSecrets, PostgresWorkerSessions
from api import metrics
from api.assembly import histories, log_streams, messaging, sharing, storage, tables, triggers
from api.assembly.commands import commands
from api.assembly.parts import Parts, part
from api.assembly.starts import admission, reads
from api.container import Container, HealthCheck, MemberView
from api.http.conventions.releases import all_know_schedules
from api.tools_told import ToolsTold
from application.audit import RefusalCounter
from application.blobs import Blobs
from application.budgets.books import Books
from application.budgets.managing import BudgetOffice
from application.engine.parked import ParkedOperations
from application.engine.ports.ids import LogIndex
from application.engine.ports.log import Gaps
from application.engine.ports.parked import ParkedEvents
from application.engine.ports.positions import ConsumerPositions
from application.engine.ports.problems import WorkerProblems
from application.engine.ports.projections import ProjectionOperations
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.retry_parked import EffectRetry
from application.engine.sagas.manager import effects_of
from application.engine.timers import effects_again
from application.looking_back.rows import EventRows
from application.plans.check import PlanChecks
from application.reads import CurrentRuns
from application.runs.forking.fork import Forks
from application.schedules.defining import Schedules
from application.slash_commands.commands import SlashCommands
from application.workers import Workers
from application.workers.children import ChildRuns
from application.workers.hosting.host import SessionHost
from application.workers.hosting.logs import LogIntake
from application.workers.scheduling import AgentSchedules
from application.workers.tokens import LeaseTokens
from application.workflows import WorkflowChanges, Workflows
from domain.workflows import WorkflowDefinition
from projections import timers
from projections.engine.operations import Operations
from projections.engine.parked import PostgresParkedEvents
from projections.engine.positions import Positions
from projections.replays import RunReplays


@part
async def positions(parts: Parts) -> ConsumerPositions:
    # One query and one call at a time, however many callers ask.
    calls, appended = await messaging.position_calls(parts), await storage.own_appends(parts)
    hurry = {} if appended is None else {"hurry": appended.hurry}
    own = Positions(await storage.database(parts), calls, **hurry)
    parts.stack.push_async_callback(own.close)
    return own


@part
async def replays(parts: Parts) -> CurrentRuns:
    own = RunReplays(await storage.feed(parts))  # one query at a time, as for positions
    parts.stack.push_async_callback(own.close)
    return own


@part
async def refusals(parts: Parts) -> RefusalCounter:
    own = RefusalCounter(await commands(parts))
    parts.stack.push_async_callback(own.close)
    return own


@part
async def operations(parts: Parts) -> ProjectionOperations:
    return Operations(
        await storage.database_of(parts, "commands"),
        await storage.feed_of(parts, "commands"),
        await tables.projections(parts),
        await tables.plugins(parts),
        await positions(parts),
    )


@part
async def parked_events(parts: Parts) -> ParkedEvents:
    return PostgresParkedEvents(await storage.database_of(parts, "commands"))


@part
async def index(parts: Parts) -> LogIndex:
    return PostgresLogIndex((await storage.pools(parts)).commands)


async def _parked(parts: Parts) -> ParkedOperations:
    events, feed = await parked_events(parts), await storage.feed_of(parts, "commands")
    loop, catalog, queue = await commands(parts), await tables.catalog(parts), await messaging.work_queue(parts)
    of_sagas = partial(effects_of, catalog=catalog, commands=loop, queue=queue)
    of_timers = partial(effects_again, timer_of=timers.set_by, commands=loop, kinds=catalog.commands)
    return ParkedOperations(
        events,
        await operations(parts),
        sagas=EffectRetry(of_sagas, feed, events),
        timers=EffectRetry(of_timers, feed, events),
    )


@part
async def log_head(parts: Parts) -> Callable[[], Awaitable[int]]:
    return (await storage.feed_of(parts, "health")).head


@part
async def members(parts: Parts) -> Callable[[], Awaitable[Sequence[MemberView]]]:
    return partial(leases.members, (await storage.pools(parts)).health)


@part
async def row_level_security(parts: Parts) -> Callable[[], Awaitable[bool]]:
    return partial(rights.in_force, (await storage.pools(parts)).health)


@part
async def durable(parts: Parts) -> Callable[[], Awaitable[bool]]:
    return partial(_durable, (await storage.pools(parts)).health)


async def _durable(connections: pool.Connections) -> bool:
    return (await durability_of(connections)).fsync


@part
async def room(parts: Parts) -> HealthCheck:
    return Room((await storage.pools(parts)).health).check


@part
async def gaps(parts: Parts) -> Callable[[], Awaitable[Gaps]]:
    return partial(gaps_of, (await storage.pools(parts)).commands)


@part
async def problems(parts: Parts) -> WorkerProblems:
    """The reports of workers. Health counts them over its own connection."""
    pools = await storage.pools(parts)
    return PostgresWorkerProblems(await storage.database_of(parts, "commands"), health=PostgresDatabase(pools.health))


@part
async def dependencies(parts: Parts) -> Mapping[str, HealthCheck]:
    postgres = partial(pool.check_health, (await storage.pools(parts)).health)
    return {"postgres": postgres, "nats": (await messaging.nats(parts)).check_health}


@part
async def lease_tokens(parts: Parts) -> LeaseTokens:
    return LeaseTokens(PostgresInstallationSecrets(await storage.database(parts)))


@part
async def workers(parts: Parts) -> Workers:
    own = Workers(
        await commands(parts),
        await messaging.work_queue(parts),
        await problems(parts),
        (await reads(parts)).tools,
        await storage.worker_sessions(parts),
        await lease_tokens(parts),
        await tables.expressions(parts),
        (await reads(parts)).invocations,
        await _agent_schedules(parts),
        ChildRuns(await commands(parts), await workflows(parts), (await reads(parts)).agents),
        parts.settings.reached_at,
    )
    own.budgets.books.hear_by((await log_streams.live(parts)).call)
    own.budgets.paying.refused = lambda scope, kind: metrics.BUDGETS_SHORT.labels(scope, kind).inc()
    for scope in ("tenant", "project", "agent"):
        metrics.BUDGET_SHARE.labels(scope).set_function(partial(_share, own.budgets.books, scope))
    (await admission(parts)).default_budget = own.budgets.books.default_of
    parts.stack.push_async_callback(own.budgets.close)
    return own


async def _schedules(parts: Parts) -> Schedules:
    loop, queries = await commands(parts), await reads(parts)
    functions = (await tables.catalog(parts)).functions
    checks = PlanChecks(await tables.expressions(parts))
    return Schedules(loop, Workflows(loop, queries.workflows), queries.agents, functions, await admission(parts), checks)


async def _agent_schedules(parts: Parts) -> AgentSchedules:
    known = partial(all_know_schedules, await members(parts))
    return AgentSchedules(
        await commands(parts), await _schedules(parts), (await reads(parts)).schedules, await triggers.roots(parts), known
    )


@part
async def workflows(parts: Parts) -> Workflows:
    return Workflows(await commands(parts), (await reads(parts)).workflows)


@part
async def hosting(parts: Parts) -> SessionHost:
    """The sessions of workers. Adds the loop that keeps them."""
    own = SessionHost(
        await workers(parts),
        await commands(parts),
        await messaging.work_queue(parts),
        await log_streams.live(parts),
        await storage.worker_sessions(parts),
        await sharing.presence(parts),
        LogIntake(await commands(parts), await lease_tokens(parts), await storage.work_logs(parts)),
        await storage.feed_of(parts, "commands"),
        (await reads(parts)).tools,
        await storage.outcomes(parts),
        await storage.permits(parts),
        await storage.permit_news(parts),
        told=lambda what: metrics.BREAKERS_TOLD.labels(what).inc(),
    )
    metrics.BREAKERS.clear()
    for state in own.breakers.states():
        metrics.BREAKERS.labels(state).set_function(partial(_in_state, own, state))
    parts.stack.push_async_callback(own.close)
    parts.loops["sessions"] = own.run
    return own


def _share(books: Books, scope: str) -> float:
    return books.shares().get(scope, 0.0)


def _in_state(host: SessionHost, state: str) -> int:
    return host.breakers.states()[state]


@part
async def tools_told(parts: Parts) -> ToolsTold:
    """Tells a supervisor of tools that are data. Adds the loop that looks for those of before, if there is one."""
    own = ToolsTold((await hosting(parts)).served, wanted=parts.settings.tell_parent_of_tools)
    if parts.settings.tell_parent_of_tools:
        parts.loops["tools-told"] = own.run
    return own


@part
async def blobs(parts: Parts) -> Blobs:
    return Blobs(await storage.blob_store(parts), most_bytes=parts.settings.max_blob_bytes)


async def container(parts: Parts) -> Container:
    """The container. Adds the loop of the live feed."""
    loop, feed, queue = await commands(parts), await log_streams.live(parts), await messaging.work_queue(parts)
    parts.loops["live"] = feed.run
    of_workflows = await workflows(parts)
    plan_checks = PlanChecks(await tables.expressions(parts), frame=WorkflowDefinition)
    return Container(
        settings=parts.settings,
        database=await storage.database(parts),
        read_database=await storage.database_of(parts, "reads"),
        feed=await storage.feed_of(parts, "reads"),
        command_database=await storage.database_of(parts, "commands"),
        index=await index(parts),
        rows=EventRows(await storage.feed_of(parts, "reads"), await histories.histories(parts)),
        histories=await histories.histories(parts),
        commands=loop,
        cloud_events=CloudEventEncoder((await tables.catalog(parts)).registry.events),
        workers=await workers(parts),
        sessions=await storage.worker_sessions(parts),
        listed_sessions=PostgresWorkerSessions(await storage.database_of(parts, "reads")),
        listed_permits=PostgresPermits(await storage.database_of(parts, "reads")),
        health_sessions=PostgresWorkerSessions(await storage.database_of(parts, "health")),
        hosting=await hosting(parts),
        tools_told=await tools_told(parts),
        live=feed,
        positions=await positions(parts),
        reads=await reads(parts),
        key_uses=PostgresKeyUses(await storage.database(parts)),
        browser_sessions=await storage.browser_sessions(parts),
        session_endings=await storage.session_endings(parts),
        projections=await operations(parts),
        parked=await _parked(parts),
        replays=await replays(parts),
        admission=await admission(parts),
        workflows=of_workflows,
        forks=Forks(loop, await storage.feed_of(parts, "commands"), await histories.histories(parts), of_workflows.children),
        workflow_changes=WorkflowChanges(loop, of_workflows, plan_checks),
        slash_commands=SlashCommands(loop, of_workflows, (await reads(parts)).workflows),
        schedules=await _schedules(parts),
        refusals=await refusals(parts),
        work_queue=queue,
        log_head=await log_head(parts),
        members=await members(parts),
        streams=await log_streams.streams(parts),
        row_level_security=await row_level_security(parts),
        durable=await durable(parts),
        room=await room(parts),
        gaps=await gaps(parts),
        problems=await problems(parts),
        outcomes=PostgresOutcomeCounts(await storage.database_of(parts, "reads")),
        work_logs=PostgresWorkLogs(await storage.database_of(parts, "reads")),
        budgets=BudgetOffice(loop, (await workers(parts)).budgets.books),
        blobs=await blobs(parts),
        plan_checks=plan_checks,
        workflow_lookup=of_workflows.lookup,
        triggers=await triggers.uses(parts),
        roots=await triggers.roots(parts),
        upkeep=(await storage.upkeep_runs(parts)).states,
        dependencies=MappingProxyType(dict(await dependencies(parts))),
    )
