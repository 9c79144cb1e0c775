"""A message of the work queue in the hands of a worker: keep it, finish it, or give it back."""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from tidelog.logs import log

logger = logging.getLogger(__name__)

BLOCKED_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Seconds until a message that this worker cannot use is delivered again: longer each time."""


class Publisher(Protocol):
    """The present connection to NATS, whichever that is: an acknowledgement is only a subject, any connection will do."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Best effort: what is lost is delivered again by the server, and refused or repeated there."""
        ...


class WorkMessage(BaseModel):
    """The payload: which work it is. `dispatch` counts how often the server put this work on the queue on purpose."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["agent", "tool"]
    pool: str
    work_id: UUID
    dispatch: int = Field(ge=0)
    tenant_id: UUID
    root_id: UUID
    log_id: str | None = None
    """Of the log that has this work; None from an older server."""


@dataclass(slots=True)
class Delivery:
    """One delivery of a work message.

    `number`: counts the deliveries of this message by JetStream, from 1. `of_our_log`: the message names the log that the queue
    belongs to; False where one of the two is not known.
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
        """Give it back; another worker gets it after the delay."""
        await self.publisher.publish(self.reply, b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode())

    async def set_aside(self) -> float:
        """Give it back, because this worker cannot use it. Returns the seconds until it is delivered again."""
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self.number - 1, 16), LONGEST_PAUSE_S)
        await self.nak(pause_s)
        return pause_s

    async def keep(self) -> None:
        """Tell JetStream three times per ack wait that the work goes on. Runs until cancelled."""
        every_s = self.ack_wait_s / 3.3
        while True:
            await self.publisher.publish(self.reply, b"+WPI")
            started = time.monotonic()
            await asyncio.sleep(every_s)
            blocked_s = time.monotonic() - started - every_s
            if blocked_s > BLOCKED_S:
                log(
                    logger,
                    logging.WARNING,
                    "event_loop_blocked",
                    seconds=round(blocked_s, 1),
                    hint="blocking code in an async function; run it with ctx.step or make it a sync tool",
                )
