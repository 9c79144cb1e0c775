"""Bulk actions as records: which runs are meant, how far they have come, and that they end once."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from domain import bulk_actions
from domain.bulk_actions import (
    DECIDER,
    EXAMPLES_OF_CODE,
    MOST_EXAMPLES,
    AdvanceBulkAction,
    BulkAction,
    BulkActionAdvanced,
    BulkActionCancelled,
    BulkActionCompleted,
    BulkActionFailed,
    BulkActionStarted,
    BulkOrder,
    CancelBulkAction,
    ExampleOfRun,
    FailBulkAction,
    RunFilter,
    RunsSelected,
    SelectRuns,
    SignalSaid,
    StartBulkAction,
    command_id_of,
)
from domain.errors import AlreadyExists, InvalidState, NotFound
from domain.kernel import derive_id
from tests.kit import Given, given

ID, PROJECT, *RUNS = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(8))
ORDER = BulkOrder(verb="signal", reason="why", signal=SignalSaid(name="go", payload=0))
FILTER = RunFilter(statuses=("running", "paused"), agent="critic", started_after=datetime(2026, 1, 1, tzinfo=UTC))
START = StartBulkAction(
    bulk_action_id=ID, order=ORDER, filter=FILTER, within=(PROJECT,), by="key:ada", on_behalf_of="user:eve"
)  # fmt: skip


def select(number: int, *runs: UUID, reached: int = 2, before: UUID | None = None, complete: bool = True) -> SelectRuns:
    return SelectRuns(bulk_action_id=ID, number=number, runs=runs, reached=reached, before=before, complete=complete)


def advance(begin: int, count: int, done: int = 0, unchanged: int = 0, **more: Any) -> AdvanceBulkAction:
    return AdvanceBulkAction(bulk_action_id=ID, begin=begin, count=count, done=done, unchanged=unchanged, **more)


def acting(*more: Any) -> Given:
    return given(DECIDER).after(START, select(1, *RUNS[:4]), *more)


def test_it_begins_with_what_is_meant_and_who_asks() -> None:
    begun = BulkActionStarted(
        order={"verb": "signal", "reason": "why", "signal": {"name": "go", "payload": 0}},
        filter={"statuses": ["running", "paused"], "agent": "critic", "started_after": "2026-01-01T00:00:00Z"},
        within=(PROJECT,), by="key:ada", on_behalf_of="user:eve",
    )  # fmt: skip
    given(DECIDER).when(START).then(begun)
    found: BulkAction = given(DECIDER, begun).state
    assert found == BulkAction(
        status="selecting", order=ORDER, filter=FILTER, within=(PROJECT,), by="key:ada", on_behalf_of="user:eve"
    )
    given(DECIDER, begun).when(START).refused(AlreadyExists, rf"^bulk action {ID} was started before$")


@pytest.mark.parametrize(
    "command",
    [
        select(1),
        advance(0, 1),
        CancelBulkAction(bulk_action_id=ID, by="a"),
        FailBulkAction(bulk_action_id=ID, code="c", message="m"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_is_not_there_is_not_found(command: Any) -> None:
    given(DECIDER).when(command).refused(NotFound, rf"^there is no bulk action {ID}$")


def test_runs_are_named_in_the_order_of_their_parts() -> None:
    begun = given(DECIDER).after(START)
    first = select(1, *RUNS[:3], reached=1, before=RUNS[2], complete=False)
    begun.when(first).then(RunsSelected(number=1, runs=tuple(RUNS[:3]), reached=1, before=RUNS[2], complete=False))
    found = begun.after(first)
    state: BulkAction = found.state
    assert (state.status, state.parts, state.selected, state.reached, state.before, state.complete) == (
        "selecting", 1, 3, 1, RUNS[2], False
    )  # fmt: skip
    found.when(first).then()  # another process was faster
    found.when(select(3, RUNS[3])).then()
    found.when(advance(0, 3, 3)).then()  # not all of them are known
    after: BulkAction = found.after(select(2, RUNS[3])).state
    assert (after.status, after.parts, after.selected, after.complete, after.left) == ("acting", 2, 4, True, 4)
    acting().when(select(2, RUNS[4])).then()


def test_it_ends_at_once_where_no_run_is_meant() -> None:
    begun = given(DECIDER).after(START)
    begun.when(select(1)).then(RunsSelected(number=1, runs=(), reached=2, complete=True), BulkActionCompleted(handled=0))
    assert begun.after(select(1)).state.status == "completed"
    some = begun.after(select(1, RUNS[0], complete=False))
    some.when(select(2)).then(RunsSelected(number=2, runs=(), reached=2, complete=True))


def test_it_says_how_far_it_has_come_and_ends_with_the_last_run() -> None:
    begin = acting()
    part = advance(
        0, 3, 1, 1, refused={"invalid-state": 1}, examples=(ExampleOfRun(run_id=RUNS[0], code="invalid-state", message="m"),)
    )
    told = BulkActionAdvanced(handled=3, done=1, unchanged=1, refused=part.refused, examples=part.examples)
    begin.when(part).then(told)
    after = begin.after(part)
    after.when(part).then()  # told by another process
    after.when(advance(3, 2, 2)).then()  # there are no two more
    last = advance(3, 1, 0, 0, refused={"invalid-state": 1, "run-of-parent": 1})
    after.when(last).then(BulkActionAdvanced(handled=4, done=0, refused=last.refused), BulkActionCompleted(handled=4))
    state: BulkAction = after.after(last).state
    assert (state.status, state.handled, state.done, state.unchanged, state.left) == ("completed", 4, 1, 1, 0)
    assert dict(state.refused) == {"invalid-state": 2, "run-of-parent": 1}
    assert state.examples == part.examples
    after.after(last).when(CancelBulkAction(bulk_action_id=ID, by="key:ada")).refused(
        InvalidState, "^the bulk action is completed: nothing is left to cancel$"
    )


def test_sums_go_on_from_part_to_part() -> None:
    state: BulkAction = acting(advance(0, 2, 1, 1), advance(2, 1, 1), advance(3, 1, 0, 1)).state
    assert (state.status, state.done, state.unchanged, state.handled) == ("completed", 2, 2, 4)


def test_a_cancelled_one_counts_what_was_under_way_and_begins_nothing() -> None:
    cancel = CancelBulkAction(bulk_action_id=ID, by="key:bob", on_behalf_of="user:eve", reason="wrong")
    begin = acting()
    begin.when(cancel).then(BulkActionCancelled(by="key:bob", on_behalf_of="user:eve", reason="wrong"))
    over = begin.after(cancel)
    assert over.state.status == "cancelled"
    over.when(cancel).then()
    over.when(select(2, RUNS[4])).then()
    over.when(FailBulkAction(bulk_action_id=ID, code="c", message="m")).then()
    over.when(advance(0, 4, 4)).then(BulkActionAdvanced(handled=4, done=4))
    assert over.after(advance(0, 4, 4)).state.status == "cancelled"
    selecting = given(DECIDER).after(START, cancel)
    selecting.when(select(1, RUNS[0])).then()


def test_one_whose_runs_cannot_be_found_fails() -> None:
    failed = FailBulkAction(bulk_action_id=ID, code="invalid-command", message="no words")
    begin = given(DECIDER).after(START)
    begin.when(failed).then(BulkActionFailed(code="invalid-command", message="no words"))
    over = begin.after(failed)
    assert over.state.status == "failed"
    over.when(failed).then()
    over.when(CancelBulkAction(bulk_action_id=ID, by="a")).refused(InvalidState, "failed")


def test_some_of_the_refused_runs_are_named() -> None:
    """A few of each reason, and not too many in all."""

    def of(code: str, number: int) -> tuple[ExampleOfRun, ...]:
        return tuple(ExampleOfRun(run_id=derive_id(ID, f"{code}{n}"), code=code, message="m") for n in range(number))

    begin = given(DECIDER).after(START, select(1, *(derive_id(ID, str(n)) for n in range(1_000))))
    [event, *_] = begin.when(advance(0, 9, examples=of("a", 5))).events()
    assert isinstance(event, BulkActionAdvanced)
    assert event.examples == of("a", EXAMPLES_OF_CODE)
    twice = begin.after(advance(0, 9, examples=of("a", 2)))
    [event, *_] = twice.when(advance(9, 9, examples=(*of("a", 4), *of("b", 1)))).events()
    assert isinstance(event, BulkActionAdvanced)
    assert event.examples == (*of("a", 1), *of("b", 1))
    many = tuple(each for code in range(30) for each in of(f"code-{code}", 1))
    full = begin.after(advance(0, 9, examples=many))
    assert full.state.examples == many[:MOST_EXAMPLES]
    [event, *_] = full.when(advance(9, 9, examples=of("z", 1))).events()
    assert isinstance(event, BulkActionAdvanced)
    assert event.examples == ()


def test_a_run_gets_its_command_under_an_id_of_its_own() -> None:
    assert command_id_of(ID, RUNS[0]) == command_id_of(ID, RUNS[0]) == derive_id(ID, f"run:{RUNS[0]}")
    assert len({command_id_of(ID, RUNS[0]), command_id_of(ID, RUNS[1]), command_id_of(PROJECT, RUNS[0])}) == 3


def test_what_is_not_said_is_not_stored() -> None:
    assert BulkOrder(verb="pause").said() == {"verb": "pause"}
    assert RunFilter().said() == {}
    assert {"selecting", "acting"} == bulk_actions.OPEN
