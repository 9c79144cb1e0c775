"""What the tests of faults share."""

import pytest


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs that are seconds become tenths: what is tested is that they exist, not how long they are."""
    for name, seconds in {
        "adapters.nats.publisher.ACK_TIMEOUT": 0.4,
        "adapters.nats.pull.HEARTBEAT": 0.3,
        "adapters.nats.pull.SILENCE_LIMIT": 0.7,
        "adapters.nats.connection._WATCH_INTERVAL": 0.2,
        "adapters.nats.connection._WATCH_TIMEOUT": 0.4,
        "adapters.nats.connection.REQUEST_TIMEOUT": 1.0,
        "adapters.nats.relay._LONGEST_PAUSE": 0.3,
        "adapters.nats.relay._LONGEST_WAIT": 1.6,
    }.items():
        monkeypatch.setattr(name, seconds)
