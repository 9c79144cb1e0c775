"""The answers to callers, compared with the log: an acknowledged append is in the log, at the acknowledged position."""

from collections.abc import Collection, Iterator, Mapping
from uuid import UUID

from tests.chaos.checks.snapshot import Snapshot, Violation


def check_acknowledged(snapshot: Snapshot, told: Mapping[UUID, int], asked: Collection[UUID] | None) -> Iterator[Violation]:
    """Acknowledged commands are in the log as acknowledged, and the log holds only commands that were given.

    `told`: command id → the last position in the answer to its caller. `asked`: all commands that were given, if known. A command
    without an answer may or may not be in the log.
    """
    recorded = {row["command_id"]: row for row in snapshot.commands}
    for command_id, position in told.items():
        row = recorded.get(command_id)
        if row is None:
            yield Violation("acknowledged-is-recorded", f"command {command_id}", f"was told position {position}, and is not there")
        elif row["last_position"] != position:
            yield Violation(
                "acknowledged-is-recorded", f"command {command_id}", f"was told {position}, is at {row['last_position']}"
            )
    if asked is not None:
        for command_id in recorded.keys() - set(asked):
            yield Violation("recorded-was-asked-for", f"command {command_id}", f"at {recorded[command_id]['last_position']}")
