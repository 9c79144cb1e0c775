"""Positions of the log without an event. Every position up to the head has an event, unless somebody deleted rows."""

from adapters.postgres.pool import Connections, translate_errors
from application.engine.ports.log import Gaps

LOOKED_AT = 1_000_000
"""Newest positions that are looked at, in the index alone: some tenths of a second."""
SHOWN = 10

COUNT = """
SELECT position, greatest(position - %(most)s, 0) + 1,
    (SELECT count(*) FROM event WHERE notification_id > greatest(position - %(most)s, 0))
FROM log_head
"""
FIND = """
SELECT before + 1, position - 1 FROM (
    SELECT position, lag(position, 1, %(first)s - 1) OVER (ORDER BY position) AS before FROM (
        SELECT notification_id AS position FROM event WHERE notification_id BETWEEN %(first)s AND %(head)s
        UNION ALL SELECT %(head)s + 1
    ) AS known
) AS neighbours
WHERE position > before + 1 ORDER BY position LIMIT %(shown)s
"""


async def gaps_of(connections: Connections) -> Gaps:
    """Raises Unavailable."""
    with translate_errors():
        async with connections.connection() as connection:
            row = await (await connection.execute(COUNT, {"most": LOOKED_AT})).fetchone()
            assert row is not None
            head, first, count = row
            missing = head - first + 1 - count
            if missing <= 0:
                return Gaps(head, first, 0, [])
            found = await (await connection.execute(FIND, {"first": first, "head": head, "shown": SHOWN})).fetchall()
    return Gaps(head, first, missing, [(first, last) for first, last in found])
