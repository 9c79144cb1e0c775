"""The statement that looks through a tenant's events for those of one actor, or on one's behalf.

Nothing stands in an index for this: an index would make each append a third larger, in the moment in which all writers wait for one
another. So a page looks at a bounded number of events, and says how far it came.
"""

from adapters.postgres.log.event_store import EVENT_COLUMNS

LOOKED_AT = 2_000
"""Events that a page looks at."""

# Whoever is looked for is first searched as a text, in metadata as Tidelog writes them: reading all JSON would take twice as long.
_LOOK = """
    ), found AS MATERIALIZED (
        SELECT notification_id FROM looked
        WHERE (%(topics)s::text[] IS NULL OR topic = ANY (%(topics)s::text[]))
          AND CASE WHEN strpos(metadata, %(actor_in_json)s) > 0
                   THEN %(actor)s::text IS NULL OR metadata::jsonb ->> 'actor' = %(actor)s::text ELSE false END
          AND CASE WHEN strpos(metadata, %(on_behalf_of_in_json)s) > 0
                   THEN %(on_behalf_of)s::text IS NULL OR metadata::jsonb ->> 'on_behalf_of' = %(on_behalf_of)s::text ELSE false END
        ORDER BY notification_id LIMIT %(limit)s
    )
"""
_ANSWER = f"""
    SELECT (SELECT count(*) FROM looked), (SELECT max(notification_id) FROM looked), found.* FROM (SELECT) AS always
    LEFT JOIN (
        SELECT {EVENT_COLUMNS} FROM event WHERE notification_id IN (SELECT notification_id FROM found)
        AND tenant_id IS NOT DISTINCT FROM %(tenant)s
    ) AS found ON true
    ORDER BY found.notification_id
"""
# The two ways to find events, and their reasons: see `tenant_query` in feed.py.
IN_TENANT_SQL = f"""
    WITH looked AS MATERIALIZED (
        SELECT notification_id, topic, metadata FROM event
        WHERE (tenant_id, notification_id) > (%(tenant)s, %(after)s) AND (tenant_id, notification_id) <= (%(tenant)s, %(until)s)
        ORDER BY tenant_id, notification_id LIMIT %(looked)s
    {_LOOK} {_ANSWER}
"""
IN_RUN_SQL = f"""
    WITH looked AS MATERIALIZED (
        SELECT notification_id, topic, metadata FROM event
        WHERE root_id = %(root)s AND notification_id > %(after)s AND notification_id <= %(until)s
          AND tenant_id IS NOT DISTINCT FROM %(tenant)s
          AND (SELECT tenant_id FROM event WHERE originator_id = %(root)s AND originator_version = 1)
              IS NOT DISTINCT FROM %(tenant)s
        ORDER BY root_id, notification_id LIMIT %(looked)s
    {_LOOK} {_ANSWER}
"""
