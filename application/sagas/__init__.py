"""Sagas: an event of one stream becomes a command to another, or work for a worker. They route; deciding is the domain's."""
