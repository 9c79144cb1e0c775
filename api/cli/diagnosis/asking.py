"""Requests of the doctor to a server. A refused key is one finding, and is not used again."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from api.cli.diagnosis.findings import Diagnosis
from api.settings import Settings
from api.supervisor import state
from api.supervisor.errors import SupervisorError

if TYPE_CHECKING:
    import httpx2

ANSWER_TIMEOUT_S = 15.0


class Asking:
    """A server and, if there is one, the key for it. Raises TidelogConnectionError if the URL or a proxy cannot be used."""

    def __init__(self, found: Diagnosis, settings: Settings, url: str) -> None:
        self.url = url
        self._found = found
        self._key = _key(settings, url)
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        from tidelog.http_client import http_client

        self._client = http_client(self.url, timeout_s=ANSWER_TIMEOUT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def ready(self) -> dict[str, Any]:
        """The readiness report. With a key it names hosts and processes, too. Raises httpx2.HTTPError, ValueError."""
        assert self._client is not None
        report: dict[str, Any] = (await self._client.get("/health/ready", headers=self._headers())).json()
        return report

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any | None:
        """The JSON answer of a route that needs a key.

        None: there is no key, the key is refused, or the server has no such thing. Raises httpx2.HTTPError, ValueError.
        """
        assert self._client is not None
        if self._key is None:
            return None
        response = await self._client.get(path, params=dict(params or {}), headers=self._headers())
        if response.status_code == 401:
            self._found.add(
                "API key", "wrong", "the server does not accept it", "TIDELOG_API_KEY may be of another server: unset it"
            )
            self._key = None
        return response.json() if response.status_code == 200 else None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key is not None else {}


def _key(settings: Settings, url: str) -> str | None:
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    from tidelog.http_client import on_this_machine

    try:
        return state.read_key(settings.data_dir) if on_this_machine(url) else None
    except SupervisorError:  # the examination of the data folder reports it
        return None
