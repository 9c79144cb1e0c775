"""What a bulk action would do, and what must hold before it begins."""

import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from application.bulk_actions.carrying_out import wanted_of
from application.bulk_actions.orders import STATUSES, command_of
from application.engine.ports.pages import uuid_cursor
from application.reads import RunReads
from domain.bulk_actions import BulkOrder, RunFilter
from domain.errors import InvalidCommand
from domain.kernel import derive_id

SHOWN = 20
"""Runs that a dry run names."""
PAGE = 1_000
LOOKS_S = 5.0
"""Seconds that a dry run counts for."""


class FoundRuns(NamedTuple):
    """What a filter finds at this moment."""

    matched: int
    runs: Sequence[UUID]
    """The first ones."""
    complete: bool
    """Whether all runs were counted. If not, there are more than so many, perhaps."""
    position: int


async def find_runs(
    reads: RunReads, tenant_id: UUID, order: BulkOrder, asked: RunFilter, within: Sequence[UUID] | None, *, most: int | None = None
) -> FoundRuns:
    """Counts runs as the bulk action would find them. Writes nothing. `most`: no more are counted.

    Raises InvalidCommand: the filters cannot be looked for; ProjectionBehind, Unavailable.
    """
    began, found, position = time.monotonic(), dict[UUID, None](), 0
    complete = True
    for status in asked.statuses or STATUSES[order.verb]:
        before = None
        while complete:
            wanted = wanted_of(asked, status, within, PAGE if most is None else most, before)
            try:
                page = await reads.list(tenant_id, wanted)
            except InvalidCommand as error:
                raise _of_filter(error) from error
            found |= dict.fromkeys(run.run_id for run in page.value.data)
            position, before = page.position, uuid_cursor(page.value.next_cursor)
            if before is None:
                break
            complete = time.monotonic() - began < LOOKS_S and (most is None or len(found) < most)
    return FoundRuns(len(found), list(found)[:SHOWN], complete, position)


def check_order(order: BulkOrder, bulk_action_id: UUID) -> None:
    """Raises InvalidCommand: no run could take the command."""
    run_id = derive_id(bulk_action_id, "any run")
    command_of(order, run_id, bulk_action_id, "nobody", None)


async def check_filter(reads: RunReads, tenant_id: UUID, order: BulkOrder, asked: RunFilter, within: Sequence[UUID] | None) -> None:
    """Raises InvalidCommand: the filters cannot be looked for; ProjectionBehind, Unavailable."""
    status = (asked.statuses or STATUSES[order.verb])[0]
    try:
        await reads.list(tenant_id, wanted_of(asked, status, within, 1))
    except InvalidCommand as error:
        raise _of_filter(error) from error


def _of_filter(error: InvalidCommand) -> InvalidCommand:
    return InvalidCommand(error.message, pointer=f"/filter{error.pointer or ''}")
