-- Histories of the log. A restore from a backup, or a failover to a server that was behind, ends one: positions that were given out
-- are given to other events. Readers keep the id of the history with their position, and so learn that theirs is over.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT INSERT ON history TO tidelog_app;
--   GRANT UPDATE ON history_mark, log_identity TO tidelog_app;

CREATE TABLE history (
    number integer NOT NULL PRIMARY KEY,          -- 1, 2, 3 ...; the one with the highest is the current one
    history_id text NOT NULL UNIQUE DEFAULT substr(replace(gen_random_uuid()::text, '-', ''), 1, 12),
    replaces text,                                -- id of the history that ended
    last_common bigint NOT NULL,                  -- up to here the log is certainly that of the one that ended
    cause text NOT NULL,                          -- installed, restored, server, relay, fanout, reader
    reason text NOT NULL,                         -- for people
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seal_key bytea NOT NULL DEFAULT uuid_send(gen_random_uuid())  -- cursors that we gave out are told by it from invented ones
);

INSERT INTO history (number, last_common, cause, reason) VALUES (1, 0, 'installed', 'the log was made');

-- How far the log was, now and then, and on which server. In a restored copy this is as old as the copy: so the position was in the
-- log before, whatever was appended since. One row; null columns: nobody has looked yet.
CREATE TABLE history_mark (
    singleton boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    log_id text,                                  -- of the cluster and the database
    timeline text,                                -- of PostgreSQL; null where it does not say
    started_at timestamptz,                       -- when that server was started
    position bigint NOT NULL DEFAULT 0,           -- in the log while that server ran
    earlier_position bigint NOT NULL DEFAULT 0    -- the same before that server was started
) WITH (fillfactor = 50);

INSERT INTO history_mark DEFAULT VALUES;

-- What tells a copy of the database's files from the log that they were copied from: part of the log's id. One row.
CREATE TABLE log_identity (
    singleton boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    copy_id text                                  -- null: the log is known by its cluster and database alone
);

INSERT INTO log_identity DEFAULT VALUES;
