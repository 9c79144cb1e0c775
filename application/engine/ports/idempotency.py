"""Idempotency keys: a request is executed once, and each repeat gets the first answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer to the first request with a key."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """The caller must execute the request, as the command `command_id`. All requests with the key have the same command id."""

    command_id: UUID


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """The key belongs to an earlier request."""

    body_sha256: str
    """Hash of the earlier request's body."""
    answer: StoredAnswer | None
    """The answer to the earlier request. None while that request is running."""


class IdempotencyKeys(Protocol):
    """Stores keys for a day, each with the hash of the request's body, a command id, and later the answer.

    All methods raise Unavailable.
    """

    async def begin(self, key_id: UUID, *, tenant_id: UUID, body_sha256: str, command_id: UUID) -> Begun | KeyInUse:
        """Takes a key for a request. `command_id`: used if the key is new or older than a day.

        A request with the same body may take a key without an answer: at once after `release`, otherwise after 30 seconds, when the
        earlier request must be dead. A key that was begun as far in the future was begun before the database's clock was set back.
        """
        ...

    async def finish(self, key_id: UUID, answer: StoredAnswer) -> None:
        """Stores the answer for repeats."""
        ...

    async def forget(self, key_id: UUID) -> None:
        """Makes a key new again, unless it has an answer. For a request that was refused, so that no command was recorded."""
        ...

    async def release(self, key_id: UUID) -> None:
        """Lets a repeat take the key at once, with the same command id. For a request that failed and may have been recorded."""
        ...

    async def expire(self) -> int:
        """Deletes all keys that are older than a day, a bounded number with each statement. Returns the number of deleted keys."""
        ...
