"""Chaos: every part of a running system is killed, and a checker reads what is left."""
