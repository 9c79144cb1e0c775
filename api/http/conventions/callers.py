"""Who asks: by an API key in a header, or by the cookie of a browser that was signed in.

A key in a header goes before a cookie: a page that tries a key is asked for by that key.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Scope
from uuid_utils.compat import uuid7

from api.http.conventions import sites
from api.http.conventions.browser_sessions import OVER, KnownSessions
from api.http.conventions.keys import Keys, key_in
from api.http.conventions.request import Principal
from application.engine.ports.browser_sessions import BrowserSession, BrowserSessions, SignedBy
from domain.errors import Unauthenticated

LIFE_S = 12 * 3_600
"""Seconds after which a browser must sign in again."""
LINK_LIFE_S = 600
MOST_SESSIONS = 100
"""Of one key. The oldest ends when there are more."""
MOST_LINKS = 10
SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing: a request with one of them need not say from which site it comes."""


class Callers:
    """Admits requests and WebSockets. One for each process."""

    def __init__(self, keys: Keys, sessions: KnownSessions, store: BrowserSessions, proxies: sites.Proxies) -> None:
        self.keys = keys
        self._sessions = sessions
        self._store = store
        self._proxies = proxies

    async def admit(self, scope: Scope) -> Principal:
        """The principal of a request or of a WebSocket, by its key in a header or by its cookie. For entrances that take both.

        `scope["state"]["headers"]` is the gate's table of headers, none of which is given twice (`middleware.must_be_single`). Sets
        `principal`, and what `hold` needs, in `scope["state"]`. By cookie, everything but GET and HEAD must come from a page of
        this very site, and so must each WebSocket, which sites may open across. Raises Unauthenticated, Forbidden, Unavailable.
        """
        state: dict[str, Any] = scope["state"]
        headers: Mapping[bytes, bytes] = state["headers"]
        if b"cookie" in headers and not key_in(headers) and (token := sites.token_in(scope, headers, self._proxies)):
            return await self._by_cookie(scope, token)
        state["principal"], state["key"] = found = await self.keys.principal(headers)
        return found[0]

    async def _by_cookie(self, scope: Scope, token: bytes) -> Principal:
        state: dict[str, Any] = scope["state"]
        if scope.get("method") not in SAFE:
            sites.must_be_of_this_site(scope, state["headers"], self._proxies, needed=True)
        session, digest = await self._sessions.session(token)
        principal = await self.keys.owner(session.by.key_sha256)
        if (principal.tenant_id, principal.key_id) != session.by[:2]:
            raise Unauthenticated(OVER)
        state["principal"], state["key"] = principal, session.by.key_sha256
        state["session"], state["session_token"] = session, digest
        return principal

    def hold(self, scope: Scope, at_end: Callable[[], None]) -> Callable[[], None]:
        """Calls a function once an admitted caller is not admitted any more: its key has ended, or it was signed out. For streams
        and sockets, which go on after they were admitted. Returns the function that ends this. `at_end` may be called twice.
        """
        state = scope["state"]
        of_key = self.keys.hold(state["key"], at_end)
        if "session_token" not in state:
            return of_key
        of_session = self._sessions.hold(state["session_token"], at_end)

        def release() -> None:
            of_key()
            of_session()

        return release

    # --- signing in and out -------------------------------------------------------------------------------------------------------

    async def sign_in(self, scope: Scope, by: SignedBy) -> tuple[BrowserSession, str]:
        """A new session of the browser, and the header with its cookie. Raises Unavailable."""
        token = secrets.token_urlsafe(32)
        begun = await self._store.begin(_hash(token), uuid7(), by, life_s=LIFE_S, most=MOST_SESSIONS)
        return begun, sites.set_cookie(scope, scope["state"]["headers"], self._proxies, token, LIFE_S)

    async def session_of(self, scope: Scope) -> BrowserSession | None:
        """The session whose cookie a request shows. Raises Unavailable."""
        try:
            token = sites.token_in(scope, scope["state"]["headers"], self._proxies)
            return (await self._sessions.session(token))[0] if token else None
        except Unauthenticated:
            return None

    async def sign_out(self, session: BrowserSession) -> None:
        """Ends a session, here at once, and elsewhere within moments. Raises Unavailable."""
        await self._store.end(session.by.tenant_id, session.session_id)
        self._sessions.ended(session.session_id)

    def no_cookie(self, scope: Scope) -> str:
        """The header that takes the cookie away from the browser."""
        return sites.set_cookie(scope, scope["state"]["headers"], self._proxies, "", 0)

    def must_be_of_this_site(self, scope: Scope) -> None:
        """Raises ForeignOrigin for the page of another site. A program says nothing of a site."""
        sites.must_be_of_this_site(scope, scope["state"]["headers"], self._proxies, needed=False)

    async def make_link(self, by: SignedBy) -> tuple[str, int]:
        """A link that signs one browser in, once, and its life in seconds. Raises Unavailable."""
        token = secrets.token_urlsafe(32)
        await self._store.make_link(_hash(token), by, life_s=LINK_LIFE_S, most=MOST_LINKS)
        return token, LINK_LIFE_S

    async def take_link(self, token: str) -> tuple[Principal, str]:
        """The principal of a link's key, and the hash of the key. Raises Unauthenticated, Unavailable."""
        by = await self._store.take_link(_hash(token))
        if by is None:
            raise Unauthenticated("the link is not valid: it was used, or it is too old; `tidelog console` makes another")
        return await self.keys.owner(by.key_sha256), by.key_sha256

    async def close(self) -> None:
        await self._sessions.close()
        await self.keys.close()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
