"""How many files this process may have open: each connection is one."""

import sys
from typing import Final

ENOUGH: Final = 1_048_576
"""More is not asked for: some systems call their hard limit infinite and refuse to be taken at their word."""

SPARE_FILES: Final = 256
"""Open files that connections of HTTP leave to the rest of the process: the database, NATS, logs."""


def most_open_files() -> int:
    """What this account may raise the limit to."""
    if sys.platform == "win32":
        return ENOUGH
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)


def raise_open_files() -> int:
    """Raises the limit of open files to what this account may have; returns what it is now."""
    most = most_open_files()
    if sys.platform == "win32":
        return most
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # the system has another limit of its own
        return soft
    return most
