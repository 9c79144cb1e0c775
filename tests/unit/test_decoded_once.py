"""Events of a batch are decoded once for all handlers, and nothing is kept after the batch."""

from datetime import UTC, datetime

import pytest

from domain.kernel import RecordedEvent
from projections.engine.kernel import decoded_once, once
from tests.kit.waiting import TENANT, new_id


def event(position: int) -> RecordedEvent:
    id = new_id()
    return RecordedEvent(position, TENANT, id, 1, id, "thing.happened", 1, b"{}", "{}", datetime.now(UTC))


def test_within_a_batch_an_event_is_decoded_once() -> None:
    made: list[int] = []

    def decode(recorded: RecordedEvent) -> object:
        made.append(recorded.position)
        return object()

    decoded, one, two = once(decode), event(1), event(2)
    with decoded_once():
        assert decoded(one) is decoded(one) is not decoded(two)
        assert made == [1, 2]
    assert decoded(one) is not decoded(one)
    with decoded_once():
        decoded(one)
    assert made == [1, 2, 1, 1, 1], "outside of a batch nothing is kept, and nothing is left of the batch before"


def test_an_event_that_cannot_be_decoded_fails_for_each_handler() -> None:
    def decode(recorded: RecordedEvent) -> object:
        raise ValueError("no event")

    decoded = once(decode)
    with decoded_once():
        for _ in range(2):
            with pytest.raises(ValueError, match="no event"):
                decoded(event(1))
