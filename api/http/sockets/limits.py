"""The bounds of the protocol, and the action of its endpoint. docs/reference/streams.md names them."""

from domain.access import Action

PATH = "/v1/ws"
PROTOCOL = "tidelog.events.v1"
OPENING = Action.EVENTS_READ
"""What a key must allow."""
MAX_SUBSCRIPTIONS = 64
"""Of one connection."""
MAX_ENDING = 64
"""Subscriptions that have been taken back, and still wait for an answer of the database. With more, no frame is read."""
MAX_FRAME = 64 * 1024
"""Bytes of a frame of the client. The socket refuses a larger one while it comes."""
MAX_ID = 64
"""Characters of the id of a subscription."""
MAX_EVENTS = 1_000
"""Events of a frame of the server."""
EVENTS_BYTES = 192 * 1024
"""Bytes of the data of a frame's events, from which on a further event goes into the next frame."""
MAX_WINDOW = 5_000
"""Largest number of events that a client may allow to be on their way."""
HEARTBEAT_S = 20.0
"""Seconds between two signs of life on a connection on which nothing else is said."""
RECONNECT_MS = 2_000
"""Before a process stops, each client is given a random time up to this one, after which to come again."""
