"""A port for a server that a test starts and starts again."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""Below those from which systems take ports for outgoing connections: one of these could be taken meanwhile."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. Raises OSError where none is found."""
    for port in random.sample(_RANGE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("a hundred ports are taken")
