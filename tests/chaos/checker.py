"""Reads the final state of a system and reports all violations.

    python -m tests.chaos.checker postgresql://… [nats://…] [--running]

The checker needs only the URLs and changes nothing. The right content of a table follows from the events up to that table's
checkpoint. Events, tables and checkpoints are read in one transaction. So `--running` (no work needs to be finished yet) works
while a system is under load.
"""

import argparse
import asyncio
import sys
from collections.abc import Collection, Mapping
from uuid import UUID

from tests.chaos.checks.answers import check_acknowledged
from tests.chaos.checks.log import check_log
from tests.chaos.checks.read_models import check_read_models
from tests.chaos.checks.slices import check_slices
from tests.chaos.checks.snapshot import Snapshot, Violation, read_snapshot
from tests.chaos.checks.streams import check_streams


async def check(
    database_url: str, nats_url: str | None = None, *, settled: bool = True, expected: Mapping[UUID, str] | None = None
) -> list[Violation]:
    """Returns all violations; an empty list if the state is right.

    `settled`: all work is over and every consumer has had the time to read the whole log. `expected`: run id → the status with
    which the run must have ended; runs that are not named may have ended with any status.

    Raises:
        psycopg.OperationalError, domain.errors.Unavailable: a server is away.
    """
    return await check_snapshot(await read_snapshot(database_url), nats_url, settled=settled, expected=expected)


async def check_snapshot(
    snapshot: Snapshot,
    nats_url: str | None = None,
    *,
    settled: bool = True,
    caught_up: bool | None = None,
    expected: Mapping[UUID, str] | None = None,
    told: Mapping[UUID, int] | None = None,
    asked: Collection[UUID] | None = None,
) -> list[Violation]:
    """The same for a snapshot that was read before.

    `caught_up` (by default the value of `settled`): every consumer and the stream have had the time to reach the head, although
    work may be under way. `told`, `asked`: see `check_acknowledged`.
    """
    caught_up = settled if caught_up is None else caught_up
    found = [
        *check_log(snapshot),
        *check_slices(snapshot, settled=settled, expected=expected or {}),
        *check_read_models(snapshot, settled=caught_up),
        *check_acknowledged(snapshot, told or {}, asked),
    ]
    if nats_url is not None:
        found += await check_streams(nats_url, snapshot, settled=settled, caught_up=caught_up)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.checker", description="Check the state of a Tidelog system.")
    parser.add_argument("database_url")
    parser.add_argument("nats_url", nargs="?")
    parser.add_argument("--running", action="store_true", help="the system is under load: nothing needs to be finished")
    given = parser.parse_args()
    violations = asyncio.run(check(given.database_url, given.nats_url, settled=not given.running))
    for violation in violations:
        print(violation)
    print(f"{len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
