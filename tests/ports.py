"""Ports for servers that a test starts more than once."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""These ports are below the range for outgoing connections: a port of that range could be taken while the server is down."""


_given: set[int] = set()
"""A port is given once: whoever got it may not listen yet."""


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on. Raises OSError if there is none."""
    for port in random.sample(_RANGE, 100):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError("a hundred ports are taken")
