"""Messages of a run as people see them."""

from typing import Literal
from uuid import UUID

from application.engine.ports.views import ListedRow, Timestamp
from application.views.large import HoldsLarge
from domain.kernel import Json

Status = Literal["sent", "delivered", "received", "refused"]


class MessageView(ListedRow, HoldsLarge):
    message_id: UUID
    run_id: UUID
    sender: str
    recipient: str
    body: Json
    status: Status
    refused: str | None
    position: int
    sent_at: Timestamp
    delivered_at: Timestamp | None
    received_at: Timestamp | None
