"""NATS JetStream: the relay that carries the log there, the subscription that reads it, the queue that workers pull from."""

from adapters.nats.connection import NatsConnection
from adapters.nats.consumer import JetStreamSubscription
from adapters.nats.fanout import FanOut, FanOutSettings
from adapters.nats.jetstream import JetStreamError
from adapters.nats.relay import Relay, Signal
from adapters.nats.stream import LogStream, StreamSettings
from adapters.nats.work_queue import JetStreamWorkQueue

__all__ = [
    "FanOut",
    "FanOutSettings",
    "JetStreamError",
    "JetStreamSubscription",
    "JetStreamWorkQueue",
    "LogStream",
    "NatsConnection",
    "Relay",
    "Signal",
    "StreamSettings",
]
