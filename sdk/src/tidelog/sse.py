"""Server-sent events (WHATWG HTML, 9.2.6), parsed from bytes as they come."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""No event of the log is nearly that large: a longer one does not come from an event stream of Tidelog."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """`event`: its name, "message" if the server gave none. `id`: the last id seen on the stream so far, may be empty."""

    event: str
    data: str
    id: str


class SseParser:
    """A parser: feed chunks, take complete events. Lines end with LF, CRLF or CR; chunks may cut a line anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._id = ""
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that are complete now.

        An event without its closing blank line is incomplete, and is dropped with the parser.
        """
        self._rest += chunk
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise ValueError("a server-sent event without an end")
        while (line := self._next_line()) is not None:
            event = self._take(line.decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _next_line(self) -> bytes | None:
        # Not splitlines(): a line separator inside JSON text (U+2028) ends no line here.
        ends = [at for at in (self._rest.find(b"\n"), self._rest.find(b"\r")) if at >= 0]
        if not ends:
            return None
        end = min(ends)
        if self._rest[end : end + 1] == b"\r":
            if end + 1 == len(self._rest):
                return None  # a LF may follow with the next chunk
            after = end + (2 if self._rest[end + 1 : end + 2] == b"\n" else 1)
        else:
            after = end + 1
        line, self._rest = self._rest[:end], self._rest[after:]
        return line

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            event = ServerSentEvent(self._event or "message", "\n".join(self._data), self._id)
            complete = bool(self._data or self._event)
            self._event, self._data, self._size = "", [], 0
            return event if complete else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._size += len(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None


async def parse_sse(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """The events of a body."""
    parser = SseParser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
