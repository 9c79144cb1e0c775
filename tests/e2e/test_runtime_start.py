"""While a server starts, its first key is on its way: whoever already holds it is told to wait, not that it is wrong."""

from domain.errors import Unavailable
from tests.integration.system_kit import issue_key, running


async def test_a_key_that_is_being_issued_is_not_called_wrong(database_url: str, nats_url: str) -> None:
    async with running(database_url, nats_url) as system:
        issued = False

        async def check() -> None:
            if not issued:
                raise Unavailable("the first key is not issued yet")

        system.container.dependencies["setup"] = check
        early = await system.http.get("/v1/agents")
        assert (early.status_code, early.json()["code"]) == (503, "unavailable")
        assert early.json()["retryable"]

        await issue_key(system)
        assert (await system.http.get("/v1/agents")).status_code == 200, "usable at once, whatever else the start waits for"
        issued = True
        async with system.client("another") as stranger:
            late = await stranger.get("/v1/agents")
        assert (late.status_code, late.json()["code"]) == (401, "unauthenticated")
