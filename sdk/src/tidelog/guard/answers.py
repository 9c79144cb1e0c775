"""What comes back: read within bounds, and told as the kinds of failures that calls of tools have."""

import json
import ssl
import zlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore2
from pydantic import JsonValue

from tidelog.errors import OutcomeUnknownError, PermanentError, ServiceRateLimitedError, TidelogError, TransientError
from tidelog.texts import cut

SHOWN_HEADERS = frozenset(
    {
        "content-type", "content-language", "content-location", "date", "etag", "last-modified", "cache-control", "expires", "age",
        "link", "location", "retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining",
        "x-ratelimit-reset", "x-request-id", "x-total-count",
    }
)  # fmt: skip
"""Headers of an answer that a tool gets. Cookies are none of them: calls of different runs share no session."""
LONGEST_HEADER = 1024
EXCERPT_BYTES = 500
_CHARSETS = frozenset(
    {
        "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1", "iso-8859-15", "windows-1252", "cp1252", "utf-16",
        "utf-16le", "utf-16be", "shift_jis", "euc-jp", "iso-2022-jp", "gb18030", "gb2312", "gbk", "big5", "euc-kr", "koi8-r",
        "windows-1251", "iso-8859-2", "windows-1250",
    }
)  # fmt: skip


class HttpStatusError(PermanentError):
    """The service refused the request, by its status."""


class ServiceError(TransientError):
    """The service failed, or could not be reached, and the request may be made again."""


class AnswerTooLargeError(PermanentError):
    """The answer is over the bound of its bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: those of `SHOWN_HEADERS`, in lower case. `body`: decoded as its `Content-Encoding` says. `url`: the last one."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def is_json(self) -> bool:
        kind = self._content_type.get_content_type()
        return kind == "application/json" or kind.endswith("+json")

    @property
    def text(self) -> str:
        """Raises PermanentError: it is no text."""
        charset = str(self._content_type.get_param("charset", "utf-8")).strip("\"'").lower()
        try:
            return self.body.decode(charset if charset in _CHARSETS else "utf-8").replace("\0", "\ufffd")
        except UnicodeError:
            raise PermanentError(f"the answer is no text of {charset[:40]}") from None

    @property
    def json(self) -> JsonValue:
        """Raises PermanentError: it is no JSON."""
        try:
            found: JsonValue = json.loads(self.body, parse_constant=_refuse)
        except RecursionError:
            raise PermanentError("the answer is nested too deeply") from None
        except ValueError as error:
            raise PermanentError(f"the answer is no JSON: {error}") from None
        return found

    @property
    def value(self) -> JsonValue:
        """JSON where the answer says so, else its text; None for an empty body."""
        if not self.body:
            return None
        return self.json if self.is_json else self.text

    @property
    def _content_type(self) -> Message:
        message = Message()
        message["content-type"] = self.headers.get("content-type", "text/plain")
        return message


def shown(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that a tool gets, bounded. Of several of one name the last."""
    texts = {name.decode("latin-1").lower(): value.decode("latin-1")[:LONGEST_HEADER] for name, value in headers}
    return {name: value for name, value in texts.items() if name in SHOWN_HEADERS}


async def read(stream: AsyncIterable[bytes], headers: Mapping[bytes, bytes], max_bytes: int) -> bytes:
    """The decoded body. Raises AnswerTooLargeError as soon as it is over the bound, PermanentError for other encodings."""
    length = headers.get(b"content-length", b"")
    too_large = AnswerTooLargeError(f"the answer is over the bound of {max_bytes:,} bytes")
    if length.isdigit() and len(length) < 20 and int(length) > max_bytes:
        raise too_large
    found = bytearray()
    async for chunk in stream:
        found += chunk
        if len(found) > max_bytes:
            raise too_large
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity" or not found:
        return bytes(found)
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise PermanentError("the answer has an encoding that was not asked for")
    inflating = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        plain = inflating.decompress(bytes(found), max_bytes + 1)  # a small answer may be a large one, packed
    except zlib.error:
        raise PermanentError("the answer's Content-Encoding is not what it is packed with") from None
    if len(plain) > max_bytes:
        raise too_large
    if not inflating.eof:
        raise PermanentError("the packed answer has no end")
    return plain


def refusal(answer: Answer, *, repeatable: bool) -> TidelogError | None:
    """The failure that an answer's status means; None: none. `repeatable`: the method promises that twice is once."""
    if answer.status < 400:
        return None
    excerpt = cut(answer.body.decode("utf-8", "replace").replace("\0", "\ufffd"), EXCERPT_BYTES).strip()
    told = f"the service answered {answer.status}" + (f": {excerpt}" if excerpt else "")
    wait_s = retry_after(answer.headers.get("retry-after"))
    if answer.status == 429:
        return ServiceRateLimitedError(told, wait_s)
    if answer.status in (408, 425, 503):  # it was not done
        return ServiceError(told, wait_s)
    if answer.status >= 500 and answer.status not in (501, 505):
        return ServiceError(told, wait_s) if repeatable else OutcomeUnknownError(f"{told}, which does not say what was done")
    return HttpStatusError(told)


def failure(error: Exception, *, sent: bool, repeatable: bool) -> TidelogError:
    """The failure of a request that got no answer. `sent`: something of it had left this machine, or may have."""
    if isinstance(error, TidelogError):
        return error
    reason = _reason(error)
    if isinstance(error, httpcore2.LocalProtocolError | httpcore2.UnsupportedProtocol):
        return PermanentError(f"the request cannot be sent: {reason}")
    if _is_about_a_certificate(error):
        return PermanentError(f"the service cannot be trusted: {reason}")
    if not sent:
        return ServiceError(f"the service cannot be reached, and nothing was sent: {reason}")
    told = f"the request was sent, and the answer did not come: {reason}"
    return ServiceError(told) if repeatable else OutcomeUnknownError(f"{told}. Whether it took effect is not known")


def retry_after(text: str | None) -> float | None:
    """Seconds of a `Retry-After` header: a number, or a date (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _reason(error: BaseException) -> str:
    """Without the URL, which may hold what the caller keeps to himself."""
    return cut(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, EXCERPT_BYTES)


def _is_about_a_certificate(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
