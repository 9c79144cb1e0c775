"""Bulk actions: one command for all runs that a filter finds.

- `orders`: the command that one run gets, and what it needs.
- `starting`: how many runs a filter finds, and what must hold before a bulk action begins.
- `carrying_out`: the work of the engine.
"""
