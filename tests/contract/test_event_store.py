"""The contract of the port `EventStore`, compared with a plain model of the log, in memory and on PostgreSQL."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from adapters.postgres.log.append_batch import MAX_APPEND_BYTES
from application.engine.ports.log import (
    AppendCommand,
    AppendRequest,
    AppendResult,
    CommandRecord,
    EventFeed,
    EventStore,
    NewEvent,
    Placed,
    StreamAppend,
    StreamHead,
    StreamPlace,
    one_command,
)
from domain.errors import AlreadyExists, InvalidCommand, PayloadTooLarge, VersionConflict
from domain.kernel import MAX_EVENT_BYTES
from tests.contract.conftest import LogSide

TENANT, OTHER_TENANT = uuid7(), uuid7()


def new_id() -> UUID:
    return uuid7()


def stream_append(stream_id: UUID, expected: int, *states: bytes) -> StreamAppend:
    return StreamAppend(stream_id, stream_id, expected, tuple(NewEvent("thing.happened", 1, state) for state in states or (b"{}",)))


def request(*streams: StreamAppend, tenant: UUID = TENANT, command: UUID | None = None, metadata: str = "{}") -> AppendRequest:
    return one_command(tenant, command or new_id(), streams, metadata)


def again_of(first: AppendResult, one: AppendRequest) -> AppendResult:
    """The answer to a repeat of an append of one command."""
    [command] = one.commands
    known = CommandRecord(first.last_position, first.event_count, first.recorded_at, command.content)
    return AppendResult(first.last_position, first.event_count, first.recorded_at, {command.command_id: known})


async def outcome(store: EventStore, *requests: AppendRequest) -> list[AppendResult | BaseException]:
    """Sends requests at the same time, so that they share a batch."""
    return await asyncio.gather(*(store.append(one) for one in requests), return_exceptions=True)


async def test_what_was_appended_is_read_back(log: LogSide, store: EventStore, feed: EventFeed) -> None:
    stream, root = new_id(), new_id()
    state, metadata = '{"text":"Grüße, 世界 \\\\u0000"}'.encode(), '{"actor":"key:é"}'
    before = await log.now()
    events = (NewEvent("run.started", 1, state), NewEvent("run.paused", 3, b"{}"))
    result = await store.append(request(StreamAppend(stream, root, 0, events), metadata=metadata))
    assert (result.last_position, result.event_count, result.duplicate) == (2, 2, False)
    first, second = await store.read_stream(TENANT, stream)
    assert (first.position, first.version, first.topic, first.schema_version) == (1, 1, "run.started", 1)
    assert (second.position, second.version, second.topic, second.schema_version) == (2, 2, "run.paused", 3)
    assert (first.state, first.metadata, first.tenant_id, first.stream_id, first.root_id) == (state, metadata, TENANT, stream, root)
    assert before <= first.recorded_at == second.recorded_at == result.recorded_at <= await log.now()
    assert await feed.read(after=0, limit=10) == [first, second]
    assert await store.read_stream(TENANT, stream, after_version=1) == [second]
    assert await store.read_stream(TENANT, stream, until_position=1) == [first]
    assert await store.read_stream(TENANT, stream, limit=1) == [first]
    assert await store.read_stream(TENANT, stream, after_version=1, limit=2) == [second]
    assert await store.read_stream(OTHER_TENANT, stream) == []


async def test_a_command_is_recorded_once_and_gets_its_first_answer(store: EventStore, feed: EventFeed) -> None:
    once = request(stream_append(new_id(), 0))
    first = await store.append(once)
    await store.append(request(stream_append(new_id(), 0)))
    again = await store.append(once)
    assert again == again_of(first, once)
    # The same key is the same command, also with other streams and in the batch of its first use.
    other = request(stream_append(new_id(), 5), command=once.commands[0].command_id)
    fresh = request(stream_append(new_id(), 0))
    results = await outcome(store, other, fresh, fresh, fresh)
    assert results[0] == again
    assert sorted(result.duplicate for result in results[1:] if isinstance(result, AppendResult)) == [False, True, True]
    command_id = once.commands[0].command_id
    assert await store.find_command(TENANT, command_id) == again.known[command_id]
    assert await store.find_command(OTHER_TENANT, command_id) is None
    assert await feed.head() == 3


async def test_the_events_of_an_append_are_read_back(store: EventStore, feed: EventFeed) -> None:
    """The events of the command come in the order of the append, over several streams. Events of other appends are left out."""
    await store.append(request(stream_append(new_id(), 0)))
    first, second = new_id(), new_id()
    both = request(stream_append(first, 0, b"1", b"2"), stream_append(second, 0, b"3"))
    beside = request(stream_append(new_id(), 0))
    result = (await outcome(store, beside, both, request(stream_append(first, 2))))[1]
    assert isinstance(result, AppendResult)
    read = await store.read_append(TENANT, result)
    assert [(event.stream_id, event.version, event.state) for event in read] == [
        (first, 1, b"1"),
        (first, 2, b"2"),
        (second, 1, b"3"),
    ]
    assert read == [event for event in await feed.read(after=0, limit=100) if event in read]
    assert await store.read_append(OTHER_TENANT, result) == []


async def test_the_same_command_id_of_another_tenant_is_another_command(store: EventStore) -> None:
    command = new_id()
    ours = await store.append(request(stream_append(new_id(), 0), command=command))
    theirs = await store.append(request(stream_append(new_id(), 0), command=command, tenant=OTHER_TENANT))
    assert (ours.last_position, theirs.last_position, theirs.duplicate) == (1, 2, False)


@pytest.mark.parametrize("expected", [0, 1, 3, 2**40])
async def test_a_stream_that_is_not_at_the_expected_version_is_a_conflict(store: EventStore, expected: int) -> None:
    stream = new_id()
    await store.append(request(stream_append(stream, 0, b"1", b"2")))
    with pytest.raises(VersionConflict) as caught:
        await store.append(request(stream_append(stream, expected)))
    assert (caught.value.stream_id, caught.value.expected, caught.value.current) == (stream, expected, 2)
    assert [event.state for event in await store.read_stream(TENANT, stream)] == [b"1", b"2"]


async def test_a_stream_that_does_not_exist_has_version_zero(store: EventStore) -> None:
    with pytest.raises(VersionConflict) as caught:
        await store.append(request(stream_append(new_id(), 4)))
    assert caught.value.current == 0


@pytest.mark.parametrize("expected", [0, 1, 2])
async def test_a_stream_of_another_tenant_cannot_be_appended_to(store: EventStore, expected: int) -> None:
    stream = new_id()
    await store.append(request(stream_append(stream, 0)))
    with pytest.raises(AlreadyExists):
        await store.append(request(stream_append(stream, expected), tenant=OTHER_TENANT))
    assert len(await store.read_stream(TENANT, stream)) == 1


async def test_an_append_over_several_streams_is_all_or_nothing(store: EventStore, feed: EventFeed) -> None:
    a, b = new_id(), new_id()
    result = await store.append(request(stream_append(a, 0, b"1", b"2"), stream_append(b, 0, b"3")))
    assert (result.last_position, result.event_count) == (3, 3)
    with pytest.raises(VersionConflict) as caught:
        await store.append(request(stream_append(a, 2), stream_append(b, 0), stream_append(new_id(), 0)))
    assert caught.value.stream_id == b
    assert [(event.stream_id, event.version) for event in await feed.read(after=0, limit=9)] == [(a, 1), (a, 2), (b, 1)]


async def test_one_bad_append_leaves_its_neighbours_alone(store: EventStore, feed: EventFeed) -> None:
    taken, behind = new_id(), new_id()
    await store.append(request(stream_append(taken, 0)))
    await store.append(request(stream_append(behind, 0)))
    good = [request(stream_append(new_id(), 0, b"1", b"2")) for _ in range(20)]
    foreign = request(stream_append(taken, 1), tenant=OTHER_TENANT)
    bad = [request(stream_append(taken, 0)), request(stream_append(behind, 7)), foreign]
    results = await outcome(store, *good[:10], *bad, *good[10:])
    assert [type(result) for result in results[10:13]] == [VersionConflict, VersionConflict, AlreadyExists]
    accepted = [result for result in results if isinstance(result, AppendResult)]
    assert sorted(result.last_position for result in accepted) == list(range(4, 44, 2))
    events = await feed.read(after=0, limit=100)
    assert [event.position for event in events] == list(range(1, 43)) and await feed.head() == 42
    for one, result in zip(good, results[:10] + results[13:], strict=True):
        assert isinstance(result, AppendResult)
        assert [e.position for e in await store.read_stream(TENANT, one.streams[0].stream_id)] == [
            result.last_position - 1,
            result.last_position,
        ]


async def test_of_appends_to_one_stream_in_one_batch_one_wins(store: EventStore) -> None:
    stream = new_id()
    results = await outcome(store, *(request(stream_append(stream, 0, str(n).encode())) for n in range(30)))
    assert sum(isinstance(result, AppendResult) for result in results) == 1
    assert all(result.current == 1 for result in results if isinstance(result, VersionConflict))
    assert len(await store.read_stream(TENANT, stream)) == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (request(stream_append(new_id(), 0, b"x" * (MAX_EVENT_BYTES + 1))), PayloadTooLarge),
        (request(stream_append(new_id(), 0, *[b"x" * 2**18] * (MAX_APPEND_BYTES // 2**18 + 1))), PayloadTooLarge),
        (request(stream_append(new_id(), 0), metadata="x" * (MAX_EVENT_BYTES + 1)), PayloadTooLarge),
        (request(stream_append(new_id(), 0, b'{"text":"a\\u0000b"}')), InvalidCommand),
        (request(stream_append(new_id(), 0, b'{"text":"a\\\\\\u0000b"}')), InvalidCommand),
        (request(stream_append(new_id(), 0), metadata='{"actor":"\x00"}'), InvalidCommand),
        (request(stream_append(new_id(), 0), metadata='{"actor":"\ud800"}'), InvalidCommand),
        (request(StreamAppend(new_id(), new_id(), 0, (NewEvent("a\x00b", 1, b"{}"),))), InvalidCommand),
        (request(stream_append(new_id(), 2**70)), InvalidCommand),
        (request(), ValueError),
        (request(*[stream_append(UUID(int=1), 0)] * 2), ValueError),
    ],
    ids=range(11),
)
async def test_what_the_log_cannot_hold_is_refused_before_it_is_written(
    store: EventStore, feed: EventFeed, bad: AppendRequest, error: type[Exception]
) -> None:
    good = request(stream_append(new_id(), 0, b"x" * MAX_EVENT_BYTES))
    refused, accepted = await outcome(store, bad, good)
    assert isinstance(refused, error) and isinstance(accepted, AppendResult)
    assert await feed.head() == 1


async def test_a_cancelled_caller_does_not_break_the_batch(store: EventStore) -> None:
    tasks = [asyncio.create_task(store.append(request(stream_append(new_id(), 0)))) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert all(isinstance(result, AppendResult) for result in results[1::2])


async def test_a_stream_is_read_from_any_version_and_up_to_any_position(store: EventStore) -> None:
    stream = new_id()
    await store.append(request(stream_append(stream, 0, b"1", b"2")))
    await store.append(request(stream_append(new_id(), 0)))
    await store.append(request(stream_append(stream, 2, b"3")))

    async def read(after: int, until: int | None) -> list[bytes]:
        return [event.state for event in await store.read_stream(TENANT, stream, after_version=after, until_position=until)]

    assert await read(0, None) == [b"1", b"2", b"3"]
    assert [await read(after, None) for after in (1, 2, 3, 9)] == [[b"2", b"3"], [b"3"], [], []]
    found = [await read(0, until) for until in (0, 1, 2, 3, 4, 99)]
    assert found == [[], [b"1"], [b"1", b"2"], [b"1", b"2"], [b"1", b"2", b"3"], [b"1", b"2", b"3"]]
    assert await read(1, 3) == [b"2"]
    assert await store.read_stream(TENANT, new_id()) == []


async def test_a_refused_command_can_be_sent_again(store: EventStore) -> None:
    """A refusal is not kept as an answer: another try with the same id may be recorded."""
    stream, command = new_id(), new_id()
    with pytest.raises(VersionConflict):
        await store.append(request(stream_append(stream, 1), command=command))
    assert await store.find_command(TENANT, command) is None
    assert (await store.append(request(stream_append(stream, 0), command=command))).duplicate is False


async def test_an_event_of_exactly_the_limit_is_taken(store: EventStore) -> None:
    stream = new_id()
    await store.append(request(stream_append(stream, 0, b"x" * MAX_EVENT_BYTES)))
    with pytest.raises(PayloadTooLarge):
        await store.append(request(stream_append(stream, 1, b"x" * (MAX_EVENT_BYTES + 1))))
    assert [len(event.state) for event in await store.read_stream(TENANT, stream)] == [MAX_EVENT_BYTES]


async def test_recorded_at_is_one_for_an_append_and_does_not_decrease(log: LogSide, store: EventStore, feed: EventFeed) -> None:
    first = await store.append(request(stream_append(new_id(), 0, b"1", b"2"), stream_append(new_id(), 0)))
    await log.time_passes()
    second = await store.append(request(stream_append(new_id(), 0)))
    assert first.recorded_at < second.recorded_at
    times = [event.recorded_at for event in await feed.read(after=0, limit=10)]
    assert times == [*[first.recorded_at] * 3, second.recorded_at]


async def test_recorded_at_never_goes_back(log: LogSide, store: EventStore) -> None:
    """When the server's clock is set back, the log's time stands still."""
    await log.set_clock_back()
    first, second = [await store.append(request(stream_append(new_id(), 0))) for _ in range(2)]
    assert first.recorded_at == second.recorded_at > await log.now() + timedelta(minutes=59)


# ---- several commands in one append ----------------------------------------------------------------------------------------


def command(
    event_count: int = 1, *, command_id: UUID | None = None, metadata: str = "{}", content: UUID | None = None
) -> AppendCommand:
    return AppendCommand(command_id or new_id(), metadata, event_count, content)


def head(stream_id: UUID, expected: int = 0, root: UUID | None = None) -> StreamHead:
    return StreamHead(stream_id, root or stream_id, expected)


def placed(*streams: int, settled: int = 0) -> tuple[Placed, ...]:
    return tuple(Placed(stream, NewEvent("thing.happened", 1, b"%d" % place), settled) for place, stream in enumerate(streams))


async def test_commands_of_one_append_are_recorded_each_for_itself(store: EventStore, feed: EventFeed) -> None:
    """Events of a stream need not be neighbours, and a command without events is recorded all the same."""
    await store.append(request(stream_append(new_id(), 0)))
    a, b = new_id(), new_id()
    first, second = command(2, metadata='{"n":1}', content=new_id()), command(1, metadata='{"n":2}')
    silent, last = command(0), command(2, metadata='{"n":4}')
    events = (*placed(0, 1, 0, settled=5), *placed(1, 0, settled=2**62))
    several = AppendRequest(TENANT, (first, second, silent, last), (head(a), head(b, root=a)), events)
    result = await store.append(several)
    assert (result.last_position, result.event_count, result.duplicate) == (6, 5, False)
    found = await feed.read(after=1, limit=10)
    assert [(e.position, e.stream_id, e.version, e.metadata, e.settled) for e in found] == [
        (2, a, 1, '{"n":1}', 5),
        (3, b, 1, '{"n":1}', 5),
        (4, a, 2, '{"n":2}', 5),
        (5, b, 2, '{"n":4}', 2**62),
        (6, a, 3, '{"n":4}', 2**62),
    ]
    assert {event.root_id for event in found} == {a} and await store.read_stream(TENANT, b) == [found[1], found[3]]
    known = {each.command_id: await store.find_command(TENANT, each.command_id) for each in several.commands}
    at = result.recorded_at
    assert list(known.values()) == [
        CommandRecord(3, 2, at, first.content), CommandRecord(4, 1, at), CommandRecord(4, 0, at), CommandRecord(6, 2, at),
    ]  # fmt: skip
    assert [await store.read_append(TENANT, each) for each in known.values() if each] == [found[:2], found[2:3], [], found[3:]]
    again = await store.append(several)
    assert (again.known, again.last_position, again.event_count) == (known, 3, 2)


async def test_a_known_command_keeps_back_its_whole_append(store: EventStore, feed: EventFeed) -> None:
    """All known commands are named, and neighbours in the batch are not touched."""
    old, older = (command(content=new_id()) for _ in range(2))
    for each in (older, old):
        await store.append(AppendRequest(TENANT, (each,), (head(new_id()),), placed(0)))
    fresh, stream = command(), new_id()
    mixed = AppendRequest(TENANT, (fresh, old, older), (head(stream),), placed(0, 0, 0))
    kept, written = await outcome(store, mixed, request(stream_append(new_id(), 0)))
    assert isinstance(kept, AppendResult) and isinstance(written, AppendResult)
    assert {i: known.last_position for i, known in kept.known.items()} == {old.command_id: 2, older.command_id: 1}
    assert kept.known[old.command_id].content == old.content
    assert (kept.last_position, written.last_position, written.duplicate) == (2, 3, False)
    assert await store.find_command(TENANT, fresh.command_id) is None and await store.read_stream(TENANT, stream) == []
    assert (await store.append(AppendRequest(TENANT, (fresh,), (head(stream),), placed(0)))).last_position == 4
    assert await feed.head() == 4


@pytest.mark.parametrize("expected", [0, 1, 2])
async def test_a_stream_without_new_events_is_a_condition(store: EventStore, expected: int) -> None:
    watched, written = new_id(), new_id()
    if expected:
        await store.append(request(stream_append(watched, 0, *[b"1"] * expected)))
    deciding = AppendRequest(TENANT, (command(), command(0)), (head(written), head(watched, expected)), placed(0))
    moving = request(stream_append(watched, expected))
    moved, refused = await outcome(store, moving, deciding)
    assert isinstance(moved, AppendResult) and isinstance(refused, VersionConflict)
    assert (refused.stream_id, refused.expected, refused.current) == (watched, expected, expected + 1)
    again = deciding._replace(streams=(head(written), head(watched, expected + 1)))
    assert (await store.append(again)).event_count == 1
    assert len(await store.read_stream(TENANT, watched)) == expected + 1


async def test_a_condition_on_a_stream_of_another_tenant_is_forbidden(store: EventStore) -> None:
    theirs = new_id()
    await store.append(request(stream_append(theirs, 0), tenant=OTHER_TENANT))
    for expected in (0, 1):
        with pytest.raises(AlreadyExists):
            await store.append(AppendRequest(TENANT, (command(),), (head(new_id()), head(theirs, expected)), placed(0)))


@pytest.mark.parametrize(
    ("commands", "streams", "events"),
    [
        ((command(2),), (head(new_id()),), placed(0)),
        ((command(0),), (head(new_id()),), ()),
        ((command(command_id=UUID(int=1)),) * 2, (head(new_id()),), placed(0, 0)),
        ((command(2),), (head(UUID(int=2)),) * 2, placed(0, 1)),
    ],
)
async def test_an_append_that_makes_no_sense_is_a_defect_of_its_caller(
    store: EventStore, commands: tuple[AppendCommand, ...], streams: tuple[StreamHead, ...], events: tuple[Placed, ...]
) -> None:
    with pytest.raises(ValueError, match="an append with"):
        await store.append(AppendRequest(TENANT, commands, streams, events))


# ---- against a model ------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The log as a list."""

    events: list[tuple[UUID, UUID, int, bytes, int]] = field(default_factory=list)  # tenant, stream, version, state, mask
    known: dict[tuple[UUID, UUID], CommandRecord] = field(default_factory=dict)

    def refuses(self, wanted: AppendRequest) -> bool:
        if any((wanted.tenant_id, each.command_id) in self.known for each in wanted.commands):
            return False
        newest = {stream: (tenant, version) for tenant, stream, version, _, _ in self.events}
        here = [(newest.get(stream.stream_id, (wanted.tenant_id, 0)), stream.expected_version) for stream in wanted.streams]
        return any((tenant, version) != (wanted.tenant_id, expected) for (tenant, version), expected in here)

    def repeated(self, wanted: AppendRequest) -> AppendResult | None:
        """The answer to a request with a known command. None: the model knows none of its commands."""
        keys = ((wanted.tenant_id, each.command_id) for each in wanted.commands)
        known = {key[1]: self.known[key] for key in keys if key in self.known}
        first = next(iter(known.values()), None)
        return first and AppendResult(first.last_position, first.event_count, EPOCH, known)

    def append(self, wanted: AppendRequest) -> AppendResult:
        """For a request that the model does not refuse, of commands that the model does not know."""
        tenant = wanted.tenant_id
        assert self.repeated(wanted) is None
        versions, events = [stream.expected_version for stream in wanted.streams], iter(wanted.events)
        for each in wanted.commands:
            for place, event, mask in islice(events, each.event_count):
                versions[place] += 1
                self.events.append((tenant, wanted.streams[place].stream_id, versions[place], event.state, mask))
            self.known[tenant, each.command_id] = CommandRecord(len(self.events), each.event_count, EPOCH, each.content)
        return AppendResult(len(self.events), len(wanted.events), EPOCH)


