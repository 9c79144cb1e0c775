"""JetStream's request API as far as we need it: raw requests, because the client's own calls hide configuration and errors."""

import base64
from dataclasses import dataclass
from typing import Any

import orjson
from nats.aio.msg import Msg

from adapters.nats.connection import REQUEST_TIMEOUT, NatsConnection
from domain.errors import Unavailable

API = "$JS.API"

STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
MESSAGE_NOT_FOUND = 10037
OUT_OF_STEP = frozenset({10060, 10070, 10071, 10164})
"""Not the expected stream, last message id, last sequence: somebody else wrote."""
STORE_REFUSED = 10077
"""A limit of the stream with `discard: new`; which one is only in the description."""


class JetStreamError(Unavailable):
    """JetStream answered with an error. `err_code` is its number in nats-server's errors.json (0: a status without one)."""

    def __init__(self, what: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"JetStream: {what}: {description} ({err_code or code})")
        self.status, self.err_code, self.description = code, err_code, description


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream, as it is stored."""

    sequence: int
    headers: dict[str, str]
    data: bytes


async def call(connection: NatsConnection, subject: str, body: Any = None, *, timeout: float = REQUEST_TIMEOUT) -> dict[str, Any]:
    """One request to the API, `$JS.API.<subject>`. Raises JetStreamError, Unavailable."""
    payload = b"" if body is None else orjson.dumps(body)
    return parse(subject, await connection.request(f"{API}.{subject}", payload, timeout=timeout))


def parse(what: str, message: Msg) -> dict[str, Any]:
    """An API answer or a publish acknowledgement. Raises JetStreamError for an error in it."""
    if message.headers and "Status" in message.headers:
        status = int(message.headers["Status"])
        raise JetStreamError(what, status, 0, message.headers.get("Description", "no responders" if status == 503 else "refused"))
    try:
        answer: dict[str, Any] = orjson.loads(message.data)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"JetStream: {what}: an answer that is not JSON") from error
    if failure := answer.get("error"):
        raise JetStreamError(what, failure.get("code", 0), failure.get("err_code", 0), failure.get("description", ""))
    return answer


async def stream_names(connection: NatsConnection, subject: str) -> list[str]:
    """Names of the streams that listen to a subject."""
    names: list[str] = []
    while True:
        answer = await call(connection, "STREAM.NAMES", {"subject": subject, "offset": len(names)})
        page = answer.get("streams") or []
        names.extend(page)
        if not page or len(names) >= answer.get("total", 0):
            return names


async def stream_info(connection: NatsConnection, stream: str) -> dict[str, Any] | None:
    """None: there is no such stream."""
    try:
        return await call(connection, f"STREAM.INFO.{stream}")
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


async def reconfigure(connection: NatsConnection, actual: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Brings a stream's configuration in line with what is wanted of it; the names of what differed."""
    changed = sorted(key for key, value in wanted.items() if actual.get(key, value) != value)
    if changed:
        await call(connection, f"STREAM.UPDATE.{actual['name']}", actual | wanted)
    return changed


async def delete_stream(connection: NatsConnection, stream: str) -> None:
    try:
        await call(connection, f"STREAM.DELETE.{stream}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise


async def holds_message(connection: NatsConnection, stream: str, subject: str) -> bool:
    """Whether a stream has a message of a subject, which may have wildcards. A stream that does not exist has none."""
    return await next_message(connection, stream, subject) is not None


async def next_message(connection: NatsConnection, stream: str, subject: str, first: int = 1) -> tuple[int, str] | None:
    """The sequence and the subject of a stream's first message from a sequence on. `subject` may have wildcards.

    None: there is no such message, or no such stream.
    """
    try:
        message = (await call(connection, f"STREAM.MSG.GET.{stream}", {"seq": first, "next_by_subj": subject}))["message"]
    except JetStreamError as error:
        if error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
            return None
        raise
    return message["seq"], message["subject"]


async def stored_message(connection: NatsConnection, stream: str, sequence: int) -> StoredMessage | None:
    """By the stream's leader, never by a replica that may be behind. None: there is no such message (any more)."""
    try:
        message = (await call(connection, f"STREAM.MSG.GET.{stream}", {"seq": sequence}))["message"]
    except JetStreamError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return None
        raise
    headers = _parse_headers(base64.b64decode(message.get("hdrs", "")))
    return StoredMessage(message["seq"], headers, base64.b64decode(message.get("data", "")))


def _parse_headers(raw: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in raw.decode().split("\r\n")[1:] if line)
    return {name.strip(): value.strip() for name, _, value in pairs}
