"""Checkpoints that are not where their owner knows them to be: another owner, or a crash that took moves back."""

import pytest

from application.engine.ports.checkpoints import Checkpoint, LostOwnership, SteppedBack
from projections.engine.checkpoints import moved_away

KNOWN = {"a": Checkpoint(5, 1), "b": Checkpoint(7, 2)}


@pytest.mark.parametrize("found", [KNOWN, {**KNOWN, "a": Checkpoint(6, 1)}, {**KNOWN, "c": Checkpoint(0, 9)}])
def test_checkpoints_in_place_or_farther_on_are_in_order(found: dict[str, Checkpoint]) -> None:
    assert moved_away(KNOWN, found) is None


@pytest.mark.parametrize("found", [{"a": KNOWN["a"]}, {**KNOWN, "b": Checkpoint(7, 3)}, {**KNOWN, "b": Checkpoint(2, 3)}])
def test_another_epoch_or_a_missing_row_is_a_lost_ownership(found: dict[str, Checkpoint]) -> None:
    reason = moved_away(KNOWN, found)
    assert type(reason) is LostOwnership and str(reason) == "another process owns one of a, b"


def test_an_older_position_of_the_same_owner_is_a_step_back() -> None:
    one = moved_away(KNOWN, {**KNOWN, "b": Checkpoint(6, 2)})
    assert type(one) is SteppedBack and str(one) == "the database lost the last moves of b"
    both = moved_away(KNOWN, {"a": Checkpoint(4, 1), "b": Checkpoint(6, 2)})
    assert str(both) == "the database lost the last moves of a, b"
