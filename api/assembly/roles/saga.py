"""The saga role: reactions to events, timers, the reconciler of the work queue, and the upkeep."""

from functools import partial

from adapters.postgres.read_models.open_work import PostgresOpenWork
from adapters.postgres.read_models.schedules import PostgresDueSchedules
from adapters.postgres.read_models.timers import PostgresTimers
from api.assembly import log_streams, messaging, sharing, storage, tables, triggers
from api.assembly.commands import commands
from api.assembly.parts import Parts, part
from api.assembly.starts import admission
from application.bulk_actions.carrying_out import BulkActionService
from application.engine.background import side_by_side
from application.engine.lapses import SessionSweeper
from application.engine.leases import Group
from application.engine.permits import PermitSweeper
from application.engine.ports.checkpoints import Checkpoints
from application.engine.ports.due import DueStreams
from application.engine.ports.queue import OpenWork
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reconciler import WorkReconciler
from application.engine.sagas.manager import PARTITIONS, SagaManager
from application.engine.timers import TimerService
from application.engine.upkeep import Chore, Upkeep, chores
from application.lapses import lapsing
from application.schedules.firing import ScheduleService
from application.triggers.matcher import CHECKPOINT, TriggerMatcher
from application.triggers.stray_secrets import EVERY_S as STRAYS_EVERY_S
from application.triggers.stray_secrets import remove_strays
from application.workflows import Workflows
from projections import bulk_actions, schedules, timers
from projections.agents import AgentQueries
from projections.bulk_actions import StoredBulkActions
from projections.engine.checkpoints import PostgresCheckpoints
from projections.runs import RunQueries
from projections.triggers import StoredTriggers
from projections.workflows import WorkflowQueries


@part
async def checkpoints(parts: Parts) -> Checkpoints:
    return PostgresCheckpoints(await storage.database(parts))


@part
async def open_work(parts: Parts) -> OpenWork:
    return PostgresOpenWork(await storage.database(parts))


async def groups(parts: Parts) -> list[Group]:
    loop, catalog, queue = await commands(parts), await tables.catalog(parts), await messaging.work_queue(parts)
    subscription, positions = await log_streams.subscription(parts), await checkpoints(parts)
    work, calls = await open_work(parts), await messaging.position_calls(parts)
    own = chores(
        await storage.idempotency(parts),
        await storage.recorded_commands(parts),
        await storage.work_logs(parts),
        await storage.blob_store(parts),
        await storage.outcomes(parts),
        await storage.permits(parts),
        await storage.browser_sessions(parts),
        command_horizon_s=parts.settings.command_horizon_s,
        consumers=(CHECKPOINT,),
    )
    strays = partial(remove_strays, loop, await triggers.hook_secrets(parts))
    own = (*own, Chore("hook-secrets", STRAYS_EVERY_S, strays))
    of_permits = PermitSweeper(await storage.permits(parts), await sharing.presence(parts))
    of_sessions = SessionSweeper(await storage.worker_sessions(parts), loop, lapsing, await sharing.presence(parts))
    upkeep = Upkeep(own, await storage.upkeep_runs(parts))

    async def react(units: frozenset[str]) -> None:
        await SagaManager(loop, subscription, positions, queue, catalog, units, calls).run()

    async def fire(_: frozenset[str]) -> None:
        if "timers" in parts.given:
            await TimerService(loop, parts.given["timers"], kinds=catalog.commands).run()
            return
        database = await storage.database(parts)
        async with storage.listening_on(parts, timers.CHANNEL) as set_timers:
            service = TimerService(loop, PostgresTimers(database, set_timers), kinds=catalog.commands)
            await side_by_side(set_timers.failed(), service.run())

    async def fire_schedules(_: frozenset[str]) -> None:
        known = AgentQueries(database := await storage.database(parts))
        admitting, workflows = await admission(parts), Workflows(loop, WorkflowQueries(database))

        def service(due: DueStreams) -> ScheduleService:
            return ScheduleService(loop, due, workflows=workflows, known=known, functions=catalog.functions, admission=admitting)

        if "due_schedules" in parts.given:
            await service(parts.given["due_schedules"]).run()
            return
        async with storage.listening_on(parts, schedules.CHANNEL) as changed:
            await side_by_side(changed.failed(), service(PostgresDueSchedules(database, changed)).run())

    async def carry_out(_: frozenset[str]) -> None:
        database, feed = await storage.database(parts), await storage.feed(parts)
        async with storage.listening_on(parts, bulk_actions.CHANNEL) as changed:
            service = BulkActionService(loop, StoredBulkActions(database), RunQueries(database), feed, changed)
            await side_by_side(changed.failed(), service.run())

    stored, feed = StoredTriggers(await storage.database(parts)), await storage.feed(parts)
    roots, firing, encoder = await triggers.roots(parts), await triggers.firing(parts), CloudEventEncoder(catalog.registry.events)

    async def match(_: frozenset[str]) -> None:
        functions = catalog.functions
        await TriggerMatcher(loop, subscription, positions, stored, feed, roots, firing, encoder, functions, calls).run()

    async def sweep(_: frozenset[str]) -> None:
        await side_by_side(WorkReconciler(work, queue).run(), of_sessions.run(), of_permits.run())

    return [
        Group("sagas", PARTITIONS, react),
        Group("triggers", ("triggers",), match),
        Group("timers", ("timers",), fire),
        Group("schedules", ("schedules",), fire_schedules),
        Group("bulk-actions", ("bulk-actions",), carry_out),
        Group("sweeper", ("sweeper",), sweep),
        Group("upkeep", ("upkeep",), lambda _: upkeep.run()),
    ]
