"""The client of NATS: secured by TLS that no peer can switch off and by credentials that are sent over TLS only; a client whose
tasks died is noticed.

Files are read anew for each connection, so that a renewed certificate or key is used without a restart.
"""

import asyncio
import base64
import binascii
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_USER_PREFIX = 20 << 3
_SEED_PREFIX = 18 << 3
_CREDS = re.compile(
    r"-+BEGIN NATS USER JWT-+\s+(?P<jwt>\S+)\s+-+END NATS USER JWT-+"
    r".*-+BEGIN USER NKEY SEED-+\s+(?P<seed>\S+)\s+-+END USER NKEY SEED-+",
    re.DOTALL,
)


class CredentialsError(nats.errors.Error):
    """A file of certificates or credentials cannot be used; the message names the file and never shows its content."""


class NoTlsError(nats.errors.Error):
    """TLS is required and the connection has no TLS: nothing was sent."""

    def __init__(self) -> None:
        super().__init__("the server offers no TLS, but TLS is asked for; nothing was sent to it")


@dataclass(frozen=True, slots=True)
class NatsSecurity:
    """TLS and credentials of a connection, beside the URL. At most one of `creds_file`, `nkey_file` and `token`."""

    ca_file: Path | None = None
    """PEM; unset: the authorities that the system trusts."""
    cert_file: Path | None = None
    """PEM, the certificate of this client; with `key_file`: mutual TLS."""
    key_file: Path | None = None
    tls_first: bool = False
    """Begin with TLS before the first message of the server; for servers with `handshake_first`."""
    creds_file: Path | None = None
    nkey_file: Path | None = None
    token: str | None = None

    def asks_for_tls(self, urls: list[str]) -> bool:
        return self.tls_first or bool(self.ca_file or self.cert_file) or any(url.strip().startswith("tls://") for url in urls)

    def context(self) -> ssl.SSLContext:
        """Raises CredentialsError."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise CredentialsError(f"{self.ca_file}: no CA certificates: {error.strerror or error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            try:
                # Without this, OpenSSL would ask for a password on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
            except OSError as error:
                files = f"{self.cert_file} with {self.key_file}"
                raise CredentialsError(
                    f"{files}: no certificate with its key in PEM, no password: {error.strerror or error}"
                ) from None
        return context

    def check(self) -> None:
        """Reads every file like a connection. Raises CredentialsError."""
        if self.ca_file or self.cert_file:
            self.context()
        if self.creds_file is not None:
            jwt_of(self.creds_file)
        if (seed_file := self.creds_file or self.nkey_file) is not None:
            key_of(seed_file)


class _Transport(TcpTransport):
    """A write to a closed connection is an OSError, on every event loop.

    The standard loop drops such a write. uvloop raises RuntimeError, which the library takes for the end of the loop: the error
    comes out of `publish` and `close`, and ends the library's own tasks silently.
    """

    def write(self, payload: bytes) -> None:
        self._must_be_open()
        super().write(payload)  # type: ignore[no-untyped-call]  # the library has no types there

    def writelines(self, payload: list[bytes]) -> None:
        self._must_be_open()
        super().writelines(payload)  # type: ignore[no-untyped-call]

    @property
    def is_open(self) -> bool:
        return self._io_writer is not None and not self._io_writer.is_closing()

    def __bool__(self) -> bool:
        """True: the library would replace a transport that is false by one of its own."""
        return True

    def _must_be_open(self) -> None:
        if not self.is_open:
            raise ConnectionResetError("the connection is closed")


_BLANKS = " \t\n\r\x0b\x0c"
"""What the library strips from names and values of headers."""


class _LivingClient(Client):
    """The library's client, except that it reconnects or closes when one of its tasks has ended.

    The library's tasks end at errors that they do not expect. The library's client then stays connected and reads nothing, or stays
    reconnecting and tries nothing.
    """

    async def _connect_to_server(self, s: Any) -> None:
        if self._transport is None and s.uri.scheme in ("nats", "tls"):
            self._transport = _Transport()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """The same as the library's, in a fraction of its time: the library looks at each character of each name by itself.

        Every message of the log has half a dozen headers, and every reader of the log gets every message.
        """
        found: dict[str, str] = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            key = name.strip(_BLANKS)
            if colon and key.isascii() and key.split() == ([key] if key else []):
                found[key] = value.strip(_BLANKS)
        return found

    async def _send_subscribe(self, sub: Any) -> None:
        """Sends nothing while reconnecting: the reconnect itself sends all present subscriptions.

        A SUB command kept for later would outlive its unsubscribe, which is not kept: the server would send work to nobody.
        """
        if not self.is_reconnecting:
            await super()._send_subscribe(sub)

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected and not _is_cancelled():
            await self._process_op_err(nats.errors.UnexpectedEOF())

    async def _ping_interval(self) -> None:
        try:
            await super()._ping_interval()
        except OSError as error:
            await self._process_op_err(error)

    async def _attempt_reconnect(self) -> None:
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # noqa: BLE001  # reported; the client is closed, and its owner makes another one
            await self._error_cb(error)
        if not (self.is_connected or self.is_closed or _is_cancelled()):
            self._reconnection_task = None  # the present task: `close` would cancel it
            await self.close()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Drops pending data that can no longer be sent.

        The library would write the data to the closed connection, and fail there.
        """
        if isinstance(self._transport, _Transport) and not self._transport.is_open:
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)

    def abandon(self) -> None:
        """Ends the tasks, the subscriptions and the transport that `close` leaves behind when it fails or hangs."""
        self._status = Client.CLOSED
        for task in (self._reconnection_task, self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        for subscription in self._subs.values():
            subscription._stop_processing()
        self._subs.clear()
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]