def timeless(result: AppendResult) -> AppendResult:
    known = {command_id: known._replace(recorded_at=EPOCH) for command_id, known in result.known.items()}
    return result._replace(recorded_at=EPOCH, known=known)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STREAMS = [UUID(int=0x018F0000000070008000000000000000 + n) for n in range(4)]
COMMANDS = [UUID(int=0x018F0000000070008000000000001000 + n) for n in range(8)]


@st.composite
def requests(draw: st.DrawFn) -> AppendRequest:
    """One to three commands over up to three streams, some of which are only conditions."""
    chosen = draw(
        st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 4)), min_size=1, max_size=3, unique_by=lambda s: s[0])
    )
    counts = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3).filter(any))
    ids = draw(st.lists(st.sampled_from(COMMANDS), min_size=len(counts), max_size=len(counts), unique=True))
    content = st.sampled_from([None, UUID(int=7)])
    event = st.builds(
        Placed,
        st.integers(0, len(chosen) - 1),
        st.builds(NewEvent, st.just("thing.happened"), st.just(1), st.sampled_from([b"1", b"22"])),
        st.sampled_from([0, 1, 2**62]),
    )
    return AppendRequest(
        draw(st.sampled_from([TENANT, TENANT, TENANT, OTHER_TENANT])),
        tuple(command(n, command_id=one, content=draw(content)) for n, one in zip(counts, ids, strict=True)),
        tuple(head(stream, expected) for stream, expected in chosen),
        tuple(draw(event) for _ in range(sum(counts))),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.lists(requests(), min_size=1, max_size=6), min_size=1, max_size=8))
