"""What an id, or the beginning of an id, names: people see short ids and ids of events, and want what is behind them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.ids import LogIndex, StreamStart
from application.engine.ports.pages import MAX_POSITION
from domain.errors import InvalidCommand

SHORTEST = 4
"""Digits. A shorter beginning names nearly everything."""
MOST = 100
"""Streams that are looked at."""

_EVENT = re.compile(r"([0-9a-f-]{36}):([1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Named:
    """What an id names."""

    id: str
    kind: str
    """`run`, `agent_run`, `invocation` and other slices for a stream; `command`; `event`."""
    run_id: UUID | None
    """The run itself, or the run around it."""
    position: int
    """Position of the first event."""
    event_count: int | None = None
    """For a command: the number of its events, which follow one another."""


async def find_ids(index: LogIndex, tenant_id: UUID, text: str) -> tuple[Sequence[Named], bool]:
    """What the id or its beginning names, in the order of ids, and whether that is all.

    `<id>:<version>` is an event. A complete id may be of a command. Raises InvalidCommand for another text, Unavailable.
    """
    text = text.lower()
    if (event := _EVENT.fullmatch(text)) is not None:
        position = None
        if (version := int(event[2])) <= MAX_POSITION:
            position = await index.of_event(tenant_id, _uuid(event[1]), version)
        return ([] if position is None else [Named(text, "event", None, position)]), True
    digits = text.replace("-", "")
    if not SHORTEST <= len(digits) <= 32 or not re.fullmatch("[0-9a-f]+", digits):
        raise InvalidCommand(f"an id, or at least {SHORTEST} hexadecimal digits of its beginning, or <id>:<version>", pointer="/id")
    first, last = UUID(hex=digits.ljust(32, "0")), UUID(hex=digits.ljust(32, "f"))
    starts, complete = await index.streams(tenant_id, first, last, limit=MOST)
    found = [_named(start) for start in starts]
    if first == last and (positions := await index.of_command(tenant_id, first)):
        found.append(Named(str(first), "command", None, positions[0], len(positions)))
    return found, complete


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidCommand(f"'{text}' is no id", pointer="/id") from None


def _named(start: StreamStart) -> Named:
    kind = start.topic.partition(".")[0]
    run_id = start.root_id if start.root_id != start.stream_id or kind == "run" else None
    return Named(str(start.stream_id), kind, run_id, start.position)
