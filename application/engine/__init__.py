"""The engine: commands, sagas, timers, leases and reading of the log. It knows no slice; its tables are arguments."""
