"""A worker's session with the server: one WebSocket, in a thread of its own, that comes back after every loss.

The protocol is `tidelog.worker.v1` (docs/reference/worker-sessions.md). Code of users cannot hold up the session: the beats go on
while an agent blocks its event loop.

`session` is the side of the user's loop; `driver`, `talk` and `link` run in the session's thread; `outbox` and `inbound` are the
queues in between.
"""

from tidelog.session.link import Target
from tidelog.session.offers import Offer, Slots
from tidelog.session.session import Receiver, Session, SessionRefusedError, Welcome

__all__ = ["Offer", "Receiver", "Session", "SessionRefusedError", "Slots", "Target", "Welcome"]
