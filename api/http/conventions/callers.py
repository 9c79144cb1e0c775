"""Who asks: by an API key in a header, or by the cookie of a browser that was signed in.

A key in a header goes before a cookie: a page that tries a key is asked for by that key.
"""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Scope

from api.http.conventions.keys import Keys
from api.http.conventions.request import Principal

SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing: a request with one of them need not say from which site it comes."""


class Callers:
    """Admits requests and WebSockets. One for each process."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    async def admit(self, scope: Scope) -> Principal:
        """The principal of a request or of a WebSocket, by its key in a header or by its cookie. For entrances that take both.

        `scope["state"]["headers"]` is the gate's table of headers, none of which is given twice (`middleware.must_be_single`). Sets
        `principal`, and what `hold` needs, in `scope["state"]`. By cookie, everything but GET and HEAD must come from a page of
        this very site, and so must each WebSocket, which sites may open across. Raises Unauthenticated, Forbidden, Unavailable.
        """
        state: dict[str, Any] = scope["state"]
        headers: Mapping[bytes, bytes] = state["headers"]
        state["principal"], state["key"] = found = await self.keys.principal(headers)
        return found[0]

    def hold(self, scope: Scope, at_end: Callable[[], None]) -> Callable[[], None]:
        """Calls a function once an admitted caller is not admitted any more: its key has ended, or it was signed out. For streams
        and sockets, which go on after they were admitted. Returns the function that ends this. See `Keys.hold`.
        """
        return self.keys.hold(scope["state"]["key"], at_end)

    async def close(self) -> None:
        await self.keys.close()
