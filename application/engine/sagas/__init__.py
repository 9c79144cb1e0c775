"""The machinery of sagas: what a reaction is, and the loop that runs reactions over the log."""
