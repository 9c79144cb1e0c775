"""The matcher: reads the log behind the appends, and fires the triggers on its events. One process at a time does.

It keeps a checkpoint as the sagas do. What it fires has ids that follow from the trigger and the event, so a part that is read
twice starts nothing twice. An event that no trigger names costs a look-up.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from application.engine.asked import AskedPositions
from application.engine.background import side_by_side
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.gathering import Gathering
from application.engine.ports.checkpoints import Checkpoint, Checkpoints
from application.engine.ports.log import EventFeed, Subscription
from application.engine.ports.positions import PositionCalls
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.retry import persistently
from application.engine.staying import STAY_S, Stay
from application.reads import AllTriggers, StoredTrigger
from application.triggers.firing import Firing, KnownTrigger, Misfire, fits
from application.triggers.index import SHAPING, TriggerIndex, earliest
from application.triggers.occurrences import occurrence_of, values_of
from application.triggers.roots import SIGNALLED, RootFacts, Roots
from domain.errors import DomainError
from domain.event_registry import UnknownEvent
from domain.kernel import Functions, Json, RecordedEvent, Spent
from domain.starting import id_at
from domain.triggers import DECIDER, RecordLimited, Trigger, TriggerNotActive, TriggerOverLimit

CHECKPOINT = "trigger-matcher"
"""For ever."""
LAG_S = 0.2
"""Seconds for which events linger that no trigger names, unless somebody waits for their position."""
DONE_S = 0.2
"""Seconds after which the checkpoint moves past what fired. The next owner does again what came after."""
LIMITED_S = 1.0
"""Seconds for which events over a limit are counted together. The checkpoint stays before them."""
LAST_MOVE_S = 0.5
AGAIN_S = 10.0
"""Seconds after which triggers that cannot be read are read again."""
TURN_S = 0.002
"""Seconds of expressions after which the event loop serves other tasks."""
MOST_AT_ONCE = 16
"""Triggers that fire side by side."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Limited:
    """Events of one trigger that were over its limit, and are not recorded yet."""

    trigger: KnownTrigger
    first: RecordedEvent
    last: RecordedEvent
    count: int
    due: float


