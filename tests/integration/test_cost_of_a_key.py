"""What an `Idempotency-Key` costs beside the command: nothing that PostgreSQL has to do."""

from typing import Any

import psycopg
import pytest

from adapters.postgres.log.prepared import PreparedStatement
from adapters.postgres.pool import MAY_TAKE, TAKE
from tests.integration.system_kit import empty_work_queue, issue_key, running, stopped

OF_THE_PROCESS = ("member", "lease", "api_key")
"""Tables in which a process keeps its place among the others, and looks for the keys of its callers, whatever is asked of it."""
OF_A_CONNECTION = (MAY_TAKE, TAKE)
"""What a pool asks when it opens another connection: that may come at any time."""
LOOPS = ("projections", "relay", "live")


async def test_a_key_costs_no_statement_of_its_own(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The append is the record of the key. The append is the only statement of the request, and so its only commit."""
    execute, append, asked = psycopg.AsyncCursor.execute, PreparedStatement.run, []

    async def noting(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        asked.append(query if isinstance(query, str) else bytes(query).decode())
        return await execute(self, query, *args, **options)

    async def noting_append(self: Any, *args: Any) -> Any:
        asked.append("the append")
        return await append(self, *args)

    # What a request asks now and then, whether it has a key or not, is asked once, by the request that warms up.
    monkeypatch.setattr("adapters.postgres.durability.ASK_EVERY_S", 3_600.0)
    monkeypatch.setattr("application.runs.admission.COUNTED_EVERY_S", 3_600.0)
    monkeypatch.setattr("api.http.conventions.keys.TIDY_S", 3_600.0)
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url, loops=LOOPS) as system:
        await issue_key(system)
        await system.worker().register("alpha")
        body = {"agent": "alpha"}
        assert (await system.http.post("/v1/runs", json=body, headers={"Idempotency-Key": "warm"})).status_code == 201
        await stopped(*[system.tasks.pop(name) for name in LOOPS])
        monkeypatch.setattr(psycopg.AsyncCursor, "execute", noting)
        monkeypatch.setattr(PreparedStatement, "run", noting_append)
        for headers in ({"Idempotency-Key": "k"}, {}):
            asked.clear()
            assert (await system.http.post("/v1/runs", json=body, headers=headers)).status_code == 201
            of_requests = [query for query in asked if query not in OF_A_CONNECTION]
            assert [query for query in of_requests if not any(table in query for table in OF_THE_PROCESS)] == ["the append"]
