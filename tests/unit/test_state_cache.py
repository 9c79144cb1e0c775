"""The cache of states: its bound in bytes, the newest state of a stream, and eviction of the least recently used state."""

import random
from uuid import UUID

import pytest

from application.engine.commands.cache import ENTRY_BYTES, LARGE_UNUSED_S, Loaded, StateCache
from domain import context, projects
from tests.kit.waiting import TENANT, new_id


def known(version: int, size: int = 0) -> Loaded:
    return Loaded(None, version, version, size=size)


def test_the_cache_keeps_its_bound_and_the_newest_state() -> None:
    cache, random_ = StateCache(max_bytes=100_000), random.Random(7)
    ids = [new_id() for _ in range(50)]
    newest: dict[UUID, int] = {}
    for _ in range(2_000):
        stream_id, version = random_.choice(ids), random_.randrange(1, 100)
        newest[stream_id] = max(newest.get(stream_id, 0), version)
        before = cache.get(TENANT, stream_id)
        cache.put(TENANT, stream_id, Loaded(None, version, version, size=random_.randrange(5_000)))
        assert cache.bytes_held <= 100_000
        found = cache.get(TENANT, stream_id)
        if found is not None and before is not None:
            assert found.version == max(before.version, version)
    kept = [stream_id for stream_id in ids if cache.get(TENANT, stream_id)]
    assert 0 < len(kept) < len(ids)
    assert cache.get(new_id(), kept[0]) is None


def kept(cache: StateCache, streams: list[UUID]) -> list[bool]:
    return [cache.get(TENANT, stream) is not None for stream in streams]


@pytest.mark.parametrize(("size", "fit"), [(0, True), (1, False)])
def test_each_state_counts_its_bytes_and_a_fixed_part(size: int, fit: bool) -> None:
    cache, streams = StateCache(max_bytes=3 * ENTRY_BYTES + 100), [new_id() for _ in range(3)]
    for stream, bytes_ in zip(streams, (40, 60, size), strict=True):
        cache.put(TENANT, stream, known(1, bytes_))
    assert kept(cache, streams) == [fit, True, True]


def test_a_newer_state_counts_in_place_of_the_older_one() -> None:
    cache, streams = StateCache(max_bytes=2 * ENTRY_BYTES + 10), [new_id() for _ in range(2)]
    for version in range(1, 50):
        cache.put(TENANT, streams[0], known(version, 5))
    cache.put(TENANT, streams[1], known(1, 5))
    assert kept(cache, streams) == [True, True]
    cache.put(TENANT, streams[1], known(2, 6))
    assert kept(cache, streams) == [False, True]


def test_what_was_used_last_stays_longest() -> None:
    cache, streams = StateCache(max_bytes=2 * ENTRY_BYTES), [new_id() for _ in range(3)]
    cache.put(TENANT, streams[0], known(1))
    cache.put(TENANT, streams[1], known(1))
    cache.get(TENANT, streams[0])
    cache.put(TENANT, streams[2], known(1))
    assert kept(cache, streams) == [True, False, True]
    cache.put(TENANT, streams[0], known(2))
    cache.put(TENANT, streams[1], known(1))
    assert kept(cache, streams) == [True, True, False]


@pytest.mark.parametrize("version", [1, 2])
def test_a_slower_task_puts_no_older_state_back(version: int) -> None:
    cache, stream, newest = StateCache(), new_id(), known(2)
    cache.put(TENANT, stream, newest)
    cache.put(TENANT, stream, known(version))
    assert cache.get(TENANT, stream) is newest


def test_a_state_is_of_one_slice() -> None:
    state = projects.Project()
    loaded = Loaded(state, 3, 9, 20, "projects")
    assert loaded.seen_by(projects.DECIDER) is loaded
    assert loaded.seen_by(context.DECIDER) == Loaded(context.DECIDER.initial(), 0, 0, 0, "projects")


def test_a_state_that_is_larger_than_the_cache_puts_no_other_out_and_is_not_put_out() -> None:
    cache, large, streams = StateCache(max_bytes=2 * ENTRY_BYTES), new_id(), [new_id() for _ in range(3)]
    cache.put(TENANT, streams[0], known(1))
    cache.put(TENANT, large, known(1, 100_000))
    assert kept(cache, [streams[0], large]) == [True, True]
    cache.put(TENANT, large, newest := known(2, 200_000))
    for stream in streams:
        cache.put(TENANT, stream, known(1))
    assert kept(cache, [*streams, large]) == [False, True, True, True]
    assert cache.bytes_held == 3 * ENTRY_BYTES + 200_000
    cache.put(TENANT, large, known(1, 100_000))
    assert cache.get(TENANT, large) is newest


def test_a_state_changes_its_place_with_its_size() -> None:
    cache, stream, other = StateCache(max_bytes=2 * ENTRY_BYTES), new_id(), new_id()
    for version, size in enumerate((10, 100_000, 20), start=1):
        cache.put(TENANT, stream, known(version, size))
        assert cache.bytes_held == size + ENTRY_BYTES
        found = cache.get(TENANT, stream)
        assert found is not None and found.version == version
    cache.put(TENANT, other, known(1, 10))
    assert kept(cache, [stream, other]) == [False, True]


def test_large_states_have_a_bound_together_and_the_newest_stays() -> None:
    cache, streams = StateCache(max_bytes=2 * ENTRY_BYTES, max_large_bytes=200_000), [new_id() for _ in range(3)]
    for stream in streams[:2]:
        cache.put(TENANT, stream, known(1, 100_000))
    cache.get(TENANT, streams[0])
    cache.put(TENANT, streams[2], known(1, 100_000))
    assert kept(cache, streams) == [True, False, True], "the one that was used last stays"
    cache.put(TENANT, streams[1], known(1, 300_000))
    assert kept(cache, streams) == [False, True, False]


def test_a_large_state_that_nobody_uses_is_dropped() -> None:
    now = 0.0
    cache, large, small = StateCache(max_bytes=2 * ENTRY_BYTES, clock=lambda: now), new_id(), new_id()
    cache.put(TENANT, large, known(1, 100_000))
    now = LARGE_UNUSED_S
    assert kept(cache, [large]) == [True]
    now = 2 * LARGE_UNUSED_S
    cache.put(TENANT, small, known(1))
    assert kept(cache, [large]) == [True]
    now = 3 * LARGE_UNUSED_S + 1
    cache.put(TENANT, small, known(2))
    assert kept(cache, [small, large]) == [True, False]
    assert cache.bytes_held == ENTRY_BYTES
