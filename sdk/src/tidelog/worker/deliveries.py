"""A message of the work queue in the hands of a worker: the worker keeps it, finishes it, or gives it back."""

import asyncio
import json
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Seconds until a message that this worker cannot use is delivered again; the delay grows each time."""


class Publisher(Protocol):
    """The present connection to NATS: an acknowledgement is a publish on a subject, so any connection can send it."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Best effort. After a lost acknowledgement the message is delivered again, and the server refuses or repeats the claim."""
        ...


class WorkMessage(BaseModel):
    """The payload: names the work. `dispatch` counts how often the server put this work on the queue on purpose."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["agent", "tool"]
    pool: str
    work_id: UUID
    dispatch: int = Field(ge=0)
    tenant_id: UUID
    root_id: UUID
    log_id: str | None = None
    """Id of the log that has this work; None from an older server."""


@dataclass(slots=True)
class Delivery:
    """One delivery of a work message.

    `number`: counts the deliveries of this message by JetStream, from 1. `of_our_log`: the message names the log of the queue;
    False if either log is unknown.
    """

    work: WorkMessage
    number: int
    reply: str
    publisher: Publisher
    ack_wait_s: float
    of_our_log: bool = False

    async def ack(self) -> None:
        await self.publisher.publish(self.reply, b"+ACK")

    async def nak(self, delay_s: float) -> None:
        """Give the message back; another worker gets it after the delay (seconds)."""
        await self.publisher.publish(self.reply, b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode())

    async def set_aside(self) -> float:
        """Give back a message that this worker cannot use. Returns the seconds until it is delivered again."""
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self.number - 1, 16), LONGEST_PAUSE_S)
        await self.nak(pause_s)
        return pause_s

    async def keep(self) -> None:
        """Tell JetStream three times per ack wait that the work goes on. Runs until cancelled."""
        every_s = self.ack_wait_s / 3.3
        while True:
            await self.publisher.publish(self.reply, b"+WPI")
            await asyncio.sleep(every_s)