class SecuredClient(_LivingClient):
    """A client that sends nothing over a connection that should be encrypted and is not. It signs by itself (nkey, JWT).

    Even with TLS asked for, the library obeys a server (or an attacker between) that says that it needs none. The CONNECT command
    is the first command that the library sends, on each connect and reconnect, and holds the credentials: this client makes the
    CONNECT command only when the transport is TLS.
    """

    def __init__(self, security: NatsSecurity, *, require_tls: bool) -> None:
        super().__init__()
        self._security = security
        self._require_tls = require_tls

    def security_options(self) -> dict[str, Any]:
        """The options of `connect` for TLS and credentials."""
        security = self._security
        options: dict[str, Any] = {"tls_handshake_first": security.tls_first, "token": security.token}
        if security.creds_file is not None:
            options |= {"user_jwt_cb": self._jwt, "signature_cb": self._sign}
        elif security.nkey_file is not None:
            options |= {"signature_cb": self._sign}
        return options

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return self._security.context()

    async def connect(self, *args: Any, **options: Any) -> None:
        """Raises CancelledError, connected or not, if the library swallowed a cancellation."""
        await super().connect(*args, **options)
        _raise_what_was_kept_back()

    async def _connect_to_server(self, s: Any) -> None:
        """Closes the connection of the attempt before: the library forgets a connection that was open and then failed.

        An attempt that was cancelled and goes on beside its successor ends here, too.
        """
        _raise_what_was_kept_back()
        self._close_transport()
        await super()._connect_to_server(s)
        try:
            _raise_what_was_kept_back()
        except asyncio.CancelledError:
            self._close_transport()
            raise

    def _close_transport(self) -> None:
        if isinstance(self._transport, TcpTransport):
            self._transport.close()  # type: ignore[no-untyped-call]

    def _connect_command(self) -> bytes:
        if self._require_tls and not self._encrypted():
            raise NoTlsError
        if self._security.nkey_file is not None:
            self._public_nkey = public_nkey(key_of(self._security.nkey_file))
        return super()._connect_command()

    def _encrypted(self) -> bool:
        """Whether the transport itself is TLS, whatever the server says."""
        writer = self._transport._io_writer if isinstance(self._transport, TcpTransport) else None
        return writer is not None and writer.get_extra_info("ssl_object") is not None

    def _jwt(self) -> bytearray:
        assert self._security.creds_file is not None
        return bytearray(jwt_of(self._security.creds_file).encode())

    def _sign(self, nonce: str) -> bytes:
        seed_file = self._security.creds_file or self._security.nkey_file
        assert seed_file is not None
        return base64.b64encode(key_of(seed_file).sign(nonce.encode()))


def _raise_what_was_kept_back() -> None:
    """`asyncio.wait_for` loses a cancellation when its result comes at the same moment (Python before 3.12,
    github.com/python/cpython/issues/86296)."""
    if _is_cancelled():
        raise asyncio.CancelledError


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def jwt_of(creds_file: Path) -> str:
    """The user's JWT in a credentials file. Raises CredentialsError."""
    return _creds(creds_file)["jwt"]


def key_of(file: Path) -> "Ed25519PrivateKey":
    """The key in a credentials file, or in a file that has only a user's nkey seed. Raises CredentialsError.

    A seed is base32 of two bytes of kind, the key's 32 bytes and their CRC-16 (github.com/nats-io/nkeys, strkey.go).
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise CredentialsError(f"{file}: to sign with an nkey, install the extra 'nkeys' (the package cryptography)") from None
    text = _read(file)
    seed = _creds(file)["seed"] if "BEGIN" in text else text.strip()
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    kind = (raw[0] & 0xF8, (raw[0] & 0x07) << 5 | raw[1] >> 3) if len(raw) == 36 else None
    if kind != (_SEED_PREFIX, _USER_PREFIX) or binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise CredentialsError(f"{file}: holds no nkey seed of a user (SU…)")
    return Ed25519PrivateKey.from_private_bytes(raw[2:34])


def public_nkey(key: "Ed25519PrivateKey") -> str:
    """The public key as a server's configuration names it (U…)."""
    raw = bytes([_USER_PREFIX]) + key.public_key().public_bytes_raw()
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _creds(file: Path) -> re.Match[str]:
    match = _CREDS.search(_read(file))
    if match is None:
        raise CredentialsError(f"{file}: is no NATS credentials file (a JWT and an nkey seed)")
    return match


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise CredentialsError(f"{file}: {error.strerror}") from None
    except ValueError:
        raise CredentialsError(f"{file}: is no text file") from None
