"""Sagas: an event of one stream becomes a command to another, or work for a worker. Sagas route; the domain decides."""