async def test_any_history_of_batches_is_what_the_model_says(
    log: LogSide, store: EventStore, feed: EventFeed, steps: list[list[AppendRequest]]
) -> None:
    """Requests of one batch are concurrent: their answers must equal the model's answers in some order of the requests."""
    await log.empty()
    model = Model()
    for batch in steps:
        answered = list(zip(batch, await outcome(store, *batch), strict=True))
        refused = [one for one, result in answered if isinstance(result, VersionConflict | AlreadyExists)]
        done = [(one, result) for one, result in answered if isinstance(result, AppendResult)]
        assert len(refused) + len(done) == len(batch), answered
        # A refusal changes nothing, so a refusal is right if the model refuses at any moment of the batch.
        refused = [one for one in refused if not model.refuses(one)]
        written = sorted((pair for pair in done if not pair[1].duplicate), key=lambda pair: pair[1].last_position)
        repeats = [pair for pair in done if pair[1].duplicate]
        for place in range(len(written) + 1):
            # A repeat changes nothing, either, and names the commands that are known at its moment.
            repeats = [(one, result) for one, result in repeats if timeless(result) != model.repeated(one)]
            if place < len(written):
                one, result = written[place]
                assert not model.refuses(one)
                assert timeless(result) == model.append(one)
                refused = [one for one in refused if not model.refuses(one)]
        assert not repeats
        assert not refused
    events = await feed.read(after=0, limit=1_000)
    assert [(event.tenant_id, event.stream_id, event.version, event.state, event.settled) for event in events] == model.events
    assert [event.position for event in events] == list(range(1, len(model.events) + 1))
    assert await feed.head() == len(model.events)
    assert [event.recorded_at for event in events] == sorted(event.recorded_at for event in events)


async def test_several_streams_are_read_at_once_each_after_its_version(store: EventStore) -> None:
    a, b, empty = new_id(), new_id(), new_id()
    for version in range(3):
        await store.append(request(stream_append(a, version, b"%d" % version), stream_append(b, version)))
    whole, foreign = await store.read_stream(TENANT, a), new_id()
    await store.append(request(stream_append(foreign, 0), tenant=OTHER_TENANT))
    places = [
        StreamPlace(TENANT, b, 2), StreamPlace(TENANT, empty), StreamPlace(TENANT, a), StreamPlace(TENANT, a, 1),
        StreamPlace(TENANT, a, 3), StreamPlace(OTHER_TENANT, a), StreamPlace(OTHER_TENANT, foreign),
    ]  # fmt: skip
    found = await store.read_streams(places)
    assert found[0] == (await store.read_stream(TENANT, b))[2:]
    assert found[1:6] == [[], whole, whole[1:], [], []]
    assert [event.stream_id for event in found[6]] == [foreign]
