"""A tool that does nothing, in a process of its own."""

from tidelog import tool


@tool("nothing", isolation="process")
def nothing() -> None:
    """Does nothing."""
