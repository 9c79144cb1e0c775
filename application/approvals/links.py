"""Links of notices: for one named person, one approval and this exact call, and not for long.

A link is made when a worker gets the call of a notice, and nowhere else: neither events nor logs hold one. It proves who was told.
What the person may do is asked again when the link is used.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

from application.workers.tokens import LeaseTokens
from domain.approvals import Approval
from domain.kernel import Json

LASTS = timedelta(hours=24)
"""A link lasts so long, and not beyond the deadline of its approval."""
PATH = "/approve"
PURPOSE = b"links of approvals"
_PREFIX, _FORM = "tla_", b"\x01"
_SAID, _MAC = 1 + 16 * 3 + 8 + 16, 32
LENGTH = len(_PREFIX) + (_SAID + _MAC) * 4 // 3
"""Characters of a link's token: its bytes fill the last group of four."""
_TOKENS = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{20,}}")


class Link(NamedTuple):
    tenant_id: UUID
    approval_id: UUID
    key_id: UUID
    """The person."""
    expires_at: int
    """Seconds since 1970."""
    fingerprint: bytes
    """Of the call that the person was told of."""


class ApprovalLinks:
    def __init__(self, tokens: LeaseTokens, public_url: str | None) -> None:
        """`public_url`: under which people reach this server. None: there is no such URL, and no links are made."""
        self._tokens = tokens
        self.public_url = None if public_url is None else public_url.rstrip("/")

    async def make(self, link: Link) -> str:
        """Raises Unavailable."""
        said = b"".join(
            (
                _FORM,
                link.tenant_id.bytes,
                link.approval_id.bytes,
                link.key_id.bytes,
                link.expires_at.to_bytes(8, "big"),
                link.fingerprint,
            )
        )
        token = _PREFIX + urlsafe_b64encode(said + await self._mac(said)).decode()
        return f"{self.public_url}{PATH}?link={quote(token)}"

    async def read(self, token: str) -> Link | None:
        """What a token says, if this installation has made it. Whether it is still worth anything, is another question.

        Raises Unavailable.
        """
        if len(token) != LENGTH or not token.startswith(_PREFIX):
            return None
        try:
            whole = urlsafe_b64decode(token[len(_PREFIX) :].encode())
        except (Error, ValueError):
            return None
        said, mac = whole[:_SAID], whole[_SAID:]
        if len(mac) != _MAC or not hmac.compare_digest(mac, await self._mac(said)) or said[:1] != _FORM:
            return None
        tenant, approval, key = (UUID(bytes=said[1 + 16 * number : 17 + 16 * number]) for number in range(3))
        return Link(tenant, approval, key, int.from_bytes(said[49:57], "big"), said[57:73])

    async def _mac(self, said: bytes) -> bytes:
        await self._tokens.ready()
        return hmac.digest(self._tokens.secret_for(PURPOSE), said, "sha256")


def fingerprint_of(approval_id: UUID, approval: Approval) -> bytes:
    """Of what exactly is asked: the tool, its version, and the arguments as they are now."""
    requested = approval.requested
    assert requested is not None
    call = (approval_id, requested.kind, requested.invocation_id, requested.tool, requested.tool_version, approval.arguments_hash)
    return sha256("|".join(map(str, call)).encode()).digest()[:16]


def expiry_of(now: datetime, deadline: datetime | None) -> int:
    ends = now + LASTS if deadline is None else min(now + LASTS, deadline)
    return int(ends.timestamp())


def without_links(value: Json) -> Any:
    """A value of others, such as the answer of the service that was told, without any link that it repeats."""
    match value:
        case str():
            return _TOKENS.sub("[link]", value)
        case list():
            return [without_links(each) for each in value]
        case dict():
            return {_TOKENS.sub("[link]", name): without_links(each) for name, each in value.items()}
        case _:
            return value
