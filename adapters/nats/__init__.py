"""NATS JetStream: the relay that carries the log there, the subscription that reads it, the queue that workers pull from."""

from adapters.nats.connection import NatsConnection
from adapters.nats.fanout.copier import FanOut, FanOutSettings
from adapters.nats.jetstream import JetStreamError
from adapters.nats.log.consumer import JetStreamSubscription
from adapters.nats.log.relay import Relay, Signal
from adapters.nats.log.stream import LogStream, StreamSettings
from adapters.nats.log.wire import FORMATS
from adapters.nats.position_calls import NatsPositionCalls
from adapters.nats.security import CredentialsError, NatsSecurity
from adapters.nats.work.queue import JetStreamWorkQueue

__all__ = [
    "FORMATS",
    "CredentialsError",
    "FanOut",
    "FanOutSettings",
    "JetStreamError",
    "JetStreamSubscription",
    "JetStreamWorkQueue",
    "LogStream",
    "NatsConnection",
    "NatsPositionCalls",
    "NatsSecurity",
    "Relay",
    "Signal",
    "StreamSettings",
]
