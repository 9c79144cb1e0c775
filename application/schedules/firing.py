"""Fires schedules: a due time and the start of its run are one append, so a run is started once, whoever starts it and dies.

A table has the schedules by the time at which each of them is due. What becomes of a time is decided on the schedule's own stream,
and the append holds only while that stream is as it was. So any number of processes may look at the table side by side, and what
the table says may be old.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

import structlog

from application.engine.background import side_by_side
from application.engine.commands.cache import Loaded
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.due import DueLook, DueStream, DueStreams
from application.engine.retry import persistently
from application.plans.capabilities import KnownAgents
from application.runs.admission import Admitted, RunAdmission
from application.schedules.starting import ScheduleStarts
from application.workflows import Workflows
from domain import runs, schedules
from domain.agents import AgentChanged
from domain.errors import InvalidState, TidelogError, Unavailable, VersionConflict
from domain.kernel import Command, Event, Functions, derive_id
from domain.workflows import WorkflowChanged

LOOKED_AT = 5_000
"""Schedules that are due, of one look."""
WAITING_LOOKED_AT = 500
"""Schedules that wait for the end of a run, of one look."""
BATCH = 500
"""Schedules of one tenant that are read and decided about together: their states fit the cache of states."""
BATCHES_AT_ONCE = 3
"""While the database writes what is decided about one batch, this process decides about the next."""
TOGETHER = 125
"""Schedules of one append: the runs of most plans then begin in it."""
MOST_ROUNDS = 120
"""Decisions about one schedule after one look: more than the times that are caught up with."""
WAITING_LOOKED_AT_S = 1.0
"""Seconds after which it is looked again whether a run has ended for whose end a schedule waits."""
LONGEST_WAIT_S = 60.0
AGAIN_S = 10.0
"""Seconds after which schedules that cannot be read are looked at again."""
PUT_OFF_S = 60.0

OF_TIMES = (schedules.ScheduleFired, schedules.ScheduleQueued, schedules.ScheduleSkipped)

log = structlog.get_logger(__name__)


class SeenSchedule(NamedTuple):
    """A schedule as this process knows it, and which of its times is due."""

    schedule_id: UUID
    schedule: schedules.Schedule
    version: int
    due: schedules.Due | None


class Task(NamedTuple):
    """What is to be done about a schedule."""

    request: CommandRequest
    commands: tuple[Command, ...]
    schedule_id: UUID
    due_at: datetime | None = None
    """The time for which a run is started."""


@dataclass
class DueBatch:
    """Some schedules of one tenant that one look has found."""

    tenant_id: UUID
    at: datetime
    rows: Mapping[UUID, DueStream]
    starts: ScheduleStarts
    seen_to: set[UUID]
    """Those about which something was decided, or about which nothing is left to decide."""
    troubled: set[UUID]
    """Those about which nothing can be decided."""
    again: set[UUID]
    """Those whose stream has moved on."""
    goes_on: set[UUID]
    """Those of which a further time may be due."""


class ScheduleService:
    def __init__(
        self, commands: CommandLoop, due: DueStreams, *, workflows: Workflows, known: KnownAgents, functions: Functions,
        admission: RunAdmission,
    ) -> None:  # fmt: skip
        self._commands = commands
        self._workflows = workflows
        self._due = due
        self._known = known
        self._functions = functions
        self._admission = admission

    async def run(self) -> None:
        """Sleeps until the next schedule is due or one comes that is due before."""
        while True:
            look = await self._look()
            if look.due or look.waiting:
                await self._see_to([*look.due, *look.waiting], look.now)
            if look.due:
                continue
            pause = LONGEST_WAIT_S if look.next_in_s is None else min(max(look.next_in_s, 0.0), LONGEST_WAIT_S)
            await self._due.wait_for_change(min(pause, WAITING_LOOKED_AT_S) if look.waiting else pause)

    async def _look(self) -> DueLook:
        """What is due. A database that does not show it must not end the process, which has other work."""
        while True:
            try:
                return await persistently(lambda: self._due.look(LOOKED_AT, WAITING_LOOKED_AT))
            except Exception as error:
                log.exception("schedules_not_read", error=str(error), hint="grants of migration 0054?")
            await asyncio.sleep(AGAIN_S)

    async def _see_to(self, streams: Sequence[DueStream], at: datetime) -> None:
        batches = self._batches(streams, at)

        async def some() -> None:
            while batches:
                await self._see_to_batch(batches.popleft())

        await side_by_side(*(some() for _ in range(min(BATCHES_AT_ONCE, len(batches)))))

    def _batches(self, streams: Sequence[DueStream], at: datetime) -> deque[DueBatch]:
        found: deque[DueBatch] = deque()
        for tenant_id, of_tenant in groupby(sorted(streams, key=lambda one: one.tenant_id.int), key=lambda one: one.tenant_id):
            rows, starts = list({row.stream_id: row for row in of_tenant}.values()), self._starts(tenant_id)
            for begin in range(0, len(rows), BATCH):
                some = {row.stream_id: row for row in rows[begin : begin + BATCH]}
                found.append(DueBatch(tenant_id, at, some, starts, set(), set(), set(), set()))
        return found

    async def _see_to_batch(self, batch: DueBatch) -> None:
        await persistently(partial(self._decide, batch))
        if done := [batch.rows[each] for each in batch.seen_to - batch.troubled]:
            await persistently(partial(self._due.done, done))
        if troubled := [batch.rows[each] for each in batch.troubled]:
            await persistently(partial(self._due.put_off, troubled, PUT_OFF_S))

    def _starts(self, tenant_id: UUID, *, fresh: bool = False) -> ScheduleStarts:
        return ScheduleStarts(self._commands, self._workflows, self._known, self._functions, tenant_id, fresh=fresh)

    async def _decide(self, batch: DueBatch) -> None:
        """Decides about all that is due in the schedules of a batch. May be done again. Raises Unavailable."""
        await self._meet(batch, list(batch.rows))
        pending = [each for each in batch.rows if each not in batch.troubled]
        for _ in range(MOST_ROUNDS):
            seen = [found for each in pending if (found := await self._seen(batch, each)) is not None]
            running = await self._open_runs(batch, seen)
            tasks = [task for each in seen if (task := await self._task(batch, each, running)) is not None]
            if not tasks:
                return
            await self._carry_out(batch, tasks)
            if batch.again:
                batch.goes_on |= batch.again
                batch.starts = self._starts(batch.tenant_id, fresh=True)
                await self._meet(batch, batch.again, fresh=True)
                batch.again.clear()
            pending = [each for each in batch.goes_on if each not in batch.troubled]
            batch.goes_on.clear()
        log.error("schedules_not_fired", schedules=[str(each) for each in pending[:10]], reason="no end of what is due")
        batch.troubled.update(pending)

    async def _meet(self, batch: DueBatch, streams: Sequence[UUID] | set[UUID], *, fresh: bool = False) -> None:
        """Reads the schedules that this process does not know, or of which the table knows more."""
        tenant_id, commands = batch.tenant_id, self._commands
        await commands.meet(tenant_id, dict.fromkeys(streams, schedules.DECIDER), fresh=fresh)
        known = {each: commands.known(schedules.DECIDER, tenant_id, each) for each in streams}
        old = [each for each, loaded in known.items() if loaded is None or loaded.version < batch.rows[each].version]
        if old:
            await commands.meet(tenant_id, dict.fromkeys(old, schedules.DECIDER), fresh=True)

    async def _open_runs(self, batch: DueBatch, seen: Sequence[SeenSchedule]) -> frozenset[UUID]:
        """The last runs of schedules that have not ended, where it counts."""
        asked = {
            schedule.last_run_id
            for _, schedule, _, due in seen
            if schedule.last_run_id is not None and due is not None and _minds(schedule)
        }
        return await open_runs(self._commands, batch.tenant_id, asked)

    async def _seen(self, batch: DueBatch, schedule_id: UUID) -> SeenSchedule | None:
        """None: it cannot be read, and is troubled."""
        try:
            loaded = await self._commands.load(schedules.DECIDER, batch.tenant_id, schedule_id, fresh=False)
            return SeenSchedule(schedule_id, loaded.state, loaded.version, schedules.due_of(schedule_id, loaded.state, batch.at))
        except Unavailable:
            raise
        except Exception as error:  # a stream that cannot be folded: the other schedules must still fire
            log.error("schedule_unreadable", schedule_id=str(schedule_id), exc_info=error)
            batch.troubled.add(schedule_id)
            return None

    async def _task(self, batch: DueBatch, seen: SeenSchedule, running: frozenset[UUID]) -> Task | None:
        """What is to be done about a schedule. None: nothing."""
        schedule_id, schedule, _, due = seen
        at = batch.at
        behind = schedule.last_run_id if schedule.last_run_id in running else None
        if due is not None and due.waited and behind is not None:
            due = schedules.next_due(schedule_id, schedule, at)
            if due is None:
                return None  # it goes on waiting
        if due is None:
            self._nothing(batch, seen)
            return None
        assert schedule.created is not None
        assert schedule.definition is not None
        if due.due_at is None:
            assert due.left_out is not None
            passed = schedules.PassSchedule(schedule_id=schedule_id, at=at)
            return _tell(batch, seen, _run_id(seen, due.left_out.first), "pass", passed)
        run_id = _run_id(seen, due.due_at)
        if behind is not None and schedule.definition.overlap != "cancel":
            held = schedules.HoldSchedule(schedule_id=schedule_id, due_at=due.due_at, behind=behind, at=at)
            return _tell(batch, seen, run_id, "hold", held)
        if behind is not None:
            await cancel_run(self._commands, batch.tenant_id, schedule.created.name, behind)
        try:
            start = await batch.starts.of(schedule, run_id, due.due_at)
        except Unavailable:
            raise
        except TidelogError as error:
            return _refused(batch, seen, due.due_at, error)
        fired = schedules.FireSchedule(schedule_id=schedule_id, due_at=due.due_at, run_id=run_id, at=at)
        return _tell(batch, seen, run_id, "fire", fired, *start.commands, due_at=due.due_at)

    def _nothing(self, batch: DueBatch, seen: SeenSchedule) -> None:
        """Nothing is due, or nothing more. If the table knows all that happened, it must not be asked again at once."""
        schedule_id, row = seen.schedule_id, batch.rows[seen.schedule_id]
        if seen.version > row.version:
            batch.seen_to.add(schedule_id)
        elif schedule_id not in batch.seen_to:
            log.warning("schedule_not_due", schedule_id=str(schedule_id), version=row.version)
            batch.troubled.add(schedule_id)

    async def _carry_out(self, batch: DueBatch, tasks: Sequence[Task]) -> None:
        """Carries tasks out, as many in one append as fit, and records the refusals. Raises Unavailable."""
        if not self._admission.counted:
            await self._admission.ready()
        refused: list[Task] = []

        async def together(some: Sequence[Task]) -> None:
            refused.extend(await self._append(batch, some))

        parts = [tasks[begin : begin + TOGETHER] for begin in range(0, len(tasks), TOGETHER)]
        await side_by_side(*(together(part) for part in parts))
        for begin in range(0, len(refused), TOGETHER):
            await self._append(batch, refused[begin : begin + TOGETHER])

    async def _append(self, batch: DueBatch, tasks: Sequence[Task]) -> list[Task]:
        """Gives tasks to the command loop as one append. Returns what is to be said of those that were refused."""
        refused: list[Task] = []
        with ExitStack() as stack:
            given: list[Task] = []
            admitted: dict[UUID, Admitted] = {}
            for task in tasks:
                if task.due_at is not None:
                    try:
                        admitted[task.schedule_id] = stack.enter_context(self._admission.admitted(batch.tenant_id))
                    except TidelogError as error:  # as many runs are open as may be
                        refused += await self._answered(batch, task, error)
                        continue
                given.append(task)
            if not given:
                return refused
            answers = await self._commands.execute_all([(task.request, task.commands) for task in given])
            away: Exception | None = None
            for task, answer in zip(given, answers, strict=True):
                if isinstance(answer, Unavailable | VersionConflict):
                    away = answer
                elif isinstance(answer, CommandOutcome):
                    batch.seen_to.add(task.schedule_id)
                    if _goes_on(answer.events, batch.at):
                        batch.goes_on.add(task.schedule_id)
                    if answer.duplicate:
                        batch.again.add(task.schedule_id)
                    elif task.schedule_id in admitted:
                        admitted[task.schedule_id].position = answer.position
                else:
                    refused += await self._answered(batch, task, answer)
        if away is not None:
            raise away
        return refused

    async def _answered(self, batch: DueBatch, task: Task, error: Exception) -> list[Task]:
        """What is to be done about a task that was refused."""
        if isinstance(error, schedules.ScheduleMoved | AgentChanged | WorkflowChanged):
            batch.again.add(task.schedule_id)
            return []
        seen = await self._seen(batch, task.schedule_id)
        if seen is None:
            return []
        if isinstance(error, TidelogError) and task.due_at is not None:
            return [_refused(batch, seen, task.due_at, error)]
        log.error("schedule_not_fired", schedule_id=str(task.schedule_id), exc_info=error)
        batch.troubled.add(task.schedule_id)
        return []


def _minds(schedule: schedules.Schedule) -> bool:
    """Whether it matters to a schedule that its last run goes on."""
    return schedule.definition is not None and schedule.definition.overlap != "allow"


def _run_id(seen: SeenSchedule, due_at: datetime) -> UUID:
    return schedules.run_id_of(seen.schedule_id, seen.schedule.life, due_at)


def _tell(batch: DueBatch, seen: SeenSchedule, run_id: UUID, what: str, *commands: Command, due_at: datetime | None = None) -> Task:
    """The command's id follows from the schedule, the time, and what is known of the stream: a repeat changes nothing.

    `run_id`: the id that the run of the time has, or would have.
    """
    schedule_id, created, version = seen.schedule_id, seen.schedule.created, seen.version
    assert created is not None
    request = CommandRequest(
        tenant_id=batch.tenant_id, actor=f"schedule:{created.name}", command_id=derive_id(run_id, f"{what}:{version}"),
        correlation_id=run_id, causation_id=f"{schedule_id}:{version}", checked=True, on_behalf_of=created.on_behalf_of,
    )  # fmt: skip
    return Task(request, commands, schedule_id, due_at)


def _refused(batch: DueBatch, seen: SeenSchedule, due_at: datetime, error: TidelogError) -> Task:
    told = error.message if error.pointer is None else f"{error.message} ({error.pointer})"
    refusal = schedules.RefuseSchedule(
        schedule_id=seen.schedule_id, due_at=due_at, code=error.code, message=told.replace("\x00", ""), at=batch.at
    )  # fmt: skip
    return _tell(batch, seen, _run_id(seen, due_at), "refuse", refusal)


def _goes_on(events: Sequence[Event], at: datetime) -> bool:
    """Whether a further time may be due after these events of a schedule, and of the run that it starts."""
    times = [event.next_at for event in events if isinstance(event, OF_TIMES)]
    return bool(times) and times[-1] is not None and times[-1] <= at


async def open_runs(commands: CommandLoop, tenant_id: UUID, run_ids: set[UUID]) -> frozenset[UUID]:
    """Those of the runs that have not ended, as the log says. Raises Unavailable."""
    asked = [run_id for run_id in run_ids if not _is_over(commands.known(runs.DECIDER, tenant_id, run_id))]
    found = await asyncio.gather(*(commands.load(runs.DECIDER, tenant_id, run_id) for run_id in asked))
    return frozenset(run_id for run_id, loaded in zip(asked, found, strict=True) if not _is_over(loaded))


def _is_over(loaded: Loaded | None) -> bool:
    return loaded is not None and loaded.state.status != "running"


async def cancel_run(commands: CommandLoop, tenant_id: UUID, name: str, run_id: UUID) -> None:
    """Cancels the run of before. One that has ended meanwhile stays as it is. Raises Unavailable."""
    command_id = derive_id(run_id, "schedule:cancel")
    request = CommandRequest(
        tenant_id=tenant_id, actor=f"schedule:{name}", command_id=command_id, correlation_id=run_id,
        causation_id=str(command_id), checked=True,
    )  # fmt: skip
    try:
        await commands.execute(request, runs.CancelRun(run_id=run_id, reason=f"the schedule '{name}' is due again"))
    except InvalidState as error:
        log.info("run_of_schedule_ended", run_id=str(run_id), error=error.message)
