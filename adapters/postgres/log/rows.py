"""The statements behind rows of events: the beginnings of events, and how many there are."""

# As `EVENT_COLUMNS`. A state that is stored in pieces is read up to there only.
HEADS = (
    "notification_id, tenant_id, originator_id, originator_version, root_id, topic, schema_version, "
    "substring(state FROM 1 FOR 1024) AS state, metadata, recorded_at, settled"
)

NAMED_SQL = f"""
    SELECT found.* FROM unnest(%s::uuid[], %s::bigint[]) AS wanted (stream_id, version)
    CROSS JOIN LATERAL (
        SELECT {HEADS} FROM event
        WHERE originator_id = wanted.stream_id AND originator_version = wanted.version AND tenant_id IS NOT DISTINCT FROM %s
    ) AS found
    ORDER BY found.notification_id
"""
COUNT_SQL = """
    SELECT count(*), array_agg(notification_id ORDER BY notification_id) FILTER (WHERE number %% %(every)s = 0) FROM (
        SELECT notification_id, row_number() OVER (ORDER BY root_id, notification_id) AS number FROM event
        WHERE root_id = %(root)s AND notification_id > %(after)s AND notification_id <= %(until)s
          AND tenant_id IS NOT DISTINCT FROM %(tenant)s
          AND (SELECT tenant_id FROM event WHERE originator_id = %(root)s AND originator_version = 1)
              IS NOT DISTINCT FROM %(tenant)s
          AND (%(topics)s::text[] IS NULL OR topic = ANY (%(topics)s::text[]))
        ORDER BY root_id, notification_id LIMIT %(limit)s
    ) AS counted
"""
