"""Signals to the agents of a run."""

from uuid import UUID

import pydantic_core

from domain.errors import InvalidCommand
from domain.kernel import Json, derive_id
from domain.runs import SignalRun

MAX_PAYLOAD_BYTES = 64 * 1024


def signal_of(run_id: UUID, name: str, payload: Json, step: str | None, id: str | None, command_id: UUID) -> SignalRun:
    """The command that sends a signal. `id`: the sender's name for it; without one, the command is the only one with this signal.

    Raises InvalidCommand: the payload is too large.
    """
    size = len(pydantic_core.to_json(payload))
    if size > MAX_PAYLOAD_BYTES:
        what = f"the payload has {size:,} bytes, {MAX_PAYLOAD_BYTES:,} are allowed: send the digest of a blob instead"
        raise InvalidCommand(what, pointer="/payload")
    signal_id = derive_id(run_id, f"signal:{command_id}" if id is None else f"signal-id:{id}")
    return SignalRun(run_id=run_id, signal_id=signal_id, name=name, payload=payload, step=step)
