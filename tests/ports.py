"""Ports for servers that a test starts more than once."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""These ports are below the range for outgoing connections: a port of that range could be taken while the server is down."""
_TOGETHER = 50
"""Ports that a process takes at once. Of processes of tests side by side each takes others: a server may not listen yet, or may be
down for a while. As the sign, a process keeps the first of the ports as a port of UDP, which no server of ours uses."""
_ours: list[int] = []


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on, and returns it once. Raises OSError if there is none."""
    while True:
        if not _ours:
            _take_more()
        port = _ours.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _take_more() -> None:
    chance = random.SystemRandom()  # Hypothesis gives all processes the same chance
    for first in chance.sample(_RANGE[::_TOGETHER], len(_RANGE) // _TOGETHER):
        with socket.socket(type=socket.SOCK_DGRAM) as sign:
            try:
                sign.bind(("127.0.0.1", first))
            except OSError:
                continue
            sign.detach()  # stays open until the process ends
            _ours.extend(range(first, first + _TOGETHER))
            return
    raise OSError("all ports are taken")
