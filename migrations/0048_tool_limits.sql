-- Limits of a tool over all processes: permits of calls that go on at once, and tokens of calls that begin. See decision 0093.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON tool_limit, tool_permit, permit_holder TO tidelog_app;

-- The row of a tool is locked by whoever changes anything about the tool's permits or tokens.
CREATE TABLE tool_limit (
    tenant_id      uuid NOT NULL,
    tool           text NOT NULL,
    declared       bigint NOT NULL,        -- number of the tool's change that said these limits: a later one wins
    max_parallel   int,
    calls          int,
    per_s          float8,
    tokens         float8 NOT NULL,        -- in the bucket at `filled_at`; below zero: promised to processes that wait for them
    filled_at      timestamptz NOT NULL,
    held_until     timestamptz,            -- the service behind the tool asked for silence
    counted_from   bigint,                 -- position up to which attempts without a permit may have begun; null: none goes on
    counted_since  timestamptz,
    PRIMARY KEY (tenant_id, tool)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE tool_limit IS 'Limits of the calls of a tool, and its bucket of tokens';

CREATE TABLE permit_holder (
    holder_id uuid PRIMARY KEY,            -- one start of a process, or of its holding of permits
    seen_at   timestamptz NOT NULL,
    over_at   bigint                       -- position of the log when the holder was found to be over
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE permit_holder IS 'Processes that hold permits or tokens of tools';

CREATE TABLE tool_permit (
    tenant_id     uuid NOT NULL,
    tool          text NOT NULL,
    holder_id     uuid NOT NULL,
    held          int NOT NULL,
    wanted        int NOT NULL,            -- -1: the holder is over
    waiting_since timestamptz,             -- null: the holder has what it wants
    tokens        int NOT NULL,            -- drawn and not spent, as far as the holder has told
    PRIMARY KEY (tenant_id, tool, holder_id)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX tool_permit_holder ON tool_permit (holder_id);
COMMENT ON TABLE tool_permit IS 'Permits of a tool that a process holds, for calls that go on and for calls to come';

-- Whose permit the attempt under way has. The permits of a process that is gone come back as these attempts end.
ALTER TABLE open_work ADD COLUMN permit_holder uuid;
CREATE INDEX open_work_permit ON open_work (tenant_id, pool) WHERE permit_holder IS NOT NULL;
COMMENT ON COLUMN open_work.permit_holder IS 'The holder whose permit the attempt has. Null: it needs none, or has not begun';

-- Gives free permits of a tool to holders that wait, the longest waiting first, each at first up to its fair share. The caller has
-- locked the row of the tool. Returns whether another holder than `mine` got some.
CREATE FUNCTION give_tool_permits(of_tenant uuid, of_tool text, mine uuid, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    l record;
    r record;
    free bigint;
    share int;
    contenders bigint;
    given int;
    others boolean := false;
BEGIN
    SELECT * INTO l FROM tool_limit WHERE tenant_id = of_tenant AND tool = of_tool;
    IF l.max_parallel IS NULL THEN
        RETURN false;
    END IF;
    SELECT l.max_parallel - coalesce(sum(held), 0), count(*) FILTER (WHERE wanted > 0) INTO free, contenders
    FROM tool_permit WHERE tenant_id = of_tenant AND tool = of_tool;
    IF l.counted_from IS NOT NULL THEN
        IF coalesce(checkpoint_position('work'), 0) < l.counted_from THEN
            RETURN false;
        END IF;
        SELECT free - count(*), count(*) INTO free, given FROM open_work
        WHERE tenant_id = of_tenant AND kind = 'tool' AND pool = of_tool AND session_id IS NOT NULL AND permit_holder IS NULL;
        IF given = 0 AND at >= l.counted_since + interval '5 seconds' THEN
            UPDATE tool_limit SET counted_from = NULL, counted_since = NULL WHERE tenant_id = of_tenant AND tool = of_tool;
        END IF;
    END IF;
    share := greatest(1, l.max_parallel / greatest(contenders, 1));
    FOR pass IN 1..2 LOOP
        EXIT WHEN free <= 0;
        FOR r IN
            SELECT holder_id, held, wanted FROM tool_permit
            WHERE tenant_id = of_tenant AND tool = of_tool AND wanted > held
            ORDER BY waiting_since, holder_id IS NOT DISTINCT FROM mine, holder_id
        LOOP
            EXIT WHEN free <= 0;
            given := least(free, (CASE pass WHEN 1 THEN least(r.wanted, share) ELSE r.wanted END) - r.held);
            CONTINUE WHEN given <= 0;
            UPDATE tool_permit SET held = held + given, waiting_since = CASE WHEN held + given < wanted THEN at END
            WHERE tenant_id = of_tenant AND tool = of_tool AND holder_id = r.holder_id;
            free := free - given;
            others := others OR r.holder_id IS DISTINCT FROM mine;
        END LOOP;
    END LOOP;
    RETURN others;
END
$$;
COMMENT ON FUNCTION give_tool_permits IS 'Gives free permits of a tool to processes that wait for them';

-- One process settles about one tool: what it keeps and wants, what it has spent, what it needs. One call, for many calls of the tool.
CREATE FUNCTION settle_tool_limit(
    of_tenant uuid, of_tool text, mine uuid, said bigint, said_parallel int, said_calls int, said_per_s float8, from_start boolean,
    keep int, want int, "like" int, spent int, back int, ask int, hold float8, told timestamptz
) RETURNS TABLE (
    declared bigint, max_parallel int, calls int, per_s float8, held int, contended boolean, share int, granted int, wait_s float8,
    hold_s float8, counting boolean
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    l tool_limit%ROWTYPE;
    p tool_permit%ROWTYPE;
    at timestamptz;
    others_tokens bigint;
    total bigint;
    contenders bigint;
    others_want boolean;
    news boolean := false;
    waited boolean;
    counts boolean;
    rate float8;
    got int := 0;
    wait float8 := 0;
    silence float8 := 0;
BEGIN
    INSERT INTO permit_holder (holder_id, seen_at) VALUES (mine, coalesce(told, clock_timestamp())) ON CONFLICT DO NOTHING;
    PERFORM FROM permit_holder WHERE holder_id = mine AND over_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    LOOP  -- until the row is there and locked: upkeep may have removed it in between
        INSERT INTO tool_limit (tenant_id, tool, declared, tokens, filled_at)
        VALUES (of_tenant, of_tool, -1, 0, coalesce(told, clock_timestamp())) ON CONFLICT DO NOTHING;
        SELECT * INTO l FROM tool_limit AS t WHERE t.tenant_id = of_tenant AND t.tool = of_tool FOR UPDATE;
        EXIT WHEN FOUND;
    END LOOP;
    at := coalesce(told, clock_timestamp());

    IF said > l.declared THEN
        IF said_parallel IS NOT NULL AND l.max_parallel IS NULL AND NOT from_start THEN
            l.counted_from := log_position();
            l.counted_since := at;
        END IF;
        IF l.calls IS NULL OR said_calls IS NULL THEN
            l.tokens := coalesce(said_calls, 0);
            l.filled_at := at;
        END IF;
        news := l.declared >= 0;
        l.declared := said;
        l.max_parallel := said_parallel;
        l.calls := said_calls;
        l.per_s := said_per_s;
    END IF;

    SELECT * INTO p FROM tool_permit AS t WHERE t.tenant_id = of_tenant AND t.tool = of_tool AND t.holder_id = mine;
    -- Whoever gives permits back waits anew, behind those that wait already.
    waited := p.waiting_since IS NOT NULL;
    p.waiting_since := CASE WHEN coalesce(p.held, 0) <= keep THEN p.waiting_since END;
    p.held := least(coalesce(p.held, 0), keep);
    p.tokens := greatest(0, coalesce(p.tokens, 0) - spent - back);
    p.wanted := want;
    p.waiting_since := CASE WHEN want > p.held THEN coalesce(p.waiting_since, at) END;

    IF hold > 0 AND l.calls IS NOT NULL THEN
        l.held_until := greatest(coalesce(l.held_until, at), at + make_interval(secs => hold));
        news := true;
    END IF;
    IF l.calls IS NOT NULL THEN
        rate := l.calls / l.per_s;
        SELECT coalesce(sum(t.tokens), 0) INTO others_tokens FROM tool_permit AS t
        WHERE t.tenant_id = of_tenant AND t.tool = of_tool AND t.holder_id <> mine;
        -- What is in the bucket and what processes have drawn is never more than the bucket holds.
        l.tokens := least(
            l.calls - others_tokens - p.tokens,
            l.tokens + back + greatest(0, extract(epoch FROM at - l.filled_at)::float8) * rate
        );
        l.filled_at := greatest(at, l.filled_at);
        silence := greatest(0, coalesce(extract(epoch FROM l.held_until - at)::float8, 0));
        IF ask > 0 AND silence > 0 THEN
            wait := silence;
        ELSIF ask > 0 THEN
            IF l.tokens >= 1 THEN
                got := least(ask, floor(l.tokens + 1e-9)::int);
            ELSE
                got := least(ask, greatest(1, floor(rate / 10)::int), l.calls);
                wait := (1 - l.tokens) / rate;
            END IF;
            l.tokens := l.tokens - got;
            p.tokens := p.tokens + got;
        END IF;
    END IF;

    UPDATE tool_limit AS t SET declared = l.declared, max_parallel = l.max_parallel, calls = l.calls, per_s = l.per_s,
        tokens = l.tokens, filled_at = l.filled_at, held_until = l.held_until, counted_from = l.counted_from,
        counted_since = l.counted_since
    WHERE t.tenant_id = of_tenant AND t.tool = of_tool;
    INSERT INTO tool_permit AS t VALUES (of_tenant, of_tool, mine, p.held, p.wanted, p.waiting_since, p.tokens)
    ON CONFLICT (tenant_id, tool, holder_id) DO UPDATE SET held = EXCLUDED.held, wanted = EXCLUDED.wanted,
        waiting_since = EXCLUDED.waiting_since, tokens = EXCLUDED.tokens;

    news := give_tool_permits(of_tenant, of_tool, mine, at) OR news;
    SELECT t.held, t.waiting_since INTO p.held, p.waiting_since FROM tool_permit AS t
    WHERE t.tenant_id = of_tenant AND t.tool = of_tool AND t.holder_id = mine;
    SELECT coalesce(sum(t.held), 0), coalesce(bool_or(t.holder_id <> mine AND t.wanted > t.held), false)
    INTO total, others_want FROM tool_permit AS t WHERE t.tenant_id = of_tenant AND t.tool = of_tool;
    counts := EXISTS (SELECT FROM tool_limit AS t WHERE t.tenant_id = of_tenant AND t.tool = of_tool AND counted_from IS NOT NULL);
    IF "like" > p.held AND NOT others_want AND NOT counts AND total < l.max_parallel THEN
        p.held := least("like", p.held + l.max_parallel - total);
        UPDATE tool_permit AS t SET held = p.held WHERE t.tenant_id = of_tenant AND t.tool = of_tool AND t.holder_id = mine;
    END IF;
    IF p.held = 0 AND p.wanted = 0 AND p.tokens = 0 THEN
        DELETE FROM tool_permit AS t WHERE t.tenant_id = of_tenant AND t.tool = of_tool AND t.holder_id = mine;
    END IF;
    SELECT coalesce(sum(t.held), 0), count(*) FILTER (WHERE t.wanted > 0),
           coalesce(bool_or(t.holder_id <> mine AND t.wanted > t.held), false)
    INTO total, contenders, others_want FROM tool_permit AS t WHERE t.tenant_id = of_tenant AND t.tool = of_tool;
    IF news OR (p.waiting_since IS NOT NULL AND NOT waited) THEN
        PERFORM pg_notify('tidelog_permits', concat_ws(' ', mine, of_tenant, of_tool));
    END IF;
    RETURN QUERY SELECT l.declared, l.max_parallel, l.calls, l.per_s, p.held,
        l.max_parallel IS NOT NULL AND (others_want OR total > l.max_parallel),
        CASE WHEN total > l.max_parallel THEN -1 ELSE (l.max_parallel / greatest(contenders, 1))::int END,
        got, wait, silence, counts;
END
$$;
COMMENT ON FUNCTION settle_tool_limit IS 'A process says what it keeps and needs of a tool''s permits and tokens, and gets what is free';

-- Processes that were not seen for a while hold nothing any more but the permits of their attempts that go on. These come back as the
-- attempts end. It is the read model of open work that tells, once it knows the log up to the moment at which the process was found
-- to be over. Returns how many processes hold something, or may.
CREATE FUNCTION sweep_tool_permits(lease_s float8, told timestamptz) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    t record;
    at timestamptz := coalesce(told, clock_timestamp());
    known bigint := coalesce(checkpoint_position('work'), 0);
    ready uuid[];
BEGIN
    ready := ARRAY(SELECT holder_id FROM permit_holder WHERE over_at <= known);
    UPDATE permit_holder SET over_at = log_position() WHERE over_at IS NULL AND (
        seen_at < at - make_interval(secs => lease_s) OR seen_at > at + make_interval(secs => lease_s)
    );
    FOR t IN
        SELECT DISTINCT tenant_id, tool FROM tool_permit WHERE holder_id = ANY (ready) ORDER BY tenant_id, tool
    LOOP
        PERFORM FROM tool_limit WHERE tenant_id = t.tenant_id AND tool = t.tool FOR UPDATE;
        UPDATE tool_permit AS p SET wanted = -1, waiting_since = NULL, tokens = 0, held = least(p.held, (
            SELECT count(*) FROM open_work AS w
            WHERE w.tenant_id = t.tenant_id AND w.pool = t.tool AND w.permit_holder = p.holder_id AND w.session_id IS NOT NULL
        ))
        WHERE p.tenant_id = t.tenant_id AND p.tool = t.tool AND p.holder_id = ANY (ready);
        DELETE FROM tool_permit WHERE tenant_id = t.tenant_id AND tool = t.tool AND holder_id = ANY (ready) AND held = 0;
        IF give_tool_permits(t.tenant_id, t.tool, NULL, at) THEN
            PERFORM pg_notify('tidelog_permits', concat_ws(' ', '00000000-0000-0000-0000-000000000000', t.tenant_id, t.tool));
        END IF;
    END LOOP;
    DELETE FROM permit_holder AS h
    WHERE h.holder_id = ANY (ready) AND NOT EXISTS (SELECT FROM tool_permit AS p WHERE p.holder_id = h.holder_id);
    RETURN (SELECT count(*) FROM permit_holder);
END
$$;
COMMENT ON FUNCTION sweep_tool_permits IS 'Permits of processes that are gone come back as their attempts end';
