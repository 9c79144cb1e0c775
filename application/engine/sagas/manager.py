"""The saga loop: events in order → reactions → commands and work → checkpoint. Redelivery changes nothing, because ids are derived.

Most commands that follow from an event are recorded with it (`application/engine/commands/follow_ups.py`). The loop gives the rest.
Sagas are partitioned by root id. Each partition has a checkpoint of its own, so that several processes can share the partitions. No
reaction depends on two roots.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from uuid import UUID

import structlog

from application.engine.asked import AskedPositions
from application.engine.background import side_by_side
from application.engine.catalog import Catalog
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.gathering import Gathering
from application.engine.ports.checkpoints import Checkpoint, Checkpoints
from application.engine.ports.log import Subscription
from application.engine.ports.positions import PositionCalls
from application.engine.ports.queue import WorkItem, WorkQueue
from application.engine.retry import persistently
from application.engine.retry_parked import Effect
from application.engine.sagas.reactions import cause_of, name_of, request_for
from domain.kernel import Command, RecordedEvent

PARTITIONS = tuple(f"sagas:{number}" for number in range(8))
"""Names of the partitions and of their checkpoints. At most as many processes can share the sagas. The number is for ever."""
MAX_ROOTS_AT_ONCE = 64
LAG_S = 0.2
"""Seconds for which events linger that no saga has to react to, unless somebody waits for their position. Most are such, and each
move of the checkpoints is a transaction."""

log = structlog.get_logger(__name__)


def partition_of(root_id: UUID) -> str:
    """The partition of a root. The last byte of an id is random in UUIDv7, and a hash in derived ids."""
    return PARTITIONS[root_id.int % len(PARTITIONS)]


def react(recorded: RecordedEvent, catalog: Catalog) -> list[tuple[CommandRequest, Command | WorkItem]]:
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
        (request_for(cause, name_of(saga, cause, index)), reaction)
        for saga, _, handler in open_handlers
        for index, reaction in enumerate(handler(event, cause))
    ]


def effects_of(recorded: RecordedEvent, catalog: Catalog, commands: CommandLoop, queue: WorkQueue) -> list[Effect]:
    """What is to be done because of one event, in order: each command, then all work at once. Each may be done again.

    Raises whatever a reaction or the decoding of the event raises.
    """
    answers = react(recorded, catalog)
    effects: list[Effect] = [
        partial(commands.execute, request, answer) for request, answer in answers if isinstance(answer, Command)
    ]
    work = [answer for _, answer in answers if isinstance(answer, WorkItem)]
    if work:
        effects.append(partial(queue.publish, work))
    return effects


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
    ) -> None:
        """`calls`: how others ask for positions at once. None: nobody can. `lag_s`: None: `LAG_S`."""
        self._calls = calls
        self._lag_s = LAG_S if lag_s is None else lag_s
        self._commands = commands
        self._subscription = subscription
        self._checkpoints = checkpoints
        self._queue = queue
        self._partitions = sorted(partitions)
        self._catalog = catalog
        self._known: dict[str, Checkpoint] = {}
        self._seen = 0
        """Position up to which everything has been handled."""

    async def run(self) -> None:
        """Works until cancelled; outages are waited out. Raises LostOwnership when another process took a partition over."""
        self._known = await persistently(lambda: self._checkpoints.take(self._partitions))
        start = min(checkpoint.position for checkpoint in self._known.values())
        source = self._subscription.batches(after=start, name="sagas")
        asked = AskedPositions(self._calls, lambda: {name: known.position for name, known in self._known.items()})
        async with Gathering(asked, linger_s=self._lag_s, hurries=self._is_ours_to_do).of(source) as batches:
            async for batch in batches:
                if batch:
                    self._seen = batch[-1].position
                    await self._handle(batch)
                await self._advance()
                await asked.moved()

    async def _advance(self) -> None:
        behind = {name: known for name, known in self._known.items() if known.position < self._seen}
        if behind:
            self._known |= await persistently(partial(self._checkpoints.advance, behind, self._seen))

    def _is_new(self, event: RecordedEvent) -> bool:
        known = self._known.get(partition_of(event.root_id))
        return known is not None and event.position > known.position

    def _is_ours_to_do(self, event: RecordedEvent) -> bool:
        return not self._catalog.is_settled(event) and self._is_new(event)

    async def _handle(self, batch: Sequence[RecordedEvent]) -> None:
        relevant = sorted(filter(self._is_ours_to_do, batch), key=lambda e: (e.root_id.int, e.position))
        if not relevant:
            return
        gate = asyncio.Semaphore(MAX_ROOTS_AT_ONCE)

        async def in_order(events: list[RecordedEvent]) -> None:
            async with gate:
                for event in events:
                    await self._handle_one(event)

        await side_by_side(*(in_order(list(events)) for _, events in groupby(relevant, key=lambda e: e.root_id)))

    async def _handle_one(self, recorded: RecordedEvent) -> None:
        try:
            effects = effects_of(recorded, self._catalog, self._commands, self._queue)
        except Exception as error:  # noqa: BLE001  # a broken event must not stop the others
            await self._park(recorded, error)
            return
        for effect in effects:
            await self._attempt(recorded, effect)

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
