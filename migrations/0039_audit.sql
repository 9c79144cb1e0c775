-- The audit trail as auditors look for it: by who, what, on what, on whose behalf and with which result, newest first. Each filter has
-- an index of its own; a page looks at a bounded number of entries.

CREATE TABLE audit_entry (
    tenant_id    uuid NOT NULL,
    position     bigint NOT NULL,
    entry_id     uuid NOT NULL,
    recorded_at  timestamptz NOT NULL,
    kind         text NOT NULL,
    actor        text NOT NULL,
    on_behalf_of text,
    action       text,
    operation    text,
    target_kind  text,
    target_id    text,
    reason       text,
    address      text,
    result       text NOT NULL,
    code         text,
    count        bigint NOT NULL,
    since        timestamptz,
    until        timestamptz,
    others       boolean NOT NULL,
    PRIMARY KEY (tenant_id, position)
);
CREATE INDEX audit_entry_actor ON audit_entry (tenant_id, actor, position);
CREATE INDEX audit_entry_action ON audit_entry (tenant_id, action, position);
CREATE INDEX audit_entry_target ON audit_entry (tenant_id, target_id, position);
CREATE INDEX audit_entry_on_behalf_of ON audit_entry (tenant_id, on_behalf_of, position) WHERE on_behalf_of IS NOT NULL;
CREATE INDEX audit_entry_result ON audit_entry (tenant_id, result, position);
COMMENT ON TABLE audit_entry IS 'What operators did, and how many requests were refused';

-- No release before has written an entry, so the read model begins at the head of the log instead of reading all of it.
INSERT INTO checkpoint (name, position) SELECT 'audit', position FROM log_head WHERE position > 0;
