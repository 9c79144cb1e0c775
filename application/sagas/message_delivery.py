"""Messages: a sent message is delivered into the mailbox of the recipient's agent run.

The request that sends a message delivers it, too (`application/workers/mail.py`). The saga delivers the messages that earlier
releases sent.
"""

from application.engine.sagas.reactions import NotRecordedYet, Reaction, ReactionCause, Reactions
from domain import messages
from domain.agent_runs import DeliverMail


def on_message_sent(event: messages.MessageSent, cause: ReactionCause) -> list[Reaction]:
    if event.sent_at is None:  # the manager puts the time of recording in (`Event.dated`)
        raise NotRecordedYet("the message has no time yet")
    return [
        DeliverMail(
            agent_run_id=event.recipient_id,
            run_id=event.run_id,
            message_id=cause.stream_id,
            sender=event.sender,
            sent_at=event.sent_at,
        )
    ]


REACTIONS: Reactions = {messages.MessageSent: on_message_sent}
