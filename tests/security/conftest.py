"""The servers of the integration tests, and a second tenant on the shared one."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.integration.conftest import shared
from tests.integration.documented_kit import document, operations_of
from tests.integration.system_kit import System
from tests.integration.used_routes_kit import use_bulk_actions, use_keys, use_projections, use_runs
from tests.security.two_tenants import Other, Seen

__all__ = ["shared"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(shared: System) -> AsyncIterator[Other]:
    """The second tenant. The first one has used every route."""
    seen = Seen()
    async with shared.client(shared.key, event_hooks={"response": [seen.note]}) as http:
        await use_runs(shared, http)
        await use_projections(shared, http)
        await use_keys(shared, http)
        await use_bulk_actions(shared, http)
        for path in sorted(path for method, path in operations_of(await document(shared)) if method == "GET"):
            if "{" not in path and path.startswith("/v1/") and path != "/v1/workers/session":
                await http.get(path, params={"limit": 3} if path not in ("/v1/log/gaps", "/v1/audit/export") else {})
    _, key = await shared.tenant("other")
    assert len(seen.ids) > 20 and len(seen.cursors) > 2 and len(seen.places) > 5 and len(seen.positions) > 20
    async with shared.client(key) as http:
        yield Other(shared, http, key, seen)
