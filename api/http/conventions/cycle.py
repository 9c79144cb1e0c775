"""One request and its answer: uvicorn's, which also takes a complete answer as one message.

An answer of ASGI comes as two messages, of which each passes through every layer, and uvicorn looks at each header by itself.
"""

from starlette.responses import Response
from starlette.types import Message, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

COMPLETE = "tidelog.response.complete"
"""The message: `status`, `headers` with the length of the content, `body`. The scope names this extension of ASGI by this name."""
STARTS = frozenset({"http.response.start", COMPLETE})
"""Messages that begin an answer, and have its status and headers."""
EXTENSIONS: dict[str, dict[object, object]] = {COMPLETE: {}}
WITHOUT_CONTENT = (204, 304)


async def send_complete(response: Response, scope: Scope, send: Send) -> bool:
    """Sends the answer as one message, if the server takes one, and if the answer is one piece with content."""
    if type(response) is not Response or response.background is not None or response.status_code in WITHOUT_CONTENT:
        return False
    if COMPLETE not in scope.get("extensions", ()):
        return False
    await send({"type": COMPLETE, "status": response.status_code, "headers": response.raw_headers, "body": response.body})
    return True


class RequestCycle(RequestResponseCycle):
    async def send(self, message: Message) -> None:  # type: ignore[override]
        if message["type"] != COMPLETE:
            await super().send(message)  # type: ignore[arg-type]
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("a complete answer follows the beginning of an answer")
        self.response_started, self.waiting_for_100_continue = True, False
        self.transport.write(self._head(message["status"], message["headers"]) + message["body"])
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Raises RuntimeError for a header that would become two lines."""
        given = [*self.default_headers, *headers]
        lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in given]]
        if (b"connection", b"close") in given:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
            raise RuntimeError("a header of an answer has a line break or a NUL character")
        return head
