"""Which keys the doctor and the list of keys warn of."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.cli.expiry import is_soon, told

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def key(expires_at: Any, **more: Any) -> dict[str, Any]:
    return {"status": "valid", "expires_at": expires_at, "rotated_to": None, **more}


def after(**time: float) -> str:
    return (NOW + timedelta(**time)).isoformat().replace("+00:00", "Z")


def test_a_key_that_expires_within_two_weeks_is_warned_of() -> None:
    assert is_soon(key(after(days=14)), NOW) and is_soon(key(after(minutes=1)), NOW)
    assert is_soon(key(after(days=13)[:19]), NOW), "a time without a zone is one of UTC"


@pytest.mark.parametrize(
    "other",
    [
        key(None), key(after(days=14, seconds=1)), key(after(days=1), status="revoked"), key(after(days=-1), status="expired"),
        key(after(days=1), rotated_to="another"), key("soon"), key(7), key("9999-99-99"),
    ],
)  # fmt: skip
def test_no_other_key_is(other: dict[str, Any]) -> None:
    assert not is_soon(other, NOW)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(days=13, hours=23), "13 days"), (timedelta(days=2), "2 days"), (timedelta(hours=47), "47 hours"),
        (timedelta(hours=1), "1 hour"), (timedelta(minutes=59), "less than an hour"), (timedelta(seconds=-1), "less than an hour"),
    ],
)  # fmt: skip
def test_the_time_that_is_left_is_told_in_words(left: timedelta, text: str) -> None:
    assert told(left) == text
