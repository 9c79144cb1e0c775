"""What a worker tells of its free slots at once, and what may wait for a report."""

import pytest

from tidelog.session import Slots
from tidelog.session.offers import SlotsTold


def told(agent: int, tool: int = 0) -> SlotsTold:
    found = SlotsTold()
    found.tell(Slots(agent, tool), at_once=True)
    return found


def test_the_first_word_is_pressing() -> None:
    assert SlotsTold().is_pressing(Slots(0, 0))


def test_the_server_counts_the_slots_of_its_work_by_itself() -> None:
    slots = told(3, 2)
    slots.work_came("agent")
    slots.work_came("tool")
    slots.work_came("agent")
    assert slots.counted == Slots(1, 1)
    for _ in range(3):
        slots.work_came("agent")
    assert slots.counted == Slots(0, 1)


@pytest.mark.parametrize(("size", "pressing"), [(1, True), (2, True), (3, False), (100, False)])
def test_a_slot_that_is_free_again_is_pressing_where_the_server_knows_of_half_at_most(size: int, pressing: bool) -> None:
    slots = told(size)
    slots.work_came("agent")
    assert slots.is_pressing(Slots(size, 0)) is pressing


def test_one_kind_may_be_pressing_beside_the_other() -> None:
    slots = told(100, 1)
    slots.work_came("tool")
    assert slots.is_pressing(Slots(100, 1))


def test_fewer_slots_than_the_server_knows_of_are_pressing() -> None:
    assert told(100).is_pressing(Slots(99, 0)) and told(1).is_pressing(Slots(0, 0))


def test_what_waits_to_be_sent_counts_as_known_only_when_it_was_sent() -> None:
    slots = told(4)
    for _ in range(2):
        slots.work_came("agent")
    slots.tell(Slots(3, 0), at_once=False)
    assert slots.counted == Slots(3, 0) and slots.is_pressing(Slots(4, 0))
    assert slots.is_pressing(Slots(2, 0))  # the word that waits would be one too many
    slots.sent()
    assert not slots.is_pressing(Slots(4, 0))
