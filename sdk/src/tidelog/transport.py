"""HTTP to the server: one connection pool, typed errors, bounded retries with full jitter."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx2

from tidelog.causes import cause_headers
from tidelog.errors import ConflictError, NotJsonError, TidelogAPIError, TidelogConnectionError, api_error
from tidelog.http_client import http_client
from tidelog.retries import NO_RETRY, RetryPolicy
from tidelog.values import encode

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
POOL_TIMEOUT_S = 30.0


class Transport:
    """Requests to one server with one API key. Use as an async context manager, or call `close`.

    `proxy`: as of `Client`. Raises `TidelogConnectionError` if the URL or the proxy cannot be used.
    """

    def __init__(self, url: str, api_key: str, max_connections: int = 100, proxy: str | None = None) -> None:
        self._http = http_client(
            url,
            proxy=proxy,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "tidelog-python/0.1"},
            limits=httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        retry: RetryPolicy = NO_RETRY,
        read_timeout_s: float = 30.0,
    ) -> httpx2.Response:
        """Send; repeat on connection errors, 429, 503 and every answer that the server calls retryable, as long as `retry` allows.

        Raises:
            NotJsonError: the body is not JSON data, or a parameter or header is not valid text; nothing was sent.
            TidelogAPIError: the server refused.
            TidelogConnectionError: the server could not be reached, or gave no valid answer.
        """
        caused = {} if method == "GET" else cause_headers()
        content, sent = _encoded(body, f"{method} {path}", {**(headers or {}), **caused})
        return await self._repeated(method, path, lambda: content, params, sent, retry, read_timeout_s)

    async def send(
        self,
        method: str,
        path: str,
        content: Callable[[], AsyncIterable[bytes]],
        *,
        headers: Mapping[str, str],
        retry: RetryPolicy,
        read_timeout_s: float,
    ) -> httpx2.Response:
        """Sends a content in pieces, which `content` begins anew for each try. Raises as `request`."""
        return await self._repeated(method, path, content, None, headers, retry, read_timeout_s)

    async def download(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], retry: RetryPolicy, read_timeout_s: float
    ) -> httpx2.Response:
        """An open GET whose body is read piece by piece, and which the caller closes. Raises as `request`."""
        return await self._repeated("GET", path, lambda: None, params, headers, retry, read_timeout_s, stream=True)

    async def _repeated(
        self,
        method: str,
        path: str,
        content: Callable[[], bytes | AsyncIterable[bytes] | None],
        params: Mapping[str, Any] | None,
        headers: Any,
        retry: RetryPolicy,
        read_timeout_s: float,
        stream: bool = False,
    ) -> httpx2.Response:
        timeout = httpx2.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=POOL_TIMEOUT_S)
        started = time.monotonic()
        failures = 0
        while True:
            failure: TidelogAPIError | TidelogConnectionError
            try:
                request = self._http.build_request(method, path, content=content(), params=params, headers=headers, timeout=timeout)
                response = await self._http.send(request, stream=stream)
                if response.is_success:
                    return response
                if stream:
                    await response.aread()
                    await response.aclose()
                failure = error_of(response, response.content)
            except UnicodeError as error:
                raise NotJsonError(f"{method} {path}: a parameter or header is not valid text: {error}") from error
            except httpx2.InvalidURL as error:
                raise TidelogConnectionError(f"the server's URL cannot be used: {error}") from error
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                failure = TidelogConnectionError(f"{method} {path}: no answer from the server ({type(error).__name__}: {error})")
                failure.__cause__ = error
            delay_s = self._delay_s(failure, failures, retry)
            if delay_s is None or time.monotonic() - started + delay_s > retry.max_elapsed_s:
                raise failure
            failures += 1
            logger.debug("request_repeated path=%s failures=%d delay_s=%.2f reason=%s", path, failures, delay_s, failure)
            await asyncio.sleep(delay_s)

    def stream(self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], read_timeout_s: float) -> Any:
        """An open GET whose body is read piece by piece, as an async context manager that gives an `httpx2.Response`."""
        timeout = httpx2.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=POOL_TIMEOUT_S)
        return self._http.stream("GET", path, params=params, headers=headers, timeout=timeout)

    @staticmethod
    def _delay_s(failure: TidelogAPIError | TidelogConnectionError, failures: int, retry: RetryPolicy) -> float | None:
        """Seconds until the next attempt; None if a retry cannot help."""
        if isinstance(failure, TidelogAPIError):
            if not failure.retryable or (isinstance(failure, ConflictError) and not retry.conflicts):
                return None
            return max(failure.retry_after_s or 0.0, retry.delay_s(failures))
        return retry.delay_s(failures)


async def pieces_of_answer(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body of an open answer. Raises `TidelogConnectionError` if it ends in the middle."""
    try:
        async for piece in response.aiter_raw():
            yield piece
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise TidelogConnectionError(f"{response.request.url.path}: the content ended in the middle ({error})") from error


def _encoded(body: Any, what: str, headers: Mapping[str, str | bytes] | None) -> tuple[bytes | None, Any]:
    """Content and headers as the HTTP client takes them."""
    if body is None:
        return None, dict(headers or {})
    try:
        return encode(body), {**(headers or {}), "Content-Type": "application/json"}
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJsonError(f"{what}: the body cannot be written as JSON: {error}") from error


def error_of(response: httpx2.Response, content: bytes) -> TidelogAPIError:
    """The typed error for an answer that is no success."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    error = api_error(response.status_code, {"title": response.reason_phrase, **problem})
    error.retry_after_s = _retry_after_s(response.headers.get("Retry-After"))
    return error


def json_of(response: httpx2.Response) -> Any:
    """The JSON body of a success. Raises `TidelogConnectionError` if the body is no JSON (another program answers on that port)."""
    try:
        return response.json()
    except ValueError as error:
        raise TidelogConnectionError(f"{response.request.url}: the answer is not JSON; is this a Tidelog server?") from error
    except RecursionError as error:
        raise TidelogConnectionError(f"{response.request.url}: the answer is nested too deeply to be read") from error


def _retry_after_s(value: str | None) -> float | None:
    """Retry-After is a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
