-- Who started a run, and for whom, in the row of the run: a list of runs need not look up the first event of each run. Empty where a
-- process of the release before wrote the row, until the read model is built anew; such runs are looked up in the log.
ALTER TABLE run ADD COLUMN actor text, ADD COLUMN on_behalf_of text;
COMMENT ON COLUMN run.actor IS 'Who started the run; null: the log knows';
