"""`Prefer: wait=…` (RFC 7240): how long a caller waits for the outcome of what it asks for."""

import re
from functools import lru_cache

from fastapi import Request

from api.http.conventions.request import header
from application.engine.ports.pages import parse_position

LONGEST_WAIT_S = 60

_WAIT = re.compile(r'wait\s*=\s*(?:"([0-9]+)"|([0-9]+))\s*(?:;.*)?', re.IGNORECASE)


def wait_seconds(request: Request) -> int:
    """Seconds of the first valid `wait` in `Prefer` (RFC 7240), at most LONGEST_WAIT_S. 0 without a valid `wait`."""
    preferences = header(request, b"prefer")
    if not preferences:
        return 0
    if len(request.scope["headers"]) != len(request.scope["state"]["headers"]):  # one name may stand there twice
        preferences = ",".join(request.headers.getlist("prefer"))
    return _wait_of(preferences)


@lru_cache(maxsize=32)
def _wait_of(preferences: str) -> int:
    for preference in preferences.split(","):
        if (match := _WAIT.fullmatch(preference.strip())) is not None:
            return min(parse_position(match[1] or match[2]) or 0, LONGEST_WAIT_S)
    return 0
