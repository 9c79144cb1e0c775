"""How deliveries of webhooks prove where they come from: three schemes, and the secrets that the server makes for them.

`standard`: Standard Webhooks (github.com/standard-webhooks). `github`: as GitHub signs. `token`: the secret itself, in a header.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from domain.triggers import Scheme

TOLERANCE_S = 300
"""How far the time of a delivery may be from now."""
SECRET_BYTES = 32
MOST_SIGNATURES = 20
"""Signatures of one delivery that are compared: a sender may sign with several secrets."""
_ID = re.compile(r"[\x21-\x7e]{1,255}")
_TIME = re.compile(r"[0-9]{1,12}")
NOBODY = b"\x00" * SECRET_BYTES
"""Compared with where there is no secret, so that this takes no other time."""


class MadeSecret(NamedTuple):
    shown: str
    """For the sender, once."""
    kept: bytes
    """What is compared with later."""


def make_secret(scheme: Scheme) -> MadeSecret:
    raw = secrets.token_bytes(SECRET_BYTES)
    match scheme:
        case "standard":
            return MadeSecret(f"whsec_{base64.b64encode(raw).decode()}", raw)
        case "github":
            text = raw.hex()
            return MadeSecret(text, text.encode())
        case "token":
            text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
            return MadeSecret(text, hashlib.sha256(text.encode()).digest())


def proven(scheme: Scheme, kept: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """The id of a delivery whose signature is one of a secret. None: it proves nothing.

    Each secret is compared, and without any secret one is, too.
    """
    found = False
    if scheme == "standard":
        id, at, given = (headers.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature"))
        known = _ID.fullmatch(id) is not None and _TIME.fullmatch(at) is not None and abs(now - int(at)) <= TOLERANCE_S
        signed = f"{id}.{at}.".encode("latin-1", "replace") + body
        signatures = [_decoded(part[3:]) for part in given.split(" ")[:MOST_SIGNATURES] if part.startswith("v1,")]
        for secret in kept or (NOBODY,):
            made = hmac.digest(secret, signed, "sha256")
            for signature in signatures or (b"",):
                found |= hmac.compare_digest(made, signature)
        return id if known and found and kept else None
    if scheme == "github":
        signature = headers.get("x-hub-signature-256", "").encode("latin-1", "replace")
        for secret in kept or (NOBODY,):
            found |= hmac.compare_digest(b"sha256=" + hmac.new(secret, body, "sha256").hexdigest().encode(), signature)
        id = headers.get("x-github-delivery", "")
    else:
        kind, _, token = headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).digest()
        for secret in kept or (NOBODY,):
            found |= hmac.compare_digest(digest, secret)
        found &= kind.lower() == "bearer"
        id = headers.get("webhook-id") or headers.get("idempotency-key") or str(uuid4())
    return id if found and kept and _ID.fullmatch(id) else None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
