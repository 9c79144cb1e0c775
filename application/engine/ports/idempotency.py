"""Idempotency keys: one execution of a request, and the first answer again for each repeat."""

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
    """The request is to be executed, as the command `command_id`: the same one for each request with the key."""

    command_id: UUID


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """The key belongs to an earlier request."""

    body_sha256: str
    """Of the earlier request's body."""
    answer: StoredAnswer | None
    """None while the earlier request is running."""


class IdempotencyKeys(Protocol):
    """Keys for a day, each with the hash of the request's body, a command id, and the answer as soon as there is one.

    All methods raise Unavailable.
    """

    async def begin(self, key_id: UUID, *, tenant_id: UUID, body_sha256: str, command_id: UUID) -> Begun | KeyInUse:
        """Takes a key for a request; `command_id` is that of a key that is new, or older than a day.

        A key without an answer is taken again by a request with the same body: at once after `release`, else after 30 seconds,
        when the earlier request must be dead.
        """
        ...

    async def finish(self, key_id: UUID, answer: StoredAnswer) -> None:
        """Keeps the answer for repeats."""
        ...

    async def forget(self, key_id: UUID) -> None:
        """The request was refused, so that nothing was recorded: the key is new again, unless it has an answer."""
        ...

    async def release(self, key_id: UUID) -> None:
        """The request failed, and may have been recorded: a repeat need not wait, and gets the same command id."""
        ...

    async def expire(self) -> int:
        """Deletes all keys that are older than a day, a bounded number with each statement. Returns how many there were."""
        ...
