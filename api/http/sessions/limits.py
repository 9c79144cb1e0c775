"""The bounds of the protocol, and the action of its endpoint. docs/reference/worker-sessions.md names them."""

from domain.access import Action

PATH = "/v1/workers/session"
PROTOCOL = "tidelog.worker.v1"
OPENING = Action.WORKERS_WORK
"""What the key of a worker must allow, to open a session."""
MAX_MESSAGES = 256
"""Messages of a frame."""
MAX_FRAME = 256 * 1024
"""Bytes of a frame with more than one message."""
MAX_MESSAGE = 1024 * 1024 - 1024
"""Bytes of a message that is alone in its frame, with a little room for the frame."""
MAX_SOCKET = 1024 * 1024
"""Bytes of any frame. The socket refuses a larger one while it comes."""
CROWDED = 1024 * 1024
"""Bytes that wait to be sent, from which on no more work is sent and nothing is read."""
MAX_WAITING = 16 * 1024 * 1024
"""Bytes that wait to be sent, from which on the connection is broken off."""
