"""A connection to NATS that is kept: watched by real requests, and built anew when the client is beyond help."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.nats.names import INBOX
from adapters.nats.security import CredentialsError, NatsSecurity, NoTlsError, SecuredClient
from application.engine.background import Background
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT = 5.0
"""Seconds that one request may take, unless a caller says otherwise."""

_CONNECT_TIMEOUT = 2
_PING_INTERVAL = 10
_PENDING_BYTES = 16 * 1024 * 1024
_WATCH_INTERVAL = 5.0
_WATCH_TIMEOUT = 3.0
_GIVE_UP_AFTER = 20.0
"""Seconds without a connection after which the client itself is replaced: some errors end its reconnecting without a word."""


class NoResponders(Unavailable):
    """Nobody listens to the subject: no such stream, or JetStream is not up."""


class NatsRefused(Unavailable):
    """NATS is there, but a connection is refused, by it or by us: its certificate, ours, no TLS, credentials. A person has to act.

    It is tried again, because what is wrong may be mended on the other side.
    """


class NatsConnection:
    """One connection, shared by all users in a process.

    `start` returns at once. While there is no connection, `client` and requests raise Unavailable. Subscriptions belong to a
    `client` and may die with it: users watch `on_loss` and subscribe anew.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        security: NatsSecurity | None = None,
        inbox_prefix: str = "_INBOX",
        reconnect_wait_s: float = 0.5,
    ) -> None:
        """`url`: one server, or several of a cluster with commas between. `name` is seen in the server's monitoring.

        With a `tls://` URL, or certificates in `security`, a connection without encryption is refused before anything is sent.
        """
        servers = url.split(",")
        self._options: dict[str, Any] = {
            "servers": servers,
            "name": name,
            "connect_timeout": _CONNECT_TIMEOUT,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": reconnect_wait_s * random.uniform(0.7, 1.3),  # clients must not come back in step
            "ping_interval": _PING_INTERVAL,
            "max_outstanding_pings": 2,
            "pending_size": _PENDING_BYTES,
            "flush_timeout": REQUEST_TIMEOUT,
            "inbox_prefix": inbox_prefix,
        }
        self._name = name
        self._reconnect_wait = reconnect_wait_s
        self._security = security or NatsSecurity()
        self._require_tls = self._security.asks_for_tls(servers)
        self._client: SecuredClient | None = None
        self._newest = 0
        """Number of the newest client. A client that takes long to close tells of its end after the next one has connected."""
        self._keeper = Background(f"nats-connection-{name}", self._keep)
        self.failed = self._keeper.failed
        """Raises when nobody keeps the connection any more, before `close`."""
        self._connected = asyncio.Event()
        self._closed = asyncio.Event()
        """The present client is closed for good."""
        self._last_error = ""
        self._refused = False
        """Whether the last error will come again until a person acts."""
        self._lost: asyncio.Future[Any] | None = None
        self._listeners: set[Callable[[], None]] = set()

    async def start(self) -> None:
        """Begins to connect, and goes on for ever; the server need not be there yet."""
        self._keeper.start()

    async def close(self, *, timeout: float = 5.0) -> None:
        await self._keeper.close()
        await self._discard(timeout)

    async def ready(self, timeout: float) -> None:
        """Waits until connected. Raises Unavailable."""
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            raise self._away(f"after {timeout:g} s") from None

    @property
    def client(self) -> Client:
        """Raises Unavailable while not connected."""
        if self._client is None or not self._client.is_connected:
            raise self._away()
        return self._client

    def _away(self, since: str = "") -> Unavailable:
        told = " ".join(part for part in ("NATS is not connected", since) if part)
        if self._refused:
            return NatsRefused(f"{told}: {self._last_error}")
        return Unavailable(f"{told}: {self._last_error}" if self._last_error else told)

    @contextlib.contextmanager
    def on_loss(self, listener: Callable[[], None]) -> Iterator[None]:
        """Within it, `listener` is called whenever the connection was lost: what was under way may never be answered."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    async def request(
        self, subject: str, payload: bytes = b"", *, headers: dict[str, str] | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> Msg:
        """Raises NoResponders; Unavailable: no connection, no answer in time."""
        lost = self._lost = self._lost or asyncio.get_running_loop().create_future()
        asking: asyncio.Future[Any] = asyncio.ensure_future(self.client.request(subject, payload, timeout=timeout, headers=headers))
        asking.add_done_callback(_take_result)
        try:
            # A request that was under way when the connection broke gets no answer: waiting for its time-out would be in vain.
            await asyncio.wait({asking, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
        if not asking.done() or asking.cancelled():
            raise Unavailable(f"NATS: {subject}: the connection was lost")
        with unavailable(subject):
            answer: Msg = asking.result()
        return answer

    async def check_health(self, *, timeout: float = 2.0) -> None:
        """A real round trip that JetStream must answer. Raises Unavailable."""
        await self.request("$JS.API.INFO", timeout=timeout)

    async def _keep(self) -> None:
        while True:
            try:
                if self._client is None:
                    await self._connect()
                await self._watch()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("nats_connection_failed", connection=self._name, error=self._last_error or _describe(error))
            except Exception:  # a defect of the client, or a URL that makes no sense: to be seen, not to be died of
                log.exception("nats_connection_broken", connection=self._name)
            await self._discard(_CONNECT_TIMEOUT)
            await asyncio.sleep(self._reconnect_wait * random.uniform(0.5, 1.5))

    async def _connect(self) -> None:
        client = SecuredClient(self._security, require_tls=self._require_tls)
        number = self._newest = self._newest + 1
        self._closed.clear()
        try:
            async with asyncio.timeout(_GIVE_UP_AFTER):
                await client.connect(
                    error_cb=partial(self._on_error, number),
                    disconnected_cb=partial(self._on_disconnected, number),
                    reconnected_cb=partial(self._on_reconnected, number),
                    closed_cb=partial(self._on_closed, number),
                    **self._options,
                    **client.security_options(),
                )
        except BaseException:
            self._client = client  # half open: `_discard` closes it
            raise
        self._client = client
        self._last_error, self._refused = "", False
        self._connected.set()
        version = client.connected_server_version
        log.info("nats_connected", connection=self._name, server=f"{version.major}.{version.minor}.{version.patch}")

    async def _watch(self) -> None:
        """Returns when the client must be replaced. The client's own state is no proof: the server may be frozen, or cut off."""
        loop = asyncio.get_running_loop()
        alive_at, failures = loop.time(), 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_INTERVAL):
                    await self._closed.wait()
            client = self._client
            if client is None or client.is_closed:
                log.warning("nats_client_closed", connection=self._name)
                return
            if client.is_connected:
                try:
                    await client.request("$JS.API.INFO", b"", timeout=_WATCH_TIMEOUT)
                except nats.errors.NoRespondersError:
                    pass  # an answer: the connection works, JetStream is not up yet
                except (nats.errors.Error, OSError) as error:
                    failures += 1
                    log.warning("nats_does_not_answer", connection=self._name, failures=failures, error=_describe(error))
                    if failures < 2:
                        continue
                    return
                alive_at, failures = loop.time(), 0
            elif loop.time() - alive_at > _GIVE_UP_AFTER:
                log.warning("nats_client_replaced", connection=self._name, error=_describe(client.last_error))
                return

    async def _discard(self, timeout: float) -> None:
        client, self._client = self._client, None
        self._connected.clear()
        if client is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await client.close()
        except Exception as error:  # noqa: BLE001  # told below; whatever keeps this client from closing, the next one is made
            log.warning("nats_close_failed", connection=self._name, error=_describe(error))
            client.abandon()
        self._tell_loss()

    def _tell_loss(self) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost.set_result(None)
        for listener in list(self._listeners):
            listener()

    async def _on_error(self, number: int, error: Exception) -> None:
        if number != self._newest:
            return
        text = _describe(error)
        repeated, self._last_error = text == self._last_error, text  # of every try to reconnect comes the same
        self._refused = _is_refusal(error)
        tell = log.debug if repeated else log.error if self._refused else log.warning
        tell("nats_refused" if self._refused else "nats_error", connection=self._name, error=text)

    async def _on_disconnected(self, number: int) -> None:
        if number != self._newest:
            return
        ours = self._client is None  # `_discard` closes it
        (log.debug if ours else log.warning)("nats_disconnected", connection=self._name)
        self._connected.clear()
        self._tell_loss()

    async def _on_reconnected(self, number: int) -> None:
        if number != self._newest:
            return
        log.info("nats_reconnected", connection=self._name)
        self._last_error, self._refused = "", False
        self._connected.set()

    async def _on_closed(self, number: int) -> None:
        log.debug("nats_closed", connection=self._name)
        if number == self._newest:
            self._closed.set()


