"""Commands: load → decide → append, with a cache of states, snapshots and hooks."""
