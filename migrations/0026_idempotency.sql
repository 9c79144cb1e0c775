-- An idempotency key is known by the log: the command of its request has the id that was the key's id in `idempotency_key`, so that the
-- row in `command` is the record of the key. This release writes nothing to `idempotency_key`. The table stays for one release: until
-- then processes of the release before may run beside, and the keys that they wrote are valid for a day.

-- Commands of keys that are in the table: the log knows them by the key's id, too. Another body is noticed by the use cases.
INSERT INTO command (tenant_id, command_id, last_position, recorded_at, event_count)
SELECT found.tenant_id, found.key_id, command.last_position, command.recorded_at, command.event_count
FROM idempotency_key AS found
JOIN command ON command.tenant_id = found.tenant_id AND command.command_id = found.token
WHERE found.begun_at > now() - interval '24 hours'
ON CONFLICT DO NOTHING;

-- Processes of the release before, until they are gone: a new key gets the id of its command from the key, as in this release, so that
-- the log knows the request whichever of the two carried it out. The insert of a key that the log knows is left out: such a process
-- then answers the key's own stored answer, or 409 `idempotency-key-in-use` (retryable) if this release carried the request out.
CREATE FUNCTION idempotency_key_is_a_command() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM command WHERE tenant_id = NEW.tenant_id AND command_id = NEW.key_id) THEN
        RETURN NULL;
    END IF;
    NEW.token := NEW.key_id;
    RETURN NEW;
END
$$;
CREATE TRIGGER idempotency_key_is_a_command BEFORE INSERT ON idempotency_key
FOR EACH ROW EXECUTE FUNCTION idempotency_key_is_a_command();
