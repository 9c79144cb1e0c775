"""Chaos: every part of a running system is killed, and a checker reads the final state."""
