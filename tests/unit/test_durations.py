"""Durations as people write them."""

import pytest

from application.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600), ("999999999s", 999_999_999)],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "1.5h", "-1h", "1 h", "1H", "1h30m", "1234567890s", "\u0661h"])
def test_any_other_text_is_none(text: str) -> None:
    assert seconds_of(text) is None
