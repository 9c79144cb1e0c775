"""The limit of open files of this process. Each connection is an open file."""

import sys
from typing import Final

ENOUGH: Final = 1_048_576
"""The highest limit that is requested: some systems report an infinite hard limit, but refuse an infinite soft limit."""

SPARE_FILES: Final = 256
"""Open files that connections of HTTP leave to the rest of the process: the database, NATS, logs."""


def most_open_files() -> int:
    """The highest limit that this account may set."""
    if sys.platform == "win32":
        return ENOUGH
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)


def raise_open_files() -> int:
    """Raises the limit of open files as far as this account may. Returns the limit."""
    most = most_open_files()
    if sys.platform == "win32":
        return most
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # the system has a lower limit
        return soft
    return most
