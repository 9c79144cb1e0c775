"""Lease tokens: what a worker shows with each report, to prove that its session has the work."""

import hmac
from base64 import urlsafe_b64encode
from uuid import UUID

from application.engine.ports.sessions import InstallationSecrets

TOKEN_BYTES = 16


class LeaseTokens:
    """Makes and checks lease tokens. The log never holds one.

    Each process waits once for `ready`; the other methods are pure afterwards.
    """

    def __init__(self, secrets: InstallationSecrets) -> None:
        self._secrets = secrets
        self._secret: bytes | None = None

    async def ready(self) -> None:
        """Loads the secret of the installation, unless it is known. Raises Unavailable."""
        if self._secret is None:
            self._secret = await self._secrets.secret()

    def secret_for(self, purpose: bytes) -> bytes:
        """A secret of the installation that is for one purpose, so that what it signs is worth nothing for another."""
        if self._secret is None:
            raise RuntimeError("`ready` was not awaited")
        return hmac.digest(self._secret, b"purpose:" + purpose, "sha256")

    def token_of(self, work_id: UUID, attempt: int, session_id: UUID) -> str:
        """The token of one attempt of a piece of work, for the session that claimed the attempt."""
        if self._secret is None:
            raise RuntimeError("`ready` was not awaited")
        said = b"lease" + work_id.bytes + attempt.to_bytes(8, "big") + session_id.bytes
        return urlsafe_b64encode(hmac.digest(self._secret, said, "sha256")[:TOKEN_BYTES]).rstrip(b"=").decode()

    def fits(self, token: str, work_id: UUID, attempt: int, session_id: UUID) -> bool:
        """Whether a token is the one of this attempt and session. Takes the same time for each wrong token."""
        if not 0 <= attempt < 2**63:
            return False
        return hmac.compare_digest(token.encode(errors="replace"), self.token_of(work_id, attempt, session_id).encode())
