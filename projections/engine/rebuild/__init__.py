"""Rebuilding and checking read models: jobs, the builder that works on them, backfill, verification."""
