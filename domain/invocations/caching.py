"""Under which name a result is found that answers later calls."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from uuid import UUID

from domain.kernel import Json


def cache_key(tool: str, version: str | None, arguments: Mapping[str, Json], on_behalf_of: str | None) -> UUID:
    """Calls with the same key have the same tool, version and arguments, whatever the order of fields, and are for the same one.

    What a tool found for one person is not for another: a tool knows for whom it is called.
    """
    said = json.dumps([tool, version, arguments, on_behalf_of], sort_keys=True)
    return UUID(bytes=blake2b(said.encode(), digest_size=16).digest())
