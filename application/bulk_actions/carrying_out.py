"""Carries bulk actions out: finds the runs, writes them down, gives each its command, and says how far it has come.

Everything that is known stands in the stream of the bulk action, so any process may go on at any moment. What a killed process had
begun is done again under the same ids, and changes nothing. What two processes do side by side counts once: the second one's word
about the same runs comes too late.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from application.bulk_actions.orders import STATUSES, command_of, is_so, request_of
from application.engine.background import side_by_side
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.database import Listener
from application.engine.ports.log import EventFeed
from application.engine.ports.pages import uuid_cursor
from application.engine.retry import persistently
from application.reads import OpenBulkAction, OpenBulkActions, RunReads, RunsWanted
from application.runs.retry import retry_run
from domain import agent_runs, bulk_actions, runs
from domain.bulk_actions import (
    SELECTED_TOGETHER,
    AdvanceBulkAction,
    BulkAction,
    ExampleOfRun,
    FailBulkAction,
    RunFilter,
    SelectRuns,
)
from domain.errors import InvalidCommand, ProjectionBehind, TidelogError, Unavailable, VersionConflict
from domain.kernel import Command, Decider, derive_id
from domain.runs import RetryRun

LOOKED_AT = 100
"""Bulk actions of one look."""
AT_ONCE = 2
"""Bulk actions that are carried out at the same time."""
TURN_S = 2.0
"""Seconds after which other bulk actions have their turn."""
SLICE = 1_000
"""Runs after which the stream says how far it has come."""
TOGETHER = 100
"""Runs whose commands are one append: what follows in most of them fits in."""
GROUPS_AT_ONCE = 3
"""While the database reads and writes for one, this process decides about the next."""
RETRIES_AT_ONCE = 8
"""Of each group."""
LONGEST_WAIT_S = 60.0
BEHIND_S, LONGEST_BEHIND_S = 0.05, 2.0
"""Seconds between two looks at a read model that does not know the bulk action yet: they grow while it stands still."""
AGAIN_S = 30.0
"""Seconds after which a bulk action is looked at again that cannot be carried out."""
MESSAGE = 300
"""Characters of an error that are kept with an example."""

log = structlog.get_logger(__name__)


class BulkTask(NamedTuple):
    """What a run is told."""

    run_id: UUID
    request: CommandRequest
    command: Command


@dataclass
class BulkTally:
    """What became of some runs."""

    done: int = 0
    unchanged: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    examples: list[ExampleOfRun] = field(default_factory=list)

    def refuse(self, run_id: UUID, error: Exception) -> None:
        code, text = (error.code, error.message) if isinstance(error, TidelogError) else ("internal", "the run cannot be read")
        before = self.refused.get(code, 0)
        self.refused[code] = before + 1
        if before < bulk_actions.EXAMPLES_OF_CODE:
            self.examples.append(ExampleOfRun(run_id=run_id, code=code, message=text[:MESSAGE]))

    def count(self, outcome: CommandOutcome) -> None:
        if outcome.events or outcome.duplicate:
            self.done += 1
        else:
            self.unchanged += 1


class BulkActionService:
    def __init__(self, commands: CommandLoop, open_: OpenBulkActions, reads: RunReads, feed: EventFeed, changed: Listener) -> None:
        """`changed`: tells that bulk actions have come."""
        self._commands = commands
        self._open = open_
        self._reads = reads
        self._feed = feed
        self._changed = changed
        self._sure: dict[UUID, int] = {}
        """Bulk action → how many of its runs had their turn when this process said so: nobody has begun with the next ones."""
        self._troubled: dict[UUID, float] = {}
        """Bulk action → until when it is left alone."""
        self._behind_s: dict[UUID, float] = {}
        """Bulk action → the pause before the next look at a read model that does not know it yet."""

    async def run(self) -> None:
        """Works until cancelled; outages are waited out."""
        while True:
            found = deque(await self._look())
            worked = False

            async def some(found: deque[OpenBulkAction] = found) -> None:
                nonlocal worked
                while found:
                    worked |= await self._turn(found.popleft())

            if found:
                await side_by_side(*(some() for _ in range(min(AT_ONCE, len(found)))))
            if not worked:
                await self._changed.wait(AGAIN_S if self._troubled else LONGEST_WAIT_S)

    async def _look(self) -> Sequence[OpenBulkAction]:
        """A database that does not show them must not end the process, which has other work."""
        while True:
            try:
                return await persistently(lambda: self._open.open(LOOKED_AT))
            except Exception as error:
                log.exception("bulk_actions_not_read", error=str(error), hint="grants of migration 0069?")
            await asyncio.sleep(AGAIN_S)

    async def _turn(self, one: OpenBulkAction) -> bool:
        """Works on a bulk action for a while. False: there was nothing to do."""
        now = time.monotonic()
        if self._troubled.get(one.bulk_action_id, 0.0) > now:
            return False
        self._troubled.pop(one.bulk_action_id, None)
        worked = False
        try:
            while time.monotonic() - now < TURN_S and await persistently(partial(self.go_on, *one)):
                worked = True
        except Exception as error:  # the other ones must go on
            log.error("bulk_action_stuck", bulk_action_id=str(one.bulk_action_id), exc_info=error)
            self._troubled[one.bulk_action_id] = time.monotonic() + AGAIN_S
        return worked

    async def go_on(self, tenant_id: UUID, bulk_action_id: UUID) -> bool:
        """One more step. False: the bulk action is over. Raises Unavailable."""
        loaded = await self._commands.load(bulk_actions.DECIDER, tenant_id, bulk_action_id)
        action: BulkAction = loaded.state
        if action.status == "selecting":
            pause = self._behind_s.pop(bulk_action_id, BEHIND_S)
            try:
                await self._select(tenant_id, bulk_action_id, action, loaded.position)
            except ProjectionBehind:
                self._behind_s[bulk_action_id] = min(2 * pause, LONGEST_BEHIND_S)
                await asyncio.sleep(pause)
            except InvalidCommand as error:
                failed = FailBulkAction(bulk_action_id=bulk_action_id, code=error.code, message=error.message[:MESSAGE])
                await self._say(tenant_id, bulk_action_id, "fail", failed)
            return True
        if action.status == "acting":
            await self._act(tenant_id, bulk_action_id, action)
            return True
        self._sure.pop(bulk_action_id, None)
        self._behind_s.pop(bulk_action_id, None)
        return False

    async def _say(self, tenant_id: UUID, bulk_action_id: UUID, what: str, command: Command) -> None:
        """Something about the bulk action itself."""
        command_id = derive_id(bulk_action_id, what)
        request = CommandRequest(tenant_id, "system", command_id, bulk_action_id, f"{bulk_action_id}:1", checked=True)
        await self._commands.execute(request, command)

    # --- finding the runs -----------------------------------------------------------------------------------------------------

    async def _select(self, tenant_id: UUID, bulk_action_id: UUID, action: BulkAction, position: int) -> None:
        """Finds the next runs, and writes them down."""
        assert action.order is not None
        assert action.filter is not None
        statuses = action.filter.statuses or STATUSES[action.order.verb]
        [first] = await self._commands.history(tenant_id, bulk_action_id, limit=1)
        end = first.recorded_at + timedelta(microseconds=1)  # runs of the same moment were there
        reached, before = action.reached, action.before
        found: dict[UUID, None] = {}
        while len(found) < SELECTED_TOGETHER and reached < len(statuses):
            wanted = wanted_of(action.filter, statuses[reached], action.within, SELECTED_TOGETHER - len(found), before)
            if wanted.started_before is None or wanted.started_before > end:
                wanted = wanted._replace(started_before=end)
            page = await self._reads.list(tenant_id, wanted)
            if page.position < first.position:
                raise ProjectionBehind(f"the runs are known up to {page.position}, not yet up to {position}")
            found |= dict.fromkeys(run.run_id for run in page.value.data)
            before = uuid_cursor(page.value.next_cursor)
            if before is None:
                reached += 1
        number = action.parts + 1
        selected = SelectRuns(
            bulk_action_id=bulk_action_id, number=number, runs=tuple(found), reached=reached, before=before,
            complete=reached >= len(statuses),
        )  # fmt: skip
        await self._say(tenant_id, bulk_action_id, f"select:{number}", selected)

    # --- their commands -------------------------------------------------------------------------------------------------------

    async def _act(self, tenant_id: UUID, bulk_action_id: UUID, action: BulkAction) -> None:
        """Gives the next runs their commands: the oldest first, so that a run comes before those that its steps have started."""
        number, end = divmod(action.left - 1, SELECTED_TOGETHER)
        [part] = await self._commands.history(tenant_id, bulk_action_id, after_version=number + 1, limit=1)
        named: Sequence[UUID] = self._commands.registry.decoded(part).runs
        some = named[max(0, end + 1 - SLICE) : end + 1][::-1]
        sure = self._sure.pop(bulk_action_id, None) == action.handled
        groups, tally = deque(some[begin : begin + TOGETHER] for begin in range(0, len(some), TOGETHER)), BulkTally()

        async def work() -> None:
            while groups:
                group = groups.popleft()
                await self._meet(tenant_id, group)
                tasks = [
                    task for run_id in group if (task := await self._task(tenant_id, bulk_action_id, action, run_id, sure, tally))
                ]
                if tasks:
                    await (self._retry if retries else self._tell)(tasks, tally)

        assert action.order is not None
        retries = action.order.verb == "retry"
        await side_by_side(*(work() for _ in range(min(GROUPS_AT_ONCE, len(groups)))))
        advance = AdvanceBulkAction(
            bulk_action_id=bulk_action_id, begin=action.handled, count=len(some), done=tally.done, unchanged=tally.unchanged,
            refused=tally.refused, examples=tuple(tally.examples),
        )  # fmt: skip
        await self._say(tenant_id, bulk_action_id, f"advance:{action.handled}", advance)
        self._sure[bulk_action_id] = action.handled + len(some)

    async def _meet(self, tenant_id: UUID, some: Sequence[UUID]) -> None:
        """Reads the runs together, and what is under way in them: what follows from their commands goes into the same appends."""
        await self._commands.meet(tenant_id, dict.fromkeys(some, runs.DECIDER), fresh=True)
        below: dict[UUID, Decider[Any]] = {}
        for run_id in some:
            known = self._commands.known(runs.DECIDER, tenant_id, run_id)
            if known is not None and known.state.status == "running":
                below |= dict.fromkeys(known.state.under_way, agent_runs.DECIDER)
        await self._commands.meet(tenant_id, below, fresh=True)

    async def _task(
        self, tenant_id: UUID, bulk_action_id: UUID, action: BulkAction, run_id: UUID, sure: bool, tally: BulkTally
    ) -> BulkTask | None:
        """What a run is to be told. None: it is so already. `sure`: nobody has told these runs anything for this bulk action."""
        assert action.order is not None
        request = request_of(action, tenant_id, bulk_action_id, run_id)
        known = self._commands.known(runs.DECIDER, tenant_id, run_id)
        if known is not None and is_so(action.order, known.state):
            # Perhaps because of this bulk action, in a process that was killed before it said so.
            if sure or await self._commands.recorded(request) is None:
                tally.unchanged += 1
            else:
                tally.done += 1
            return None
        return BulkTask(run_id, request, command_of(action.order, run_id, request.command_id, action.by, action.on_behalf_of))

    async def _tell(self, tasks: Sequence[BulkTask], tally: BulkTally) -> None:
        """Gives the commands as one append, as far as they fit."""
        answers = await persistently(partial(self._commands.execute_all, [(task.request, (task.command,)) for task in tasks]))
        for task, answer in zip(tasks, answers, strict=True):
            if isinstance(answer, Unavailable | VersionConflict):  # one of the runs is busy: each goes by itself
                await self._tell_one(task, tally)
            else:
                self._answered(task.run_id, answer, tally)

    async def _tell_one(self, task: BulkTask, tally: BulkTally) -> None:
        answer: CommandOutcome | Exception
        try:
            answer = await persistently(partial(self._commands.execute, task.request, task.command))
        except Exception as error:  # noqa: BLE001  # the answer of this run
            answer = error
        self._answered(task.run_id, answer, tally)

    async def _retry(self, tasks: Sequence[BulkTask], tally: BulkTally) -> None:
        """A retry looks at more than its run."""
        waiting = deque(tasks)

        async def some() -> None:
            while waiting:
                run_id, request, command = waiting.popleft()
                assert isinstance(command, RetryRun)
                answer: CommandOutcome | Exception
                try:
                    answer = await persistently(
                        partial(retry_run, self._commands, self._feed, request, command, lambda audited: audited)
                    )
                except Exception as error:  # noqa: BLE001  # the answer of this run
                    answer = error
                self._answered(run_id, answer, tally)

        await side_by_side(*(some() for _ in range(min(RETRIES_AT_ONCE, len(waiting)))))

    @staticmethod
    def _answered(run_id: UUID, answer: CommandOutcome | Exception, tally: BulkTally) -> None:
        if isinstance(answer, CommandOutcome):
            tally.count(answer)
            return
        if not isinstance(answer, TidelogError):  # a stream that cannot be folded: the other runs must go on
            log.error("bulk_command_failed", run_id=str(run_id), exc_info=answer)
        tally.refuse(run_id, answer)


def wanted_of(
    asked: RunFilter, status: str, within: Sequence[UUID] | None, limit: int, before: UUID | None = None
) -> RunsWanted:  # fmt: skip
    """A page of the runs of one status that a filter finds."""
    return RunsWanted(
        limit, before, status, asked.project_id, asked.agent, asked.actor, asked.on_behalf_of, asked.metadata, asked.error,
        asked.started_after, asked.started_before, within, asked.parent, asked.workflow, asked.origin, asked.unmoved_s,
    )  # fmt: skip
