"""Replay of whole streams by the rules of a catalog: folded streams, foreign streams, and errors of streams that do not fold."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from application.catalog import CATALOG
from application.engine.commands.state_models import model_of
from application.engine.ports.log import NewEvent, StreamAppend, StreamRow, one_command
from application.engine.reading import replay
from application.engine.reading.replay import ForeignStream, NotFoldable, Replayed, StreamFailure, StreamFolder
from domain import context, projects
from domain.context import ContextValueSet
from domain.kernel import Event
from domain.projects import ProjectCreated
from domain.registry import REGISTRY
from tests.kit.memory import MemoryLog, MemoryStreamRanges
from tests.kit.waiting import TENANT, new_id

FOLDER = StreamFolder(CATALOG)


def value(n: int, version: int) -> ContextValueSet:
    return ContextValueSet(run_id=UUID(int=1), agent_run_id=UUID(int=1), name="n", value=n, value_version=version)


def row(stream: UUID, version: int, event: Event, **changed: Any) -> StreamRow:
    values = {"topic": event.TOPIC, "schema": event.VERSION, "state": REGISTRY.encode(event)} | changed
    return stream.bytes, version, values["topic"], values["schema"], values["state"]


def rows(stream: UUID, *events: Event) -> list[StreamRow]:
    return [row(stream, version, event) for version, event in enumerate(events, 1)]


PROJECT = ProjectCreated(name="p")


def test_a_stream_is_folded_by_the_rules_of_its_first_event() -> None:
    decider, version, state = FOLDER.fold_stream(rows(new_id(), value(1, 1), value(2, 2)))
    assert decider is context.DECIDER and version == 2
    assert state.entries["n"].value == 2


@pytest.mark.parametrize(
    ("broken", "version", "reason"),
    [
        ([(1, PROJECT, {}), (3, PROJECT, {})], 3, "comes after version 1"),
        ([(2, PROJECT, {})], 2, "comes after version 0"),
        ([(1, PROJECT, {}), (1, PROJECT, {})], 1, "comes after version 1"),
        ([(1, PROJECT, {}), (2, value(1, 1), {})], 2, "not an event of projects"),
        ([(1, PROJECT, {}), (2, PROJECT, {"topic": "project.renamed"})], 2, "not an event of projects"),
        ([(1, PROJECT, {"topic": "project.renamed"})], 1, "this release has no event of that name"),
        ([(1, PROJECT, {"schema": 2})], 1, "UnknownEvent"),
        ([(1, PROJECT, {"state": b"{}"})], 1, "ValueError"),
        ([(1, PROJECT, {"state": b"no json"})], 1, "ValueError"),
    ],
)
def test_an_event_that_the_rules_do_not_take_is_named(
    broken: Sequence[tuple[int, Event, dict[str, Any]]], version: int, reason: str
) -> None:
    stream = new_id()
    with pytest.raises(NotFoldable, match=reason) as caught:
        FOLDER.fold_stream([row(stream, number, event, **changed) for number, event, changed in broken])
    assert caught.value.version == version
    assert caught.value.topic == row(stream, *broken[-1][:2], **broken[-1][2])[2]


def test_an_event_that_breaks_a_rule_is_named() -> None:
    """`evolve` may raise any exception on a stream that did not come from decisions."""
    from domain.agent_runs import MailReceived

    with pytest.raises(NotFoldable, match="KeyError"):
        FOLDER.fold_stream(rows(new_id(), MailReceived(attempt=1, key="k", message_id=new_id())))


def test_a_stream_of_others_is_foreign() -> None:
    with pytest.raises(ForeignStream):
        FOLDER.fold_stream([row(new_id(), 1, PROJECT, topic="order.placed")])


def test_a_replay_counts_by_slice_and_goes_on_after_a_failure() -> None:
    good, other, foreign, bad = sorted(new_id() for _ in range(4))
    pages = [
        [*rows(good, value(1, 1), value(2, 2)), *rows(other, PROJECT)[:1]],
        [row(foreign, 1, PROJECT, topic="order.placed"), row(foreign, 2, PROJECT, topic="order.paid"), row(bad, 2, PROJECT)],
    ]
    done = FOLDER.fold(pages)
    assert done.streams == {"context": 1, "projects": 1}
    assert (done.events, done.foreign, done.failed) == (6, 1, 1)
    assert done.failures == [StreamFailure(bad, 2, "project.created", "comes after version 0")]


def test_a_stream_may_go_over_the_border_of_pages() -> None:
    stream = new_id()
    whole = rows(stream, *(value(n, n) for n in range(1, 6)))
    at_once, in_parts = FOLDER.fold([whole]), FOLDER.fold([whole[:2], whole[2:3], whole[3:]])
    assert at_once == in_parts and at_once.streams == {"context": 1}


def test_failures_that_are_told_are_bounded_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_FAILURES", 3)
    streams = sorted(new_id() for _ in range(5))
    done = FOLDER.fold([[row(stream, 7, PROJECT) for stream in streams]])
    assert (done.failed, [failure.stream_id for failure in done.failures]) == (5, streams[:3])


def test_a_long_error_is_cut() -> None:
    done = FOLDER.fold([[row(new_id(), 1, PROJECT, topic="agent_run.requested", state=b"{}")]])
    assert len(done.failures[0].error) == 500
    assert done.failures[0].error.startswith("ValueError: a stored agent_run.requested version 1 does not fit its class")


def test_the_digest_is_of_ids_versions_and_states() -> None:
    stream = new_id()
    done = FOLDER.fold([rows(stream, PROJECT)])
    state = model_of(REGISTRY, projects.DECIDER).encode(projects.Project(created=PROJECT))
    expected = hashlib.sha256(stream.bytes + (1).to_bytes(8, "big") + state).hexdigest()
    assert done.hex_digest == expected and len(done.hex_digest) == 64


def test_parts_add_up_whatever_the_cut() -> None:
    log = MemoryLog()
    for _ in range(20):
        stream = new_id()
        events = tuple(NewEvent(ContextValueSet.TOPIC, 1, REGISTRY.encode(value(n, n))) for n in (1, 2, 3))
        log.add(one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, events),), "{}"))
    log.add(one_command(TENANT, new_id(), (StreamAppend(new_id(), new_id(), 0, (NewEvent("order.placed", 1, b"{}"),)),), "{}"))
    ranges = MemoryStreamRanges(log, page=7)
    results = []
    for size in (1, 7, 30, 1_000):
        head, parts = ranges.cut(size=size)
        total = Replayed()
        for part in reversed(parts):
            total.add(FOLDER.fold_range(ranges, part, until=head))
        results.append(total)
    assert all(result == results[0] for result in results)
    assert (results[0].events, results[0].streams, results[0].foreign) == (61, {"context": 20}, 1)
    earlier = FOLDER.fold_range(ranges, ranges.cut(size=1_000)[1][0], until=59)
    assert earlier.events == 59 and earlier.digest != results[0].digest


def test_digests_stay_of_one_length() -> None:
    total, one = Replayed(), Replayed(digest=2**256 - 1)
    total.add(one)
    total.add(Replayed(digest=5))
    assert total.digest == 4 and total.hex_digest == f"{4:064x}"


def test_what_parts_say_is_added_up() -> None:
    first, second = (StreamFailure(new_id(), n, "a.b", "broken") for n in (1, 2))
    total = Replayed(1, Counter(runs=2), 3, 4, [first], 5)
    total.add(Replayed(10, Counter(runs=20, tools=1), 30, 40, [second], 50))
    assert total == Replayed(11, Counter(runs=22, tools=1), 33, 44, [first, second], 55)


def test_each_stream_of_others_is_counted_and_named() -> None:
    done = FOLDER.fold([[row(stream, 1, PROJECT, topic="order.x.placed") for stream in sorted(new_id() for _ in range(3))]])
    assert (done.events, done.foreign, done.streams) == (3, 3, {})
    with pytest.raises(ForeignStream, match=r"order\.x\.placed"):
        FOLDER.fold_stream([row(new_id(), 1, PROJECT, topic="order.x.placed")])
    with pytest.raises(NotFoldable, match=r"^this release has no event of that name$"):
        FOLDER.fold_stream([row(new_id(), 1, PROJECT, topic="project.x.renamed")])


def test_a_part_may_be_of_one_tenant() -> None:
    log = MemoryLog()
    for tenant in (TENANT, UUID(int=5), TENANT):
        stream = new_id()
        events = (NewEvent(ContextValueSet.TOPIC, 1, REGISTRY.encode(value(1, 1))),)
        log.add(one_command(tenant, new_id(), (StreamAppend(stream, stream, 0, events),), "{}"))
    ranges = MemoryStreamRanges(log)
    head, [part] = ranges.cut(size=1_000)
    assert FOLDER.fold_range(ranges, part, until=head, tenant_id=TENANT).events == 2
    assert FOLDER.fold_range(ranges, part, until=head).events == 3
