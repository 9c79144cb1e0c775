"""Use cases: the ports, the command loop, its routing table, and the sagas. Depends on ports, never on adapters."""
