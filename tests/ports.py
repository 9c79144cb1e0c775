"""Ports for servers that a test starts more than once."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""These ports are below the range for outgoing connections: a port of that range could be taken while the server is down."""


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on. Raises OSError if there is none."""
    for port in random.sample(_RANGE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("a hundred ports are taken")
