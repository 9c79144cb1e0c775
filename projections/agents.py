"""Agents that are registered, by name."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import MOST_NAMES, Positioned
from application.views.agents import AgentView
from domain.agents import AgentRegistered
from domain.kernel import Json, RecordedEvent
from projections.engine.checkpoints import reading
from projections.kernel import (
    Connection,
    Database,
    Projection,
    by_topic,
    decoded,
    dump_json,
    listed,
    load_json,
    topics_of,
)


async def on_agent_registered(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO agent (agent_id, tenant_id, name, version, revision, description, capabilities, input_schema, output_schema,
                       registered_at)
    SELECT id, tenant, name, version, revision, description, ARRAY(SELECT jsonb_array_elements_text(capabilities)),
           input, output, at
    FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::int[], %s::text[], %s::jsonb[], %s::text[], %s::text[],
                %s::timestamptz[]) AS u (id, tenant, name, version, revision, description, capabilities, input, output, at)
    ON CONFLICT (agent_id) DO UPDATE SET (name, version, revision, description, capabilities, input_schema, output_schema,
        registered_at) = (EXCLUDED.name, EXCLUDED.version, EXCLUDED.revision, EXCLUDED.description, EXCLUDED.capabilities,
        EXCLUDED.input_schema, EXCLUDED.output_schema, EXCLUDED.registered_at)
    """
    newest = list({recorded.stream_id: recorded for recorded in batch}.values())
    agents: list[AgentRegistered] = [decoded(recorded) for recorded in newest]
    await connection.execute(
        sql,
        (
            [e.stream_id for e in newest], [e.tenant_id for e in newest], [a.name for a in agents], [a.version for a in agents],
            [e.version for e in newest], [a.description for a in agents], [dump_json(a.capabilities) for a in agents],
            [dump_json(a.input_schema) for a in agents], [dump_json(a.output_schema) for a in agents],
            [e.recorded_at for e in newest],
        ),
    )  # fmt: skip


PROJECTION = Projection("agents", topics_of(AgentRegistered), ("agent",), by_topic((AgentRegistered, on_agent_registered)))


async def list_agents(
    connection: Connection, tenant_id: UUID, *, limit: int, after: str | None, capability: str | None
) -> Page[AgentView]:
    """By name; `capability` keeps only agents that have it."""
    sql = """
    SELECT agent_id, name, version, revision, description, capabilities, input_schema, output_schema, registered_at FROM agent
    WHERE tenant_id = %(tenant)s AND (%(after)s::text IS NULL OR name > %(after)s)
      AND (%(capability)s::text IS NULL OR capabilities @> ARRAY[%(capability)s::text])
    ORDER BY name LIMIT %(limit)s
    """
    parameters = {"tenant": tenant_id, "after": after, "limit": limit + 1, "capability": capability}
    rows = await (await connection.execute(sql, parameters)).fetchall()
    data = [_listed(row) for row in rows[:limit]]
    return Page(data, encode_cursor(data[-1].name) if len(rows) > limit else None)


ONE = """
SELECT agent_id, name, version, revision, description, capabilities, input_schema, output_schema, registered_at FROM agent
WHERE tenant_id = %s AND name = %s
"""


def _listed(row: Sequence[Any]) -> AgentView:
    def view(input_schema: Json, output_schema: Json, *, unreadable: bool = False) -> AgentView:
        return AgentView(
            agent_id=row[0], name=row[1], version=row[2], revision=row[3], description=row[4], capabilities=row[5],
            input_schema=input_schema, output_schema=output_schema, registered_at=row[8], unreadable=unreadable,
        )  # fmt: skip

    return listed("agent", row[0], lambda: view(load_json(row[6]), load_json(row[7])), lambda: view(None, None, unreadable=True))


OFFERING = """
WITH offered AS MATERIALIZED (
    SELECT DISTINCT u.name
    FROM worker_session AS s JOIN worker_offer AS o ON o.session_id = s.session_id CROSS JOIN LATERAL unnest(o.agents) AS u (name)
    WHERE s.tenant_id = %(tenant)s AND s.ended_at IS NULL
)
SELECT DISTINCT ON (wanted.name) wanted.name, a.name
FROM unnest(%(names)s::text[]) AS wanted (name)
JOIN agent AS a ON a.tenant_id = %(tenant)s AND a.capabilities @> ARRAY[wanted.name]
ORDER BY wanted.name, a.name IN (SELECT name FROM offered) DESC, a.registered_at DESC, a.name
"""


class AgentQueries:
    """The port `AgentReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, *, limit: int, after: str | None, capability: str | None) -> Positioned[Page[AgentView]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_agents(connection, tenant_id, limit=limit, after=after, capability=capability), position)

    async def get(self, tenant_id: UUID, name: str) -> Positioned[AgentView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            row = await (await connection.execute(ONE, [tenant_id, name])).fetchone()
            return Positioned(None if row is None else _listed(row), position)

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        sql = "SELECT name FROM agent WHERE tenant_id = %s ORDER BY name LIMIT %s"
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(sql, [tenant_id, MOST_NAMES])).fetchall()
        return [row[0] for row in rows]

    async def offering(self, tenant_id: UUID, capabilities: Sequence[str]) -> Mapping[str, str]:
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(OFFERING, {"tenant": tenant_id, "names": list(capabilities)})).fetchall()
        return dict(rows)

    async def capabilities(self, tenant_id: UUID) -> Sequence[str]:
        sql = """
        SELECT DISTINCT u.name FROM agent, unnest(capabilities) AS u (name) WHERE tenant_id = %s ORDER BY u.name LIMIT %s
        """
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(sql, [tenant_id, MOST_NAMES])).fetchall()
        return [row[0] for row in rows]
