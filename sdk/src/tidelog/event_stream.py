"""One connection of an event stream, and what comes over it."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import httpx2
from pydantic import ValidationError

from tidelog.errors import HistoryReplaced, TidelogConnectionError, UnreadableEventError
from tidelog.models import Event
from tidelog.sse import ServerSentEvent, parse_sse
from tidelog.transport import Transport, error_of
from tidelog.values import read_model

HEARTBEAT_TIMEOUT_S = 45.0
"""The server sends an event or a heartbeat every 10 s; silence for four such periods means that the connection is dead."""


class Contact:
    """The time of the last sign of life of the server, heartbeats included."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def seconds_ago(self) -> float:
        return time.monotonic() - self._at

    async def noted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._at = time.monotonic()
            yield chunk


def replaced(item: ServerSentEvent) -> HistoryReplaced:
    """The error for the last event of a stream whose history has ended."""
    try:
        said = json.loads(item.data)
        common, reason = int(said["last_common_position"]), str(said["reason"])
        detail = f"{reason}: drop what you have after position {common}, and go on from there"
        return HistoryReplaced(str(said["history"]), common, item.id, detail)
    except (ValueError, KeyError, TypeError) as error:
        raise TidelogConnectionError(f"the stream's `reset` is not what this version of the SDK knows: {error}") from error


async def stream(
    transport: Transport, path: str, params: Mapping[str, str], after: str, contact: "Contact"
) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of one connection. Ends with `TidelogConnectionError`, also when the server closes the connection: a
    stream has an end mark of its own."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": after}
    try:
        async with transport.stream(
            path, params={**params, "after": after}, headers=headers, read_timeout_s=HEARTBEAT_TIMEOUT_S
        ) as response:
            if not response.is_success:
                raise error_of(response, await response.aread())
            if response.status_code == httpx2.codes.NO_CONTENT:  # the run has ended, and there is no event after the cursor
                yield ServerSentEvent("end", "{}", after)
                return
            async for item in parse_sse(contact.noted(response.aiter_bytes())):
                yield item
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise TidelogConnectionError(f"{path}: the event stream broke ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise UnreadableEventError("", "", str(error)) from error
    raise TidelogConnectionError(f"{path}: the server closed the event stream")


def streamed(item: ServerSentEvent) -> Event:
    """The event of a stream's item. Raises UnreadableEventError."""
    try:
        return read_model(Event, item.data)
    except ValueError as error:
        raise UnreadableEventError(item.id, item.event, str(error)) from error


def event_of(item: Any) -> Event:
    """The event of an entry of a page. Raises UnreadableEventError."""
    try:
        return Event.model_validate(item)
    except ValidationError as error:
        known = item if isinstance(item, dict) else {}
        raise UnreadableEventError(str(known.get("position", "")), str(known.get("type", "")), str(error)) from error
