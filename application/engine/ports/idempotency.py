"""Idempotency keys of the release before, in a table of their own. This release keeps each key with its command."""

from typing import Protocol


class IdempotencyKeys(Protocol):
    """The keys in the table of the release before. They are valid for a day."""

    async def expire(self) -> int:
        """Deletes all keys that are older than a day, a bounded number with each statement. Returns the number of deleted keys.

        Raises Unavailable.
        """
        ...
