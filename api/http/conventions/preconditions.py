"""`If-Match`: a command for one version of a resource, and 412 if the resource has another version."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from api.http.conventions.errors import PreconditionFailed
from domain.errors import InvalidCommand, VersionConflict

_ETAG = re.compile(r'^(?:W/)?"v([0-9]{1,18})"$')


def expected_version(request: Request) -> int | None:
    """The version in `If-Match`. Raises InvalidCommand for another form than `"v<version>"`."""
    value = request.headers.get("if-match")
    if value is None or value == "*":
        return None
    match = _ETAG.match(value)
    if match is None:
        raise InvalidCommand('If-Match must be of the form "v<version>"')
    return int(match[1])


@asynccontextmanager
async def precondition(version: int | None) -> AsyncIterator[None]:
    """Turns a conflict with the version that the caller gave in `If-Match` or in the body into 412.

    None: the caller gave no version.
    """
    try:
        yield
    except VersionConflict as conflict:
        if version is None:
            raise
        raise PreconditionFailed(conflict.expected, conflict.current) from conflict
