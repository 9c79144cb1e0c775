"""The machinery of read models: what a projection is, the loop that runs them, checkpoints, parked events, plug-ins."""
