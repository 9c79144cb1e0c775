"""The values of a run, one at a time: of the run, of a step, of a journal, of a message; now or as of a position or time.

Documents and lists have references in the place of large values (`application/views/large.py`). A reference names the position of
the event that holds the value, so following it reads one event.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import parse_position
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import Positioned, RunReads
from application.runs.lookup import current_run
from application.runs.replay_at import replayed
from application.views.large import Field, LargeValue, position_of
from application.views.runs import RunView, StepView
from domain.errors import NotFound
from domain.failures import Failure
from domain.kernel import Json, RecordedEvent

READ_TOGETHER = 8
"""Large results that are read, and held in memory, at a time."""


@dataclass(frozen=True, slots=True)
class JoinedResults:
    """The results of several final steps, which may be too large to hold them together."""

    run: "ValuesOfRun"
    steps: list[StepView]

    def names(self) -> list[tuple[str, Json]]:
        """Each step with its result, or with the reference to it: what tells this value from another one."""
        return [(step.key, step.result if (place := _large(step, "result")) is None else place.ref) for step in self.steps]

    async def results(self) -> AsyncIterator[tuple[str, Json]]:
        """Raises Unavailable."""
        for first in range(0, len(self.steps), READ_TOGETHER):
            some = self.steps[first : first + READ_TOGETHER]
            wanted = {step.key: position_of(place) for step in some if (place := _large(step, "result")) is not None}
            events = await self.run.feed.at(list(wanted.values()), tenant_id=self.run.tenant_id) if wanted else []
            found = {event.position: event for event in events}
            for step in some:
                if step.key not in wanted:
                    yield step.key, step.result
                    continue
                held = self.run.reads.held(found[wanted[step.key]], "result", step.key)
                yield step.key, held.value if held is not None else await self.run.follow(step.key, "result", wanted[step.key])


@dataclass(frozen=True, slots=True)
class ValuesOfRun:
    """The values of one run. All methods raise NotFound, InvalidCommand (`as_of`), PayloadTooLarge (a replay), Unavailable."""

    reads: RunReads
    feed: EventFeed
    histories: HistoryKeeper
    tenant_id: UUID
    run_id: UUID

    async def of_run(self, field: Field, as_of: str | None) -> Positioned[Json | JoinedResults]:
        """A value of the run itself. The result of several final steps is `JoinedResults`."""
        if field != "result":
            return await self._value(None, field, as_of)
        found = await self._view(as_of)
        if found.value.plan.result is not None:
            return Positioned(await self._in(found.value, None, field), found.position)
        final = found.value.final_steps
        if len(final) == 1:
            return Positioned(await self._in(found.value, final[0].key, field), found.position)
        completed = [step for step in final if step.status == "completed"]
        if not completed:
            raise NotFound(f"run {self.run_id} has no result: it is {found.value.status}")
        return Positioned(JoinedResults(self, completed), found.position)

    async def of_step(self, key: str, field: Field, as_of: str | None) -> Positioned[Json]:
        return await self._value(key, field, as_of)

    async def of_part(self, key: str, number: int, field: Field, as_of: str | None) -> Positioned[Json]:
        """A value of a part of a step."""
        position = None if as_of is None else parse_position(as_of)
        event = await self._event(position) if position else None
        if position and event is not None and (held := self.reads.held(event, field, key, number)) is not None:
            return Positioned(held.value, position)
        view = await self._view(as_of)
        at = view.position
        folded = await replayed(self.reads, self.feed, self.tenant_id, self.run_id, at, all_calls=True)
        found = await self.reads.parts_in(self.tenant_id, folded, key, limit=1, after=number - 1)
        part = next((part for part in found.data if part.number == number), None)
        if part is None:
            raise NotFound(f"step {key} of run {self.run_id} has no part {number}")
        if part.large is not None and (place := part.large.get(field)) is not None:
            event = await self._event(position_of(place))
            held = None if event is None else self.reads.held(event, field, key, number)
            assert held is not None, "the reference names the event that holds the value"
            return Positioned(held.value, at)
        value = getattr(part, field)
        if value is None and (field != "result" or part.status != "completed"):
            raise NotFound(f"part {number} of step {key} of run {self.run_id} has no {field}: it is {part.status}")
        return Positioned(value.model_dump(mode="json") if isinstance(value, Failure) else value, at)

    async def of_entry(self, position: int, as_of: str | None) -> Positioned[Json]:
        """The result of the journal's entry at a position."""
        event = await self._event(position)
        held = None if event is None else self.reads.held(event, "entry")
        if held is None or position > (until := await self._until(as_of, position)):
            raise NotFound(f"the journal of run {self.run_id} has no result at position {position}")
        return Positioned(held.value, until)

    async def of_message(self, sent: Sequence[RecordedEvent], as_of: str | None) -> Positioned[Json]:
        """The body of a message. `sent`: the events of its stream."""
        held = self.reads.held(sent[0], "body") if sent and sent[0].root_id == self.run_id else None
        if held is None or sent[0].position > (until := await self._until(as_of, sent[0].position)):
            raise NotFound(f"run {self.run_id} has, or had, no such message")
        return Positioned(held.value, until)

    async def follow(self, key: str | None, field: Field, position: int) -> Json:
        """The value that a reference names."""
        event = await self._event(position)
        if event is not None and (held := self.reads.held(event, field, key)) is not None:
            return held.value
        # A run that 0.1.0 stored as a document: the reference has the position of the document.
        return await self._in(await replayed(self.reads, self.feed, self.tenant_id, self.run_id, position), key, field)

    async def _value(self, key: str | None, field: Field, as_of: str | None) -> Positioned[Json]:
        position = None if as_of is None else parse_position(as_of)
        if (
            position
            and (event := await self._event(position)) is not None
            and (held := self.reads.held(event, field, key)) is not None
        ):
            return Positioned(held.value, position)
        found = await self._view(as_of)
        return Positioned(await self._in(found.value, key, field), found.position)

    async def _in(self, view: RunView, key: str | None, field: Field) -> Json:
        """The value in a document, or behind a reference of the document."""
        part = view if key is None else next((step for step in view.steps if step.key == key), None)
        if part is None:
            raise NotFound(f"run {self.run_id} has no step {key}")
        if (place := _large(part, field)) is not None:
            return await self.follow(key, field, position_of(place))
        if isinstance(part, StepView) and field == "input" and part.input is None:
            value = next(step.input for step in view.plan.steps if step.key == key)
        else:
            value = getattr(part, field)
        is_missing = part.status != "completed" if field == "result" else value is None and (field == "error" or key is not None)
        if is_missing:
            raise NotFound(f"{f'step {key} of ' if key else ''}run {self.run_id} has no {field}: it is {part.status}")
        return value.model_dump(mode="json") if isinstance(value, Failure) else value

    async def _view(self, as_of: str | None) -> Positioned[RunView]:
        if as_of is None:
            return await current_run(self.reads, self.tenant_id, self.run_id)
        position = await self._until(as_of, 0)
        found = await self.reads.get(self.tenant_id, self.run_id)
        if found.value is not None and found.value.position <= position <= found.position:
            return Positioned(found.value, position)  # nothing has happened to the run since
        return Positioned(await replayed(self.reads, self.feed, self.tenant_id, self.run_id, position), position)

    async def _until(self, as_of: str | None, otherwise: int) -> int:
        if as_of is None:
            return otherwise
        return await position_as_of(self.feed, self.histories, self.tenant_id, as_of, root_id=self.run_id)

    async def _event(self, position: int) -> RecordedEvent | None:
        """The run's event at a position. None: the run has none there."""
        found = await self.feed.read_tenant(
            self.tenant_id, after=position - 1, until=position, limit=1, root_id=self.run_id, rooted=True
        )
        return found[0] if found else None


def _large(part: RunView | StepView, field: str) -> LargeValue | None:
    return None if part.large is None else part.large.get(field)
