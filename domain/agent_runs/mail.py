"""The mailbox of an agent run: messages are delivered while the agent run lasts, and each is received once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.agent_runs.commands import DeliverMail, ReceiveMail
from domain.agent_runs.events import MailDelivered, MailReceived, MailRefused
from domain.agent_runs.journal import Entry, again, known
from domain.errors import InvalidState, RecipientOver
from domain.kernel import Event, derive_id


@dataclass(frozen=True)
class Mail:
    sender: str
    sent_at: datetime
    delivered_in: int
    received_as: str | None = None


def message_id_of(agent_run_id: UUID, key: str, number: int = 0) -> UUID:
    """The id of a message. `number`: of the retry of the run since which the message is sent."""
    return derive_id(agent_run_id, f"message:{key}:{number}" if number else f"message:{key}")


def deliver(mailbox: Mapping[UUID, Mail], command: DeliverMail, *, ended: str | None) -> list[Event]:
    """`ended`: the status of a recipient that is over, else None. Raises RecipientOver to a sender that delivers the message."""
    if command.message_id in mailbox:
        return []
    if ended is not None and command.by_sender:
        raise RecipientOver(f"the recipient is {ended}", pointer="/to")
    if ended is not None:
        return [MailRefused(message_id=command.message_id, reason=f"the recipient is {ended}")]
    return [MailDelivered(message_id=command.message_id, sender=command.sender, sent_at=command.sent_at)]


def receive(journal: Mapping[str, Entry], mailbox: Mapping[UUID, Mail], command: ReceiveMail) -> list[Event]:
    if (entry := known(journal, command.key, "receive")) is not None:
        return again(entry, command.key, None if command.message_id is None else str(command.message_id))
    if command.message_id is not None:
        mail = mailbox.get(command.message_id)
        if mail is None or mail.received_as is not None:
            raise InvalidState(f"message {command.message_id} is not in the mailbox", pointer="/message_id")
    return [MailReceived(attempt=command.attempt, key=command.key, message_id=command.message_id)]
