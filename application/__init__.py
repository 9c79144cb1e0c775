"""Use cases: the ports, the one command loop, its routing table, and the sagas. Speaks ports only."""
