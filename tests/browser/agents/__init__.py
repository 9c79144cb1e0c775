"""Agents and tools whose runs show all that a page can show."""
