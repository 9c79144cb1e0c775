"""Slash commands: lines as `/task Write release notes agent=writer`, by which people give work and ask what is there.

- `line`: a line → its name, its options and its text.
- `parameters`: options and text → the input of a run.
- `filters`: `/query`, which starts nothing: filters → a page of a list.
- `templates`: the shipped commands that are workflows.
- `commands`: which commands a tenant has, and what a line starts.

The *commands* of `application.engine.commands` are another thing: what should happen to one stream.
"""
