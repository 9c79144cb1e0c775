"""Pages of a list, with an opaque cursor that names the last row seen."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from domain.errors import InvalidCommand

T = TypeVar("T")
MAX_LIMIT = 1000
MAX_POSITION = 2**63 - 1
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    data: list[T]
    next_cursor: str | None


def malformed_cursor() -> InvalidCommand:
    return InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")


def encode_cursor(value: str) -> str:
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The text in a cursor. Raises InvalidCommand for a text that is not a cursor of this system."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not text or encode_cursor(text) != cursor:  # the decoder skips characters that it does not know
        raise malformed_cursor()
    return text


def uuid_cursor(cursor: str | None) -> UUID | None:
    """The id in a cursor. Raises InvalidCommand for a text that is not a cursor of this system."""
    if cursor is None:
        return None
    try:
        return UUID(decode_cursor(cursor))
    except ValueError:
        raise malformed_cursor() from None


def position_cursor(cursor: str | None) -> int | None:
    """The position in a cursor. Raises InvalidCommand for a text that is not a cursor of this system."""
    if cursor is None:
        return None
    position = parse_position(decode_cursor(cursor))
    if position is None:
        raise malformed_cursor()
    return position


def parse_position(text: str) -> int | None:
    """A position in decimal digits. None for any other text, such as digits of other scripts or too many digits."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None
