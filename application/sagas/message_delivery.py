"""Messages: a sent message is delivered into the mailbox of the recipient's agent run.

The request that sends a message delivers it, too (`application/workers/mail.py`). The saga delivers the messages of an agent run to
itself, and those that earlier releases sent.
"""

from application.engine.sagas.reactions import Reaction, Reactions
from domain import messages
from domain.agent_runs import DeliverMail
from domain.kernel import RecordedEvent


def on_message_sent(event: messages.MessageSent, recorded: RecordedEvent) -> list[Reaction]:
    return [
        DeliverMail(
            agent_run_id=event.recipient_id,
            run_id=event.run_id,
            message_id=recorded.stream_id,
            sender=event.sender,
            sent_at=event.sent_at or recorded.recorded_at,
        )
    ]


REACTIONS: Reactions = {messages.MessageSent: on_message_sent}
