"""One WebSocket to the server, from the opening handshake to the close."""

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from socket import gaierror
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import quote

from httpx2 import Proxy
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, ProxyError
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol

from tidelog.errors import ProxySettingError, TidelogAPIError, TidelogConnectionError, api_error
from tidelog.http_client import proxy_to, server_of, trusting
from tidelog.session.frames import MAX_MESSAGE_BYTES, SUBPROTOCOL

CONNECT_S = 5.0
CLOSE_S = 1.0
PATH = "/v1/workers/session"

_logger = logging.getLogger("tidelog.session.link")
_logger.setLevel(logging.WARNING)
"""For the library, whose debug lines show the headers of the handshake, and so the key."""


class LinkError(Exception):
    """The connection could not be made, or is lost. A later attempt may succeed. `reached`: whether anybody was there."""

    def __init__(self, reason: str, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Target:
    """Where the session leads, with which key, through which proxy, and whom it trusts."""

    url: str
    key: str
    proxy: str | None
    ssl: SSLContext | None

    @classmethod
    def of(cls, url: str, key: str, proxy: str | None = None) -> Self:
        """The target for a server's URL; see `Client` for proxies.

        Raises:
            TidelogConnectionError: the URL, the key or the proxy cannot be used.
        """
        server = server_of(url)
        if not key.isascii() or not key.isprintable() or not key or server.userinfo or server.query or server.fragment:
            raise TidelogConnectionError("the API key has characters that no key has, or the URL has more than host and path")
        path = server.path.rstrip("/") + PATH
        secure = server.scheme == "https"
        there = f"{'wss' if secure else 'ws'}://{server.netloc.decode('ascii')}{path}"
        return cls(there, key, _address(proxy_to(server, proxy)), trusting(server) if secure else None)


def _address(proxy: Proxy | None) -> str | None:
    """Raises ProxySettingError."""
    if proxy is None:
        return None
    if proxy.url.scheme.startswith("socks") and find_spec("python_socks") is None:
        raise ProxySettingError("proxy", "a SOCKS proxy needs the package python-socks, which is not installed")
    user = "".join(f"{quote(part, safe='')}:" for part in proxy.raw_auth or ()).removesuffix(":")
    return f"{proxy.url.scheme}://{user + '@' if user else ''}{proxy.url.netloc.decode('ascii')}"


class _Direct(connect):
    """Follows no redirect: the key is for the server that the user has named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Socket(ClientConnection):
    """Gives a message in one frame to `take`, in the callback of the socket. What `take` does not want waits for `recv`."""

    take: Callable[[bytes], bool] | None = None

    def process_event(self, event: Event) -> None:
        if (
            self.take is not None
            and isinstance(event, Frame)
            and event.opcode is Opcode.TEXT
            and event.fin
            and not self.recv_messages.frames
            and self.take(bytes(event.data))
        ):
            return
        super().process_event(event)


class Link:
    """An open WebSocket whose server speaks the protocol."""

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Connects within `CONNECT_S` seconds.

        Raises:
            LinkError: no connection, or the other side is no Tidelog server.
            TidelogAPIError: the server refused.
        """
        try:
            socket = await _Direct(
                target.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers={"Authorization": f"Bearer {target.key}"},
                user_agent_header="tidelog-python/0.1",
                compression=None,
                proxy=target.proxy,
                ssl=target.ssl,
                open_timeout=CONNECT_S,
                ping_interval=None,
                close_timeout=CLOSE_S,
                max_size=MAX_MESSAGE_BYTES + 2,
                logger=_logger,
                create_connection=_Socket,
            )
        except InvalidStatus as error:
            raise _refusal(error.response) from error
        except ProxyError as error:
            raise LinkError(f"the proxy of the environment does not lead to the server ({type(error).__name__})") from error
        except (InvalidHandshake, InvalidURI, OSError, EOFError) as error:
            nobody = isinstance(error, ConnectionRefusedError | gaierror) or type(error) is OSError  # the latter: no way there
            raise LinkError(f"no connection to the server ({type(error).__name__}: {error})", reached=not nobody) from error
        assert isinstance(socket, _Socket)
        link = cls(socket)
        if socket.subprotocol != SUBPROTOCOL:
            link.abort()
            raise LinkError(f"the server does not speak {SUBPROTOCOL}")
        return link

    async def send(self, frame: bytes) -> None:
        """Returns when the socket has taken the frame. Raises LinkError."""
        try:
            await self._socket.send(frame, text=True)
        except ConnectionClosed as error:
            raise self._lost(error) from error

    @property
    def writable(self) -> bool:
        """Whether `write` may be called: the socket is open, and the other side reads fast enough."""
        socket = self._socket
        return socket.protocol.state is State.OPEN and not socket.paused and not socket.transport.is_closing()

    def write(self, frame: bytes) -> None:
        """Sends a frame at once."""
        self._socket.protocol.send_text(frame)
        self._socket.send_data()

    def on_frame(self, take: Callable[[bytes], bool]) -> None:
        """`take` gets each frame in the moment in which it comes. Where it returns False, the frame waits for `receive`."""
        self._socket.take = take

    async def receive(self) -> bytes:
        """The next frame. Raises LinkError when the connection is closed."""
        try:
            return await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise self._lost(error) from error

    @property
    def code(self) -> int | None:
        """The code with which the connection was closed; None while it is open."""
        return self._socket.close_code

    async def close(self, code: int, reason: str = "") -> None:
        """Closes within `CLOSE_S` seconds or so, also when the other side does not answer."""
        await self._socket.close(code, reason)

    def abort(self) -> None:
        self._socket.transport.abort()

    @staticmethod
    def _lost(error: ConnectionClosed) -> LinkError:
        close = error.rcvd
        if close is None:
            cause = error.__cause__
            return LinkError("the connection broke" if cause is None else f"the connection broke ({type(cause).__name__}: {cause})")
        return LinkError(f"the server closed the connection ({close.code}{f': {close.reason}' if close.reason else ''})")


def _refusal(response: Response) -> TidelogAPIError:
    problem: Any = {}
    with contextlib.suppress(ValueError, RecursionError):  # a page of a proxy
        problem = json.loads(response.body or b"{}")
    given = problem if isinstance(problem, dict) else {}
    error = api_error(response.status_code, {"title": response.reason_phrase, **given})
    after = response.headers.get("Retry-After", "")
    error.retry_after_s = float(after) if after.isdecimal() else None
    return error
