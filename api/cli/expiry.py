"""Which API keys soon expire."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

SOON = timedelta(days=14)


def time_left(key: Mapping[str, Any], now: datetime) -> timedelta:
    """Up to the expiry of a key that has one. Raises ValueError, TypeError for what is no time."""
    at = datetime.fromisoformat(key["expires_at"])
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) - now


def told(left: timedelta) -> str:
    """A time in words: days, or hours where it is short."""
    hours = max(0, int(left.total_seconds() // 3600))
    number, unit = (hours // 24, "day") if hours >= 48 else (hours, "hour")
    return f"{number} {unit}{'' if number == 1 else 's'}" if number else "less than an hour"


def is_soon(key: Mapping[str, Any], now: datetime) -> bool:
    """Whether a valid key ends by itself within two weeks, and no other has taken its place."""
    if key["status"] != "valid" or key["expires_at"] is None or key.get("rotated_to"):
        return False
    try:
        return time_left(key, now) <= SOON
    except (ValueError, TypeError, OverflowError):  # a server of another kind
        return False
