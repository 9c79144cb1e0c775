"""Calls for positions over core NATS: no stream, so nothing is stored, and a message may be lost.

A question is a JSON object, consumer → [lowest, highest position that is waited for]. Its reply subject names the process that
asks. An answer there is a JSON object, consumer → position.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import TypeAdapter, ValidationError

from adapters.nats import names
from adapters.nats.connection import REQUEST_TIMEOUT, NatsConnection, unavailable
from application.engine.ports.positions import Asked, Told
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

NO_RESPONDERS = "503"
"""The status with which the server itself answers a question that nobody listens to."""
_PAUSE_S = 0.1
_QUESTION = TypeAdapter(dict[str, Asked])
_ANSWER = TypeAdapter(dict[str, int])


class NatsPositionCalls:
    """Implements the port `PositionCalls`."""

    def __init__(self, connection: NatsConnection, log_id: str) -> None:
        self._connection = connection
        self._subject = names.position_calls(names.checked(log_id))
        self._client: Client | None = None
        """The client that listens for answers."""
        self._inbox = ""
        self._told: Told | None = None

    async def ask(self, wanted: Mapping[str, Asked], told: Told) -> None:
        client, self._told = self._connection.client, told
        with unavailable("ask for positions"):
            if client is not self._client:
                self._inbox = client.new_inbox()
                await client.subscribe(self._inbox, cb=self._on_answer)
                self._client = client
            await client.publish(self._subject, orjson.dumps({name: [*one] for name, one in wanted.items()}), reply=self._inbox)

    async def _on_answer(self, message: Msg) -> None:
        reached: dict[str, int] = {}
        if not (message.headers and message.headers.get("Status") == NO_RESPONDERS):
            try:
                reached = _ANSWER.validate_json(message.data)
            except ValidationError as error:
                log.warning("position_answer_unreadable", error=str(error))
                return
        if self._told is not None:
            await self._told(reached)

    async def answer(self, heard: Callable[[str, Mapping[str, Asked]], Awaitable[None]]) -> NoReturn:
        async def on_question(message: Msg) -> None:
            try:
                wanted = _QUESTION.validate_json(message.data)
            except ValidationError as error:
                log.warning("position_question_unreadable", error=str(error))
                return
            await heard(message.reply, wanted)

        while True:
            lost = asyncio.Event()
            with self._connection.on_loss(lost.set), contextlib.suppress(Unavailable):
                await self._connection.ready(REQUEST_TIMEOUT)
                with unavailable("listen for questions about positions"):
                    subscription = await self._connection.client.subscribe(self._subject, cb=on_question)
                try:
                    await lost.wait()
                finally:
                    with contextlib.suppress(Unavailable), unavailable("leave"):
                        await subscription.unsubscribe()
            await asyncio.sleep(_PAUSE_S)

    async def tell(self, process: str, reached: Mapping[str, int]) -> None:
        client = self._connection.client
        with unavailable("tell positions"):
            await client.publish(process, orjson.dumps(reached))