class TriggerMatcher:
    def __init__(
        self,
        commands: CommandLoop,
        subscription: Subscription,
        checkpoints: Checkpoints,
        stored: AllTriggers,
        feed: EventFeed,
        roots: Roots,
        firing: Firing,
        encoder: CloudEventEncoder,
        functions: Functions,
        calls: PositionCalls | None = None,
        *,
        lag_s: float = LAG_S,
        stay_s: float = STAY_S,
        limited_s: float = LIMITED_S,
    ) -> None:
        """`stored`: all triggers, as a read model has them. `calls`: how others ask for positions at once."""
        self._commands = commands
        self._subscription = subscription
        self._checkpoints = checkpoints
        self._stored = stored
        self._feed = feed
        self._roots = roots
        self._firing = firing
        self._encoder = encoder
        self._functions = functions
        self._calls = calls
        self._lag_s = lag_s
        self._limited_s = limited_s
        self._index = TriggerIndex(commands.registry)
        self._stay = Stay(allowed=calls is not None, seconds=stay_s)
        self._known: dict[str, Checkpoint] = {}
        self._fires_after = 0
        self._limited: dict[object, _Limited] = {}
        self._turn = 0.0

    async def run(self) -> None:
        """Works until cancelled; outages are waited out. Raises LostOwnership when another process took over."""
        self._known = await persistently(lambda: self._checkpoints.take([CHECKPOINT]))
        begin = await self._begin()
        try:
            await self._work(begin)
        except asyncio.CancelledError:
            with suppress(Exception):  # the next owner reads a little more
                async with asyncio.timeout(LAST_MOVE_S):
                    await self._record_limited(everything=True)
                    await self._advance()
            raise

    async def _begin(self) -> int:
        """Fills the index as it was at the checkpoint. Returns the position after which the log is read.

        A log without triggers is not read from its beginning.
        """
        stored, position = await self._read()
        reached = self._known[CHECKPOINT].position
        self._fires_after = max(reached, min(earliest(stored, position), position))
        for one in stored:
            if one.since <= self._fires_after:
                self._index.put(one)
            else:
                await self._learn_earlier(one, self._fires_after)
        self._stay.passed = self._fires_after
        if self._fires_after > reached:
            await persistently(self._advance)
        return min(self._fires_after, position)

    async def _read(self) -> tuple[Sequence[StoredTrigger], int]:
        """The triggers of now. A database that does not show them must not end the process, which has other work."""
        while True:
            try:
                return await persistently(self._stored.all)
            except Exception as error:
                log.exception("triggers_not_read", error=str(error), hint="grants of migration 0055?")
            await asyncio.sleep(AGAIN_S)

    async def _learn_earlier(self, one: StoredTrigger, until: int) -> None:
        """What a trigger was before it became what it is: events of then may wait for it."""
        after = 0
        while True:
            page = await persistently(
                partial(
                    self._feed.read_tenant, one.tenant_id, after=after, until=until, limit=500, root_id=one.trigger_id,
                    topics=sorted(SHAPING), rooted=True,
                )
            )  # fmt: skip
            for event in page:
                self._learn(event)
            if len(page) < 500:
                return
            after = page[-1].position

    async def _work(self, begin: int) -> None:
        source = self._subscription.batches(after=begin, name="triggers")
        asked = AskedPositions(self._calls, lambda: {CHECKPOINT: self._known[CHECKPOINT].position})
        async with Gathering(asked, linger_s=self._lag_s, hurries=self._index.concerns).of(source) as batches:
            async for batch in batches:
                wanted = bool(asked.names(batch[-1].position if batch else self._stay.passed))
                if batch:
                    if await self._handle(batch):
                        self._stay.end_within(DONE_S)
                    self._stay.passed = max(self._stay.passed, batch[-1].position)
                await persistently(partial(self._record_limited, everything=wanted))
                if wanted or not self._stay.may_last([self._known[CHECKPOINT].position], self._stay.passed):
                    await persistently(self._advance)
                else:
                    self._stay.note([self._known[CHECKPOINT].position])
                await asked.moved()
                due = [limited.due for limited in self._limited.values()]
                batches.rest_at = min([*due, *([self._stay.until] if self._stay.until is not None else [])], default=None)

    async def _advance(self) -> None:
        """Moves the checkpoint to where everything has been handled and recorded."""
        until = min([self._stay.passed, *(limited.first.position - 1 for limited in self._limited.values())])
        if self._known[CHECKPOINT].position < until:
            self._known |= await self._checkpoints.advance(self._known, until)
        self._stay.note([self._known[CHECKPOINT].position])

    def _learn(self, event: RecordedEvent) -> None:
        try:
            self._index.learn(event)
        except (UnknownEvent, ValueError) as error:  # of a later release, or damaged
            log.error("trigger_event_unreadable", position=event.position, topic=event.topic, error=str(error))

    async def _meet(self, event: RecordedEvent) -> None:
        """What this process knows of the trigger may be older than the event, and would refuse what the trigger is to do."""
        try:
            await persistently(partial(self._commands.load, DECIDER, event.tenant_id, event.stream_id))
        except Exception as error:  # a stream that cannot be folded: its firings say so
            log.exception("trigger_event_failed", position=event.position, error=str(error))

    async def _handle(self, batch: Sequence[RecordedEvent]) -> bool:
        """Fires what is to be fired for a batch. Answers whether there was something to do."""
        found: dict[object, list[tuple[KnownTrigger, RecordedEvent]]] = defaultdict(list)
        for event in batch:
            if event.topic == SIGNALLED:
                self._roots.forget(event.tenant_id, event.root_id)
            if not self._index.concerns(event):
                continue
            if event.topic in SHAPING:
                self._learn(event)
                await self._meet(event)
            elif event.position > self._fires_after:
                for trigger in self._index.of(event):
                    found[trigger.trigger_id].append((trigger, event))
        if not found:
            return False
        self._turn = asyncio.get_running_loop().time()
        gate, seen = asyncio.Semaphore(MOST_AT_ONCE), dict[int, dict[str, Json]]()

        async def in_order(work: list[tuple[KnownTrigger, RecordedEvent]]) -> None:
            async with gate:
                for trigger, event in work:
                    await self._consider(trigger, event, seen)

        await side_by_side(*(in_order(work) for work in found.values()))
        return True

    async def _consider(self, trigger: KnownTrigger, event: RecordedEvent, seen: dict[int, dict[str, Json]]) -> None:
        """Raises nothing: one trigger and one event must not stop the others."""
        try:
            await self._match(trigger, event, seen)
        except Exception as error:  # a defect, or a stream that cannot be folded
            log.exception("trigger_event_failed", trigger=trigger.name, position=event.position, error=str(error))

    async def _match(self, trigger: KnownTrigger, event: RecordedEvent, seen: dict[int, dict[str, Json]]) -> None:
        if not await self._is_of_project(trigger, event):
            return
        values, spent = seen.get(event.position), Spent()
        if values is None:
            values = seen[event.position] = values_of(self._encoder, event)
        misfire: Misfire | None = None
        try:
            if not fits(trigger, values, self._functions, spent):
                return
        except Misfire as error:
            misfire = error
        finally:
            await self._take_turns()
        depth = 0 if misfire else (await self._facts(event)).depth
        occurrence = occurrence_of(event, values, depth)
        state: Trigger = (
            await persistently(partial(self._commands.load, DECIDER, event.tenant_id, trigger.trigger_id, fresh=False))
        ).state
        if event.position <= state.limited_until:
            return  # handled before, up to here
        id = occurrence.id_for(trigger.trigger_id)
        try:
            if misfire is None:
                try:
                    fire = partial(self._firing.fire, trigger, occurrence, id=id, command_id=id, spent=spent)
                    await persistently(fire)
                    return
                except Misfire as error:
                    misfire = error
            await persistently(partial(self._firing.record, trigger, occurrence, misfire))
        except TriggerOverLimit:
            self._count(trigger, event)
        except TriggerNotActive:
            return

    async def _is_of_project(self, trigger: KnownTrigger, event: RecordedEvent) -> bool:
        """Whether the trigger may see the event, and wants it of this project."""
        wanted = None if trigger.definition.on is None else trigger.definition.on.project_id
        if wanted is None and trigger.within is None:
            return True
        facts = await self._facts(event)
        return wanted in (None, facts.project_id) and (trigger.within is None or facts.project_id in trigger.within)

    async def _facts(self, event: RecordedEvent) -> RootFacts:
        signals = event.tenant_id in self._index.signalling
        return await persistently(partial(self._roots.of, event.tenant_id, event.root_id, signals=signals))

    async def _take_turns(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._turn >= TURN_S:
            await asyncio.sleep(0)
            self._turn = asyncio.get_running_loop().time()

    # --- what is over the limit -------------------------------------------------------------------------------------------------

    def _count(self, trigger: KnownTrigger, event: RecordedEvent) -> None:
        limited = self._limited.get(trigger.trigger_id)
        if limited is None:
            due = asyncio.get_running_loop().time() + self._limited_s
            self._limited[trigger.trigger_id] = _Limited(trigger, event, event, 1, due)
        elif event.position > limited.last.position:
            limited.last, limited.count = event, limited.count + 1

    async def _record_limited(self, *, everything: bool) -> None:
        now = asyncio.get_running_loop().time()
        for key, limited in list(self._limited.items()):
            if everything or limited.due <= now:
                await self._record(limited)
                del self._limited[key]

    async def _record(self, limited: _Limited) -> None:
        """The id of the command follows from all that it says, so a repeat is one, and what is counted anew is not."""
        trigger, last = limited.trigger, limited.last
        command_id = id_at(last.recorded_at, trigger.trigger_id, f"limited:{limited.first.position}:{last.position}")
        command = RecordLimited(
            trigger_id=trigger.trigger_id, name=trigger.name, count=limited.count, until=last.position,
            minute=int(last.recorded_at.timestamp() // 60),
        )  # fmt: skip
        request = CommandRequest(
            trigger.tenant_id, "system", command_id, last.root_id, last.name, checked=True
        )  # fmt: skip
        with suppress(DomainError):
            await self._commands.execute(request, command)
