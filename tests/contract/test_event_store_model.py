"""The event store and a plain list get the same random calls and must give the same answers.

The calls come one after the other; concurrent calls are in test_event_store.py. Hypothesis shrinks a failure to the shortest
history that shows the failure.
"""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from application.engine.ports.log import AppendRequest, AppendResult, CommandRecord, NewEvent, StreamAppend, one_command
from domain.errors import AlreadyExists, VersionConflict
from tests.contract.conftest import LogSide

T = TypeVar("T")
Event = tuple[UUID, UUID, UUID, int, str, bytes]
"""tenant, stream, root, version, topic, state"""

LONG = bool(os.environ.get("TIDELOG_CHAOS_KILLS"))
TENANTS = [uuid4(), uuid4()]
STREAMS = [uuid4() for _ in range(4)]
ROOT = uuid4()
TOPICS = ["thing.happened", "thing.ended"]
tenants, streams, topics = st.sampled_from(TENANTS), st.sampled_from(STREAMS), st.sampled_from(TOPICS)


class Machine(RuleBasedStateMachine):
    loop: asyncio.AbstractEventLoop  # the test sets these two
    sides: LogSide

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.recorded_at: list[datetime] = []
        self.commands: dict[tuple[UUID, UUID], tuple[Sequence[StreamAppend], AppendResult]] = {}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    @initialize()
    def empty(self) -> None:
        self.wait(self.sides.empty())

    def version(self, stream: UUID) -> int:
        return sum(event[1] == stream for event in self.events)

    def owner(self, stream: UUID) -> UUID | None:
        return next((event[0] for event in self.events if event[1] == stream), None)

    def send(self, request: AppendRequest) -> AppendResult | VersionConflict | AlreadyExists:
        try:
            return self.wait(self.sides.store.append(request))
        except (VersionConflict, AlreadyExists) as refusal:
            return refusal

    @rule(
        tenant=tenants,
        chosen=st.lists(
            st.tuples(streams, st.lists(topics, min_size=1, max_size=3)), min_size=1, max_size=3, unique_by=lambda c: c[0]
        ),
        off_by=st.sampled_from([0, 0, 0, 0, 1, -1, 5]),
        rooted=st.booleans(),
    )
    def append(self, tenant: UUID, chosen: list[tuple[UUID, list[str]]], off_by: int, rooted: bool) -> None:
        """Appends to one or several streams. The expected version of the first stream may be wrong. Any stream may belong to
        another
        tenant."""
        appends = []
        for number, (stream, its_topics) in enumerate(chosen):
            expected = max(0, self.version(stream) + (off_by if number == 0 else 0))
            events = tuple(NewEvent(topic, 1, f'{{"n":{len(self.events)}}}'.encode()) for topic in its_topics)
            appends.append(StreamAppend(stream, ROOT if rooted else stream, expected, events))
        command_id = uuid4()
        foreign = [a for a in appends if self.owner(a.stream_id) not in (None, tenant)]
        behind = [a for a in appends if a.expected_version != self.version(a.stream_id)]
        answer = self.send(one_command(tenant, command_id, appends, "{}"))
        if not foreign and not behind:
            self.take(tenant, command_id, appends, answer)
        else:
            assert isinstance(
                answer,
                AlreadyExists if foreign and not behind else (VersionConflict, AlreadyExists) if foreign else VersionConflict,
            )
            if isinstance(answer, VersionConflict):
                [refused] = [a for a in appends if a.stream_id == answer.stream_id]
                assert (answer.expected, answer.current) == (refused.expected_version, self.version(refused.stream_id))
                assert answer.expected != answer.current

    def take(self, tenant: UUID, command_id: UUID, appends: Sequence[StreamAppend], answer: object) -> None:
        assert isinstance(answer, AppendResult) and not answer.duplicate
        for append in appends:
            for version, event in enumerate(append.events, append.expected_version + 1):
                self.events.append((tenant, append.stream_id, append.root_id, version, event.topic, event.state))
                self.recorded_at.append(answer.recorded_at)
        count = sum(len(append.events) for append in appends)
        assert (answer.last_position, answer.event_count) == (len(self.events), count)
        self.commands[tenant, command_id] = (appends, answer)

    @rule(data=st.data(), tenant=tenants, other_content=st.booleans())
    def same_command_again(self, data: st.DataObject, tenant: UUID, other_content: bool) -> None:
        """A command id repeated by its own tenant is a repetition, whatever its content.

        From another tenant it is another command.
        """
        if not self.commands:
            return
        (owner, command_id), (appends, first) = data.draw(
            st.sampled_from(sorted(self.commands.items(), key=lambda item: item[1][1].last_position))
        )
        now = appends
        if other_content or tenant != owner:
            fresh = uuid4()
            now = (StreamAppend(fresh, fresh, 0, (NewEvent(TOPICS[0], 1, b"{}"),)),)
        answer = self.send(one_command(tenant, command_id, now, "{}"))
        if (tenant, command_id) not in self.commands:
            self.take(tenant, command_id, now, answer)
        else:
            known = CommandRecord(*self.commands[tenant, command_id][1][:3])
            assert answer == AppendResult(*known[:3], {command_id: known})
        assert first.last_position <= len(self.events)

    @rule(tenant=tenants, stream=streams, after=st.integers(0, 4), until=st.none() | st.integers(0, 12))
    def read_stream(self, tenant: UUID, stream: UUID, after: int, until: int | None) -> None:
        found = self.wait(self.sides.store.read_stream(tenant, stream, after_version=after, until_position=until))
        expected = [
            (position, event)
            for position, event in enumerate(self.events, 1)
            if event[:2] == (tenant, stream) and event[3] > after and (until is None or position <= until)
        ]
        assert [(e.position, shape(e)) for e in found] == expected

    @rule(after=st.integers(0, 12), limit=st.integers(1, 6))
    def read_feed(self, after: int, limit: int) -> None:
        found = self.wait(self.sides.feed.read(after=after, limit=limit))
        assert [(e.position, shape(e)) for e in found] == list(enumerate(self.events, 1))[after : after + limit]

    @rule(
        tenant=tenants, after=st.integers(0, 12), limit=st.integers(1, 6), until=st.none() | st.integers(0, 14),
        root=st.none() | st.sampled_from([ROOT, *STREAMS]), wanted=st.none() | st.lists(topics, unique=True),
        newest_first=st.booleans(),
    )  # fmt: skip
    def read_tenant(
        self,
        tenant: UUID,
        after: int,
        limit: int,
        until: int | None,
        root: UUID | None,
        wanted: list[str] | None,
        newest_first: bool,
    ) -> None:
        reading = self.sides.feed.read_tenant(
            tenant, after=after, limit=limit, until=until, root_id=root, topics=wanted, newest_first=newest_first
        )
        expected = [
            position
            for position, (owner, _, its_root, _, topic, _) in enumerate(self.events, 1)
            if owner == tenant and position > after and (until is None or position <= until)
            and (root is None or its_root == root) and (wanted is None or topic in wanted)
        ]  # fmt: skip
        assert [event.position for event in self.wait(reading)] == (expected[::-1] if newest_first else expected)[:limit]

    @rule(tenant=tenants, command_id=st.uuids(version=4))
    def find_unknown_command(self, tenant: UUID, command_id: UUID) -> None:
        assert self.wait(self.sides.store.find_command(tenant, command_id)) is None

    @rule(data=st.data(), tenant=tenants)
    def find_command(self, data: st.DataObject, tenant: UUID) -> None:
        if self.commands:
            _, command_id = data.draw(st.sampled_from(sorted(self.commands, key=lambda key: self.commands[key][1].last_position)))
            found = self.wait(self.sides.store.find_command(tenant, command_id))
            known = self.commands.get((tenant, command_id))
            assert found == (None if known is None else CommandRecord(*known[1][:3]))

    @rule(tenant=tenants, data=st.data(), aside=st.sampled_from([-1, 0, 1]), root=st.none() | st.sampled_from([ROOT, *STREAMS]))
    def position_at(self, tenant: UUID, data: st.DataObject, aside: int, root: UUID | None) -> None:
        """Asks at the moment of an event, just before and just after that moment."""
        moment = data.draw(st.sampled_from(self.recorded_at)) if self.recorded_at else datetime.now(UTC)
        moment += timedelta(microseconds=aside)
        expected = [
            position
            for position, (event, at) in enumerate(zip(self.events, self.recorded_at, strict=True), 1)
            if event[0] == tenant and at <= moment and (root is None or event[2] == root)
        ]
        assert self.wait(self.sides.feed.position_at(tenant, moment, root_id=root)) == max(expected, default=0)

    @invariant()
    def the_log_is_the_list(self) -> None:
        async def everything() -> tuple[int, list[Any]]:
            return await self.sides.feed.head(), await self.sides.feed.read(after=0, limit=1_000)

        head, events = self.wait(everything())
        assert head == len(self.events)
        assert [event.position for event in events] == list(range(1, head + 1))
        assert [shape(event) for event in events] == self.events
        assert [event.recorded_at for event in events] == self.recorded_at == sorted(self.recorded_at)


def shape(event: Any) -> Event:
    return (event.tenant_id, event.stream_id, event.root_id, event.version, event.topic, event.state)


async def test_the_event_store_is_a_list(log: LogSide) -> None:
    """Runs in a thread beside the event loop, because a state machine of hypothesis is not asynchronous."""
    machine = type("MachineOfThisLog", (Machine,), {"sides": log, "loop": asyncio.get_running_loop()})
    await asyncio.to_thread(
        run_state_machine_as_test,
        machine,
        settings=settings(
            max_examples=1_000 if LONG else 15,
            stateful_step_count=60 if LONG else 25,
            suppress_health_check=list(HealthCheck),
        ),
    )
