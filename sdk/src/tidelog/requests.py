"""Requests of a client: repeated while the server is away, and each read sees every earlier write of the client."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from tidelog.bodies import on_behalf_header
from tidelog.errors import PositionBeyondHead, TidelogConnectionError
from tidelog.large import fill
from tidelog.retries import RetryPolicy
from tidelog.transport import Transport, json_of

M = TypeVar("M", bound=BaseModel)


class Requests:
    """What every part of `Client` asks the server with."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        patience_s: float = 30.0,
        *,
        proxy: str | None = None,
        on_behalf_of: str | None = None,
    ) -> None:
        url = url or os.environ.get("TIDELOG_URL")
        api_key = api_key or os.environ.get("TIDELOG_API_KEY")
        if not url or not api_key:
            raise ValueError("give url and api_key, or set TIDELOG_URL and TIDELOG_API_KEY")
        self._on_behalf_of = on_behalf_header(on_behalf_of)
        self._transport = Transport(url, api_key, proxy=proxy)
        self._retry = RetryPolicy(max_elapsed_s=patience_s)
        self._position = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    @property
    def transport(self) -> Transport:
        return self._transport

    @property
    def retry(self) -> RetryPolicy:
        return self._retry

    async def one(self, model: type[M], path: str) -> M:
        """One thing of the server, by its path."""
        return parse(model, await self._get(path, {}))

    def every(self, model: type[M], path: str, params: Mapping[str, str] | None = None) -> AsyncGenerator[M, None]:
        """Every thing of a list of the server, by its path."""
        return self._all(model, path, params)

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        on_behalf_of: str | None = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Any:
        """Gives a command, and returns the JSON of the answer. `key`: the Idempotency-Key; None: none."""
        said: dict[str, str | bytes] = {**({} if key is None else {"Idempotency-Key": key}), **self._for(on_behalf_of)}
        content = {} if body is None else {"body": dict(body)}
        return json_of(await self._request(method, path, headers={**said, **(headers or {})}, **content))

    def after_writes(self) -> dict[str, str]:
        """The header by which an answer sees every earlier write of this client."""
        return {"Tidelog-Position": str(self._position)} if self._position else {}

    def _for(self, on_behalf_of: str | None) -> dict[str, bytes]:
        """The header of a command that says for whom it is: as the call says, or else the client."""
        return self._on_behalf_of if on_behalf_of is None else on_behalf_header(on_behalf_of)

    async def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        response = await self._transport.request(method, path, retry=self._retry, **options)
        if method != "GET":
            self._position = max(self._position, _position_of(response))
        return response

    async def _get(self, path: str, params: Mapping[str, Any]) -> Any:
        return json_of(await self._read(path, params))

    async def _read(self, path: str, params: Mapping[str, Any]) -> httpx2.Response:
        try:
            return await self._request("GET", path, params=params, headers={"Accept": "application/json", **self.after_writes()})
        except PositionBeyondHead:
            self._position = 0  # the log has lost writes of this client: the next read asks for the log as it is
            raise

    async def _all(self, model: type[M], path: str, params: Mapping[str, str] | None = None) -> AsyncGenerator[M, None]:
        """Every item of a list, page by page."""
        async for item, _ in self._items(path, params):
            yield parse(model, item)

    async def _filled(self, model: type[M], path: str, params: Mapping[str, str], whole: bool) -> list[M]:
        """Every item of a list, with its large values if they are wanted."""
        found = [item async for item, _ in self._items(path, params)]
        if whole:
            await fill([item for item in found if isinstance(item, dict)], self._get)
        return [parse(model, item) for item in found]

    async def _items(self, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[tuple[Any, str | None]]:
        """Every item as it came, with the history of the log in which its page was read, if the server names the history."""
        cursor: str | None = None
        while True:
            response = await self._read(path, {**(params or {}), **({} if cursor is None else {"cursor": cursor})})
            page = json_of(response)
            if not isinstance(page, dict) or not isinstance(page.get("data"), list):
                raise TidelogConnectionError(f"{path}: the answer is no list; is this a Tidelog server?")
            for item in page["data"]:
                yield item, response.headers.get("Tidelog-History")
            cursor = page.get("next_cursor")
            if cursor is None:
                return


def _position_of(response: httpx2.Response) -> int:
    value = response.headers.get("Tidelog-Position", "")
    return int(value) if value.isdecimal() and len(value) <= 18 else 0


def parse(model: type[M], answer: Any) -> M:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise TidelogConnectionError(f"the server's answer is not what this version of the SDK knows: {error}") from error