async def probe(url: str, *, security: NatsSecurity, timeout: float) -> None:
    """Connects once, without a log, and asks JetStream. Raises NatsRefused, NoResponders (no JetStream), Unavailable."""
    servers = url.split(",")
    client = SecuredClient(security, require_tls=security.asks_for_tls(servers))
    errors: list[Exception] = []

    async def keep(error: Exception) -> None:
        errors.append(error)

    options: dict[str, Any] = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.05}
    options |= {"name": "tidelog-probe", "inbox_prefix": INBOX}
    options |= {"connect_timeout": _CONNECT_TIMEOUT, "error_cb": keep, **client.security_options()}
    try:
        async with asyncio.timeout(timeout):
            await client.connect(servers, **options)
            with unavailable("JetStream"):
                await client.request("$JS.API.INFO", timeout=timeout)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        told = errors[-1] if errors else error
        places = ", ".join(
            urlsplit(server if "://" in server else f"nats://{server}").netloc.rpartition("@")[2] for server in servers
        )
        raise (NatsRefused if _is_refusal(told) else Unavailable)(f"NATS is not connected: {places}: {_describe(told)}") from error
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(1):
                await client.close()


@contextlib.contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Around every use of the client: what leaves it is Unavailable."""
    try:
        yield
    except nats.errors.NoRespondersError as error:
        raise NoResponders(f"NATS: {what}: nobody listens") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS: {what}: {_describe(error)}") from error


def _describe(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    return str(error) or type(error).__name__


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return False  # the connection ended, encrypted or not
    if isinstance(error, ssl.SSLError | NoTlsError | CredentialsError | nats.errors.AuthorizationError):
        return True
    return isinstance(error, nats.errors.Error) and "authorization violation" in str(error).lower()


def _take_result(task: asyncio.Future[Any]) -> None:
    """So that asyncio does not complain of an error that came after nobody waited any more."""
    if not task.cancelled():
        task.exception()
