"""Mail between the steps of a run: sending a message, and receiving one."""

from datetime import UTC, datetime
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.suggestions import did_you_mean
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import agent_runs, messages, runs
from domain.errors import NotFound, RecipientOver
from domain.kernel import Json

MOST_NAMED = 20
"""Steps of a run that the refusal of a message names."""


class UnknownRecipient(NotFound):
    code = "unknown-recipient"


class Mailboxes:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def send(
        self, caller: Caller, *, agent_run_id: UUID, attempt: int, key: str, to: str, body: Json
    ) -> tuple[UUID, CommandOutcome]:
        """Sends a message to a step of the same run, named by its key or its agent. Returns the id of the message.

        The message and its delivery are one append: a step that ends at this moment either gets the message or refuses it here.

        Raises RecipientOver, UnknownRecipient, NotFound, WorkOver, StaleAttempt, RepeatedDifferently.
        """
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"send:{attempt}:{key}")
        state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id)
        if state.attempt < attempt:  # it went on in another process, and messages have other ids since
            state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id, fresh=True)
        assert state.requested is not None
        run_id = state.requested.run_id
        recipient, recipient_id = await self._recipient(caller.tenant_id, run_id, to)
        sent = state.journal.get(key)
        message_id = agent_runs.message_id_of(agent_run_id, key, state.reopened)
        if sent is not None and sent.kind == "send":
            message_id = UUID(sent.result)
        sent_at = datetime.now(UTC)
        record = agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=attempt, key=key, kind="send", result=str(message_id))
        send = messages.SendMessage(
            message_id=message_id,
            run_id=run_id,
            sender=state.requested.step,
            sender_id=agent_run_id,
            recipient=recipient,
            recipient_id=recipient_id,
            body=body,
            sent_at=sent_at,
        )
        deliver = agent_runs.DeliverMail(
            agent_run_id=recipient_id,
            run_id=run_id,
            message_id=message_id,
            sender=state.requested.step,
            sent_at=sent_at,
            by_sender=True,
        )
        return message_id, await self._commands.execute(request, record, send, deliver)

    async def _recipient(self, tenant_id: UUID, run_id: UUID, to: str) -> tuple[str, UUID]:
        """The step, or the part of one, that a message goes to, and its agent run.

        Raises UnknownRecipient; RecipientOver for a step that can no longer begin.
        """
        run: runs.Run = (await self._commands.load(runs.DECIDER, tenant_id, run_id, fresh=False)).state
        recipient = run.recipient(to)
        if recipient is None:
            raise UnknownRecipient(_unknown(to, run), pointer="/to")
        if not run.has_begun(recipient):
            run = (await self._commands.load(runs.DECIDER, tenant_id, run_id)).state
        if (why := run.cannot_get_mail(recipient)) is not None:
            raise RecipientOver(why, pointer="/to")
        return recipient, run.agent_run_of(run_id, recipient)

    async def receive(self, caller: Caller, command: agent_runs.ReceiveMail) -> CommandOutcome:
        """Records the message that was received under a key. Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        name = f"receive:{command.attempt}:{command.key}"
        request = await request_for_agent_run(self._commands, caller, command.agent_run_id, name)
        return await self._commands.execute(request, command)


def _unknown(to: str, run: runs.Run) -> str:
    """The refusal of a message: names that are like the wrong one, or else the first steps of the run."""
    steps = sorted(run.steps)
    more = f" and {len(steps) - MOST_NAMED} more" if len(steps) > MOST_NAMED else ""
    meant = did_you_mean(to, {*steps, *run.graph.of_agent}) or f"; there are: {', '.join(steps[:MOST_NAMED])}{more}"
    return f"there is no step or agent '{to}' in this run{meant}"
