"""What callers were told, compared with the log: an acknowledged append is there, where it was said to be, and nobody else's."""

from collections.abc import Collection, Iterator, Mapping
from uuid import UUID

from tests.chaos.checks.snapshot import Snapshot, Violation


def check_acknowledged(snapshot: Snapshot, told: Mapping[UUID, int], asked: Collection[UUID] | None) -> Iterator[Violation]:
    """`told`: command id → the last position that its caller was answered. `asked`: all commands that anybody gave, if known:
    a command without an answer may or may not be in the log, but what is there was asked for."""
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
