"""Messages between the agents of a run: each is a stream of its own, delivered into the recipient's mailbox by a saga."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from domain.errors import RepeatedDifferently
from domain.kernel import Command, Decider, Event, Json, same_json


class MessageSent(Event):
    TOPIC = "message.sent"
    run_id: UUID
    sender: str
    """The step that sent it."""
    sender_id: UUID
    recipient: str
    recipient_id: UUID
    """The agent run that receives the message. It need not have begun."""
    body: Json = None
    sent_at: datetime | None = None
    """When it was sent. None: when it was recorded, as release 0.1 wrote."""

    def dated(self, recorded_at: datetime) -> Self:
        return self if self.sent_at is not None else self.model_copy(update={"sent_at": recorded_at})


@dataclass(frozen=True, slots=True)
class Message:
    sent: MessageSent | None = None


class SendMessage(Command):
    message_id: UUID
    run_id: UUID
    sender: str
    sender_id: UUID
    recipient: str
    recipient_id: UUID
    body: Json = None
    sent_at: datetime | None = None


def decide(message: Message, command: SendMessage) -> list[Event]:
    if message.sent is not None:
        if command.recipient_id != message.sent.recipient_id or not same_json(command.body, message.sent.body):
            what = f"to '{message.sent.recipient}'"
            raise RepeatedDifferently(f"under this key a message {what} was sent before, and this one differs", pointer="/key")
        return []
    return [MessageSent(**command.model_dump(exclude={"message_id", "body"}), body=command.body)]


def evolve(message: Message, event: MessageSent) -> Message:
    return Message(sent=event)


DECIDER: Decider[Message] = Decider("messages", Message, decide, evolve)
