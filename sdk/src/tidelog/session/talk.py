"""The talk over one WebSocket: hello, then frames in both directions, beats, and an end after silence."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from tidelog.calling import end_tasks
from tidelog.session.frames import BEAT, LEAVING, MAX_FRAME_BYTES, MAX_MESSAGES, FrameError, frame, read
from tidelog.session.inbound import Inbound
from tidelog.session.link import Link, LinkError
from tidelog.session.outbox import Outbox

BEAT_S = 3.0
SILENCE_S = 15.0
"""Seconds without a word of the server after which the connection is closed. The server says something every five seconds."""
DOUBTFUL_S = (4.5, 5.0)
"""Seconds without a word, at random between these, after which a connection is in doubt. A second one is opened then, so that a
worker whose server has vanished is at another one before its lease of ten seconds is over."""
TICKS_A_BEAT = 4

LEFT, MALFORMED, SILENT, REPLACED = 1000, 4400, 4408, 4409
"""Codes with which a worker closes its socket."""


class Talk:
    """Belongs to the session's thread. `take` gets each message of the server but beats."""

    def __init__(
        self, era: int, link: Link, outbox: Outbox, inbound: Inbound, take: Callable[["Talk", dict[str, Any]], None]
    ) -> None:
        self.era = era
        """Counts the sockets of the session."""
        self.problem: dict[str, Any] | None = None
        """What the server called an error before it closed the socket."""
        self.works = 0
        """Number of the latest `work` of this socket."""
        self.drained = False
        """Whether the server's process has said that it will end."""
        self._link = link
        self._outbox = outbox
        self._inbound = inbound
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._ringing = asyncio.Event()
        self._rests = False
        """The sender has nothing to send."""
        self._heard = self._said = self._loop.time()
        self._reads = True
        self._doubtful_s = random.uniform(*DOUBTFUL_S)
        self._hushed = False
        self._reason = ""
        """Why this side closed the socket."""
        self.welcomed: asyncio.Future[None] = self._loop.create_future()

    def hush(self) -> None:
        """A newer socket of the session sends from now on; this one still hears what comes."""
        self._hushed = True

    def ring(self) -> None:
        """There may be something to send. From any thread."""
        self._loop.call_soon_threadsafe(self._rung)

    def _rung(self) -> None:
        """Sends what waits, if the socket takes it at once. Else the sender does."""
        if not self._rests or self._hushed or not self._link.writable:
            self._ringing.set()
            return
        messages = self._outbox.take(self.era, time.monotonic())
        if messages:
            self._link.write(frame(messages))
            self._said = self._loop.time()
        if not self._outbox.sleep():
            self._ringing.set()

    @property
    def code(self) -> int | None:
        return self._link.code

    @property
    def silent_s(self) -> float:
        """For how long the server has said nothing. 0 while nobody listens."""
        return self._loop.time() - self._heard if self._reads else 0.0

    @property
    def in_doubt(self) -> bool:
        """Whether the server has been silent for longer than a server that works."""
        return self.silent_s >= self._doubtful_s

    async def run(self, hello: bytes) -> str:
        """Talks until the connection ends, or until cancelled. Returns why the connection ended."""
        self._link.on_frame(self._take_at_once)
        parts = [
            asyncio.create_task(self._receive(), name="receive"),
            asyncio.create_task(self._beat(), name="beat"),
            asyncio.create_task(self._listen(), name="listen"),
            asyncio.create_task(self._send(hello), name="send"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            return next(part.result() for part in parts if part in done)
        except LinkError as error:
            return self._reason or str(error)
        finally:
            for part in parts:
                part.cancel()
            self._link.abort()
            await end_tasks(*parts)

    async def close(self, code: int, reason: str = "") -> None:
        await self._link.close(code, reason)

    async def send_lines(self) -> None:
        """Sends what waits of the lines of agents. Raises LinkError."""
        while lines := self._outbox.lines.take(MAX_MESSAGES, MAX_FRAME_BYTES):
            await self._link.send(frame(lines))

    async def leave(self) -> None:
        """Says that the worker leaves. Raises LinkError."""
        await self._link.send(LEAVING)

    async def _receive(self) -> str:
        while True:
            text = await self._link.receive()
            try:
                self._hear(text)
            except FrameError as error:
                return await self._give_up(MALFORMED, str(error))
            self._reads = False  # nothing is heard while the user's loop is behind: no silence of the server
            await self._inbound.room()
            self._reads, self._heard = True, self._loop.time()

    def _take_at_once(self, text: bytes) -> bool:
        """Takes a frame in the callback of the socket, unless the user's loop is behind or the frame ends the talk."""
        if not self._reads or not self._inbound.has_room:
            return False
        try:
            self._hear(text)
        except FrameError:
            return False
        return True

    def _hear(self, text: bytes) -> None:
        """Raises FrameError."""
        self._heard = self._loop.time()
        for message in read(text):
            if message["t"] != "beat":
                self._take(self, message)

    async def _send(self, hello: bytes) -> str:
        await self._link.send(hello)
        await asyncio.wait({self.welcomed})
        while True:
            messages = [] if self._hushed else self._outbox.take(self.era, time.monotonic())
            if messages:
                await self._link.send(frame(messages))
                self._said = self._loop.time()
            elif self._hushed or self._outbox.sleep():
                self._rests = True
                await self._ringing.wait()
                self._rests = False
                self._ringing.clear()

    async def _beat(self) -> str:
        """Beats go straight to the socket, past all that waits."""
        while True:
            await asyncio.sleep(BEAT_S / TICKS_A_BEAT)
            if self._loop.time() - self._said >= BEAT_S - BEAT_S / TICKS_A_BEAT:
                self._said = self._loop.time()
                await self._link.send(BEAT)

    async def _listen(self) -> str:
        while True:
            await asyncio.sleep(BEAT_S / TICKS_A_BEAT)
            if (silent_s := self.silent_s) >= SILENCE_S:
                return await self._give_up(SILENT, f"the server was silent for {silent_s:.0f} s")

    async def _give_up(self, code: int, reason: str) -> str:
        self._reason = reason
        await self._link.close(code, reason[:100])
        return reason
