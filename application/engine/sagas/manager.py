"""The saga loop: events in order → reactions → commands and work → checkpoint. Redelivery changes nothing, because ids are derived.

Most commands that follow from an event are recorded with it (`application/engine/commands/follow_ups.py`). The loop gives the rest.
Sagas are partitioned by root id. Each partition has a checkpoint of its own, so that several processes can share the partitions. No
reaction depends on two roots.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

import structlog

from application.engine.asked import AskedPositions
from application.engine.background import side_by_side
from application.engine.catalog import Catalog
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.commands.routes import Route
from application.engine.gathering import Gathering
from application.engine.ports.checkpoints import Checkpoint, Checkpoints
from application.engine.ports.log import Subscription
from application.engine.ports.positions import PositionCalls
from application.engine.ports.queue import WorkItem, WorkQueue
from application.engine.retry import persistently
from application.engine.retry_parked import Effect
from application.engine.sagas.reactions import Reaction, cause_of, name_of, request_for
from application.engine.staying import STAY_S, Stay
from domain.kernel import Command, RecordedEvent

PARTITIONS = tuple(f"sagas:{number}" for number in range(8))
"""Names of the partitions and of their checkpoints. At most as many processes can share the sagas. The number is for ever."""
MAX_ROOTS_AT_ONCE = 64
MOST_BEGUN = 100
"""Streams that are begun together."""
LAG_S = 0.2
"""Seconds for which events linger that no saga has to react to, unless somebody waits for their position. Most are such, and each
move of the checkpoints is a transaction."""
DONE_S = 0.2
"""Seconds after which the checkpoints move past what a saga had to do. The next owner does again what came after; each time it
finds that it was done."""
LAST_MOVE_S = 0.5
"""Seconds that the last move of a manager may take that is cancelled."""

log = structlog.get_logger(__name__)


def partition_of(root_id: UUID) -> str:
    """The partition of a root. The last byte of an id is random in UUIDv7, and a hash in derived ids."""
    return PARTITIONS[root_id.int % len(PARTITIONS)]


Answer = tuple[CommandRequest, Command | WorkItem]
"""A reaction, with the request that it has as a command."""


def react(recorded: RecordedEvent, catalog: Catalog) -> list[Answer]:
    """The reactions of sagas to one event that are not in the log with the event, each with the request that it has as a command.

    Raises whatever a reaction or the decoding of the event raises.
    """
    kind = catalog.registry.events.get(recorded.topic)
    handlers = catalog.handlers.get(kind, ()) if kind is not None else ()
    open_handlers = [each for each in handlers if not recorded.settled & each.bit]
    if not open_handlers:
        return []
    event = catalog.registry.decoded(recorded).dated(recorded.recorded_at)
    cause = cause_of(recorded)
    return [
        (request_for(cause, name_of(saga, cause, index), _route_of(catalog, reaction), reaction), reaction)
        for saga, _, handler in open_handlers
        for index, reaction in enumerate(handler(event, cause))
    ]


def _route_of(catalog: Catalog, reaction: Reaction) -> Route | None:
    return catalog.routes[type(reaction)] if isinstance(reaction, Command) else None


def effects_of(recorded: RecordedEvent, catalog: Catalog, commands: CommandLoop, queue: WorkQueue) -> list[Effect]:
    """What is to be done because of one event, in order: each command, then all work at once. Each may be done again.

    Raises whatever a reaction or the decoding of the event raises.
    """
    return _effects(react(recorded, catalog), commands, queue)


def _effects(answers: Sequence[Answer], commands: CommandLoop, queue: WorkQueue) -> list[Effect]:
    effects: list[Effect] = [
        partial(commands.execute, request, answer) for request, answer in answers if isinstance(answer, Command)
    ]
    work = [answer for _, answer in answers if isinstance(answer, WorkItem)]
    if work:
        effects.append(partial(queue.publish, work))
    return effects


class Beginning(NamedTuple):
    """A command that begins a stream."""

    recorded: RecordedEvent
    """Its cause."""
    request: CommandRequest
    command: Command
    in_root: bool
    """Whether the stream is in the root of the cause. If not, it is a root of its own."""


class SagaManager:
    """Runs all sagas over some partitions of the log. Events of one root are handled in order, different roots side by side."""

    def __init__(
        self,
        commands: CommandLoop,
        subscription: Subscription,
        checkpoints: Checkpoints,
        queue: WorkQueue,
        catalog: Catalog,
        partitions: Iterable[str] = PARTITIONS,
        calls: PositionCalls | None = None,
        *,
        lag_s: float | None = None,
        stay_s: float = STAY_S,
    ) -> None:
        """`calls`: how others ask for positions at once. None: nobody can, so all partitions move with each batch.

        `lag_s`: None: `LAG_S`. `stay_s`: how long a partition stays where it is that has nothing to do.
        """
        self._calls = calls
        self._stay = Stay(allowed=calls is not None, seconds=stay_s)
        self._lag_s = LAG_S if lag_s is None else lag_s
        self._commands = commands
        self._subscription = subscription
        self._checkpoints = checkpoints
        self._queue = queue
        self._partitions = sorted(partitions)
        self._catalog = catalog
        self._known: dict[str, Checkpoint] = {}

    async def run(self) -> None:
        """Works until cancelled; outages are waited out. Raises LostOwnership when another process took a partition over."""
        self._known = await persistently(lambda: self._checkpoints.take(self._partitions))
        try:
            await self._work()
        except asyncio.CancelledError:
            with suppress(Exception):  # the next owner reads a little more
                async with asyncio.timeout(LAST_MOVE_S):
                    await self._advance(self._partitions)
            raise

    async def _work(self) -> None:
        start = min(checkpoint.position for checkpoint in self._known.values())
        source = self._subscription.batches(after=start, name="sagas")
        asked = AskedPositions(self._calls, lambda: {name: known.position for name, known in self._known.items()})
        async with Gathering(asked, linger_s=self._lag_s, hurries=self._is_ours_to_do).of(source) as batches:
            async for batch in batches:
                moving = asked.names(batch[-1].position if batch else self._stay.passed)
                if batch:
                    if await self._handle(batch):
                        self._stay.end_within(DONE_S)
                    self._stay.passed = max(self._stay.passed, batch[-1].position)
                if not self._stay.may_last((c.position for c in self._known.values()), self._stay.passed):
                    moving = frozenset(self._partitions)
                await persistently(partial(self._advance, moving))
                await asked.moved()
                batches.rest_at = self._stay.until

    async def _advance(self, names: Collection[str]) -> None:
        """Moves partitions to where everything has been handled. The others may stay: nothing was theirs."""
        passed = self._stay.passed
        behind = {name: self._known[name] for name in names if name in self._known and self._known[name].position < passed}
        if behind:
            self._known |= await self._checkpoints.advance(behind, passed)
        self._stay.note(known.position for known in self._known.values())

    def _is_new(self, event: RecordedEvent) -> bool:
        known = self._known.get(partition_of(event.root_id))
        return known is not None and event.position > known.position

    def _is_ours_to_do(self, event: RecordedEvent) -> bool:
        return not self._catalog.is_settled(event) and self._is_new(event)

    async def _handle(self, batch: Sequence[RecordedEvent]) -> bool:
        """Answers whether there was something to do."""
        relevant = sorted(filter(self._is_ours_to_do, batch), key=lambda e: (e.root_id.int, e.position))
        if not relevant:
            return False
        gate = asyncio.Semaphore(MAX_ROOTS_AT_ONCE)

        async def in_order(events: list[RecordedEvent]) -> None:
            async with gate:
                beginnings: list[Beginning] = []
                for event in events:
                    answers = await self._answers(event)
                    more = self._beginnings(event, answers)
                    if not more or more[0].in_root != (beginnings or more)[0].in_root:
                        await self._begin(beginnings)
                    if more:
                        beginnings += more
                        continue
                    for effect in _effects(answers, self._commands, self._queue):
                        await self._attempt(event, effect)
                await self._begin(beginnings)

        await side_by_side(*(in_order(list(events)) for _, events in groupby(relevant, key=lambda e: e.root_id)))
        return True

    def _beginnings(self, recorded: RecordedEvent, answers: Sequence[Answer]) -> list[Beginning]:
        """What follows from an event, where all of it are commands that begin streams, either all in the root of the event or each
        as a root of its own. Those of many events go into few appends: a step may have a thousand parts."""
        found: list[Beginning] = []
        for request, answer in answers:
            route = self._catalog.routes.get(type(answer)) if isinstance(answer, Command) else None
            if not isinstance(answer, Command) or route is None or not route.creates or route.of_state:
                return []
            found.append(Beginning(recorded, request, answer, route.root(answer, None) == recorded.root_id))
        return found if len({each.in_root for each in found}) == 1 else []

    async def _begin(self, beginnings: list[Beginning]) -> None:
        while beginnings:
            some = beginnings[:MOST_BEGUN]
            del beginnings[:MOST_BEGUN]
            requests = [(each.request, (each.command,)) for each in some]
            outcomes = await persistently(partial(self._commands.execute_all, requests))
            for each, outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    await self._attempt(each.recorded, partial(self._commands.execute, each.request, each.command))

    async def _answers(self, recorded: RecordedEvent) -> Sequence[Answer]:
        try:
            return react(recorded, self._catalog)
        except Exception as error:  # noqa: BLE001  # a broken event must not stop the others
            await self._park(recorded, error)
            return ()

    async def _attempt(self, recorded: RecordedEvent, effect: Effect) -> None:
        try:
            await persistently(effect)
        except Exception as error:  # noqa: BLE001  # refused, or a stream that cannot be folded: other events must go on
            await self._park(recorded, error)

    async def _park(self, recorded: RecordedEvent, error: Exception) -> None:
        log.error(
            "saga_event_parked", position=recorded.position, topic=recorded.topic, root_id=str(recorded.root_id), exc_info=error
        )
        partition = partition_of(recorded.root_id)
        await persistently(lambda: self._checkpoints.park(partition, recorded, f"{type(error).__name__}: {error}"))
