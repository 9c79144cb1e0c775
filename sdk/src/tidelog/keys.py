"""The text of an API key: `tl_<type>_<id>_<secret><checksum>`. Standard library only: the server takes this file, too.

    type       `key` for people and programs, `worker` for workers
    id         the key's id, 22 digits of base 62; no secret
    secret     256 random bits, 43 digits
    checksum   CRC-32 of all before it, 6 digits: a slip of the hand is told from a key that is not valid

Keys of before there was this form are any text. So a text counts as mistyped only if it plainly has the form.
"""

import hashlib
import re
import secrets
import string
import time
import zlib
from typing import NamedTuple
from uuid import UUID

ROLES = ("owner", "admin", "operator", "developer", "auditor", "worker")
"""Roles of keys, the one that may do the most first."""

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID, _SECRET, _CHECKSUM = 22, 43, 6
_FORM = re.compile(r"tl_(?:key|worker)_([0-9A-Za-z]+)_([0-9A-Za-z]+)")
_SHORTEST = 60
"""Characters of the shortest text that is taken for a key of this form. Keys of before that Tidelog made have 46."""


class MadeKey(NamedTuple):
    """A key that was made here. `text` is the key itself, the only copy of it."""

    text: str
    key_id: UUID
    sha256: str
    """All that the server needs to know of the key."""

    def __repr__(self) -> str:
        return f"MadeKey(key_id={self.key_id})"  # a key must not get into a log by the way


def make_key(key_id: UUID, role: str = "owner") -> MadeKey:
    """A new key with a secret of 256 random bits."""
    kind = "worker" if role == "worker" else "key"
    body = f"tl_{kind}_{_base62(key_id.int, _ID)}_{_base62(secrets.randbits(256), _SECRET)}"
    text = body + _checksum(body)
    return MadeKey(text, key_id, sha256_of(text))


def new_key_id() -> UUID:
    """A UUIDv7: ids of keys are in the order in which they were made."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def sha256_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def is_mistyped(key: str) -> bool:
    """Whether a text has the form of a key and cannot be one, since a character is wrong, missing or too many."""
    if len(key) < _SHORTEST or (found := _FORM.fullmatch(key)) is None:
        return False
    if len(found[1]) != _ID or len(found[2]) != _SECRET + _CHECKSUM:
        return True
    return _checksum(key[:-_CHECKSUM]) != key[-_CHECKSUM:]


def id_of(key: str) -> UUID | None:
    """The id in the text of a key. None: the key is not of this form, or mistyped."""
    found = _FORM.fullmatch(key)
    if found is None or len(found[1]) != _ID or is_mistyped(key):
        return None
    number = 0
    for digit in found[1]:
        number = number * 62 + _DIGITS.index(digit)
    return UUID(int=number) if number < 1 << 128 else None


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
