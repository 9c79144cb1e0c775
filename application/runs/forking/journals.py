"""What the agents of a run that is forked had finished, their mail, and the shared context: as commands for the fork.

Journals refer: outcomes of calls stay on the invocations of the other run, bodies of messages on its messages, and large results in
the journals that have them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pydantic_core

from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import EventFeed
from application.runs.forking.cut import Cut, UnderWay
from application.runs.replay_at import pages_of_run
from domain import agent_runs, context, runs
from domain.agent_runs import EntryTakenOver, MailTakenOver, TakeOverJournal
from domain.kernel import Command

LARGE_BYTES = 1_000
"""A result of more bytes stays in the journal that has it."""
READ_AT_ONCE = 20
MAIL = (agent_runs.MailDelivered.TOPIC, agent_runs.MailTakenOver.TOPIC)


class TakenJournals:
    def __init__(self, commands: CommandLoop, feed: EventFeed, tenant_id: UUID, run_id: UUID, until: int) -> None:
        """`until`: the last position that counts."""
        self._commands = commands
        self._feed = feed
        self._tenant_id = tenant_id
        self._run_id = run_id
        self._until = until

    async def commands_for(self, fork_id: UUID, cut: Cut, keys: Sequence[str]) -> list[Command]:
        """`keys`: of the fork's steps that have not ended."""
        goes_on = [one for one in cut.under_way if not one.is_run]
        mail = await self._mail(cut, keys, {one.execution_id: one for one in goes_on})
        commands: list[Command] = []
        for start in range(0, len(goes_on), READ_AT_ONCE):
            some = goes_on[start : start + READ_AT_ONCE]
            for one, entries in zip(some, await asyncio.gather(*map(self._entries, some)), strict=True):
                received = {entry.result: entry.key for entry in entries if entry.kind == "receive"}
                mails = [
                    each.model_copy(update={"received_as": received.get(str(each.message_id))})
                    for each in mail.pop((one.key, one.fallback), ())
                ]
                mails = [each for each in mails if each.received_as is not None or not _is_gone(cut, each.sender)]
                if entries or mails:
                    agent_run_id = runs.agent_run_id_of(fork_id, one.key, one.fallback)
                    commands.append(
                        TakeOverJournal(agent_run_id=agent_run_id, run_id=fork_id, entries=tuple(entries), mail=tuple(mails))
                    )
        for (key, fallback), mails in mail.items():
            waiting = [each.model_copy(update={"received_as": None}) for each in mails if not _is_gone(cut, each.sender)]
            if waiting:
                agent_run_id = runs.agent_run_id_of(fork_id, key, fallback)
                commands.append(TakeOverJournal(agent_run_id=agent_run_id, run_id=fork_id, mail=tuple(waiting)))
        if values := await self._values(cut, fork_id):
            context_id = context.context_id_of(fork_id)
            commands.append(context.TakeOverValues(context_id=context_id, run_id=fork_id, values=tuple(values)))
        return commands

    async def _mail(
        self, cut: Cut, keys: Sequence[str], goes_on: Mapping[UUID, UnderWay]
    ) -> dict[tuple[str, int], list[MailTakenOver]]:
        """Key of a step or a part, and number of a fallback → what was delivered to it."""
        recipients = {runs.agent_run_id_of(self._run_id, key): (key, 0) for key in keys}
        recipients |= {execution_id: (one.key, one.fallback) for execution_id, one in goes_on.items()}
        found: dict[tuple[str, int], list[MailTakenOver]] = {}
        pages = pages_of_run(self._feed, self._tenant_id, self._run_id, after=0, until=self._until, topics=MAIL)
        async for page in pages:
            for recorded in page:
                if (to := recipients.get(recorded.stream_id)) is not None:
                    event: Any = self._commands.registry.decoded(recorded)
                    mail = MailTakenOver(message_id=event.message_id, sender=event.sender, sent_at=event.sent_at)
                    found.setdefault(to, []).append(mail)
        return found

    async def _entries(self, one: UnderWay) -> list[EntryTakenOver]:
        """What an agent run had finished, in the order in which it did."""
        entries: dict[str, EntryTakenOver] = {}
        fingerprints: dict[str, str | None] = {}
        for recorded in await self._commands.history(self._tenant_id, one.execution_id):
            if recorded.position > self._until:
                break
            match event := self._commands.registry.decoded(recorded):
                case agent_runs.StepRecorded():
                    entries[event.key] = _entry(one.execution_id, event)
                case agent_runs.EntryTakenOver():
                    entries[event.key] = event
                case agent_runs.AgentRunReopened():
                    entries = {} if event.fresh else {key: one for key, one in entries.items() if one.succeeded or one.effect}
                case agent_runs.CallStarted() | agent_runs.WaitStarted():
                    fingerprints[event.key] = event.fingerprint
                case agent_runs.WaitFinished():
                    entries[event.key] = EntryTakenOver(
                        key=event.key, kind=event.kind, succeeded=event.error is None, result=event.result, error=event.error,
                        fingerprint=fingerprints.get(event.key),
                    )  # fmt: skip
                case agent_runs.CallFinished():
                    entries[event.key] = EntryTakenOver(
                        key=event.key,
                        kind="call",
                        succeeded=event.succeeded,
                        invocation_id=event.invocation_id,
                        effect=event.effect,
                        fingerprint=fingerprints.get(event.key),
                    )
                case agent_runs.MailReceived():
                    result = None if event.message_id is None else str(event.message_id)
                    said = getattr(event, "fingerprint", None)
                    entries[event.key] = EntryTakenOver(key=event.key, kind="receive", result=result, fingerprint=said)
        if one.had_failed:
            return [entry for entry in entries.values() if entry.succeeded or await self._had_effect(entry)]
        return list(entries.values())

    async def _had_effect(self, entry: EntryTakenOver) -> bool:
        """Whether a failed call of a failed agent must not be made again."""
        if entry.invocation_id is None:  # a wait
            return False
        for recorded in await self._commands.history(self._tenant_id, entry.invocation_id):
            if getattr(self._commands.registry.decoded(recorded), "effect", None) is not None:
                return True
        return False

    async def _values(self, cut: Cut, fork_id: UUID) -> list[context.ContextValueTakenOver]:
        found: dict[str, context.ContextValueTakenOver] = {}
        for recorded in await self._commands.history(self._tenant_id, context.context_id_of(self._run_id)):
            event: Any = self._commands.registry.decoded(recorded)
            if recorded.position > self._until:
                break
            if getattr(event, "agent_run_id", None) not in cut.gone:
                found[event.name] = context.ContextValueTakenOver(
                    run_id=fork_id, name=event.name, value=event.value, value_version=event.value_version
                )
        return list(found.values())


def _entry(agent_run_id: UUID, event: agent_runs.StepRecorded) -> EntryTakenOver:
    if len(pydantic_core.to_json(event.result)) > LARGE_BYTES:
        return EntryTakenOver(key=event.key, kind=event.kind, held_by=agent_run_id, fingerprint=event.fingerprint)
    return EntryTakenOver(key=event.key, kind=event.kind, result=event.result, fingerprint=event.fingerprint)


def _is_gone(cut: Cut, sender: str) -> bool:
    """Whether a message is of a step that runs again, and sends it again."""
    return sender in cut.again or sender.rpartition(".")[0] in cut.again
