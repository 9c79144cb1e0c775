"""What workers ask for: claims, journals, calls, mail, shared context, outcomes. Each is one atomic set of commands."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.tool_schemas import ToolSchemas
from domain import agent_runs, context, invocations, messages, runs, tools
from domain.agent_runs import AgentRun
from domain.errors import InvalidState, NotFound, RepeatedDifferently, WorkOver
from domain.failures import Failure, Retry
from domain.kernel import Json, same_json, timestamp

MAX_RACES = 20
"""How often a write without a condition is tried again after another writer was quicker."""


class UnknownTool(NotFound):
    code = "unknown-tool"


class UnknownRecipient(NotFound):
    code = "unknown-recipient"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One key of the journal as a worker needs it: with a call's outcome filled in from its invocation."""

    key: str
    kind: str
    status: str
    result: Json
    error: Failure | None
    invocation_id: UUID | None


@dataclass(frozen=True, slots=True)
class MailItem:
    message_id: UUID
    sender: str
    body: Json
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class JournalView:
    status: str
    attempt: int
    version: int
    entries: list[JournalEntry]
    mailbox: list[MailItem]
    """Mail that was not received yet, oldest first."""


@dataclass(frozen=True, slots=True)
class ClaimedAgentRun:
    run_id: UUID
    attempt: int
    step_key: str
    agent: str
    input: Json
    results: dict[str, Json]
    missing: list[str]
    peers: list[str]
    journal: JournalView
    outcome: CommandOutcome


class Workers:
    """Use cases of workers, over the command loop."""

    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands
        self.tool_schemas = ToolSchemas()

    # --- agent runs ---------------------------------------------------------------------------------------------------

    async def claim_agent_run(self, request: CommandRequest, command: agent_runs.ClaimAgentRun) -> ClaimedAgentRun:
        """Gives the caller the agent run and all that it needs to go on.

        Raises:
            WorkOver: it has ended, or was dispatched anew, or another worker has it.
        """
        outcome = await self._commands.execute(request, command)
        state = await self._agent_run(request.tenant_id, command.agent_run_id)
        if state.status != "running" or state.worker_id != command.worker_id:
            raise WorkOver(f"the agent run is {state.status}, claimed by {state.worker_id}")
        assert state.requested is not None
        run: runs.Run = (await self._commands.load(runs.DECIDER, request.tenant_id, state.requested.run_id)).state
        step = run.step(state.requested.step)
        upstream = {key: run.steps[key] for key in step.after}
        return ClaimedAgentRun(
            run_id=state.requested.run_id,
            attempt=state.attempt,
            step_key=step.key,
            agent=step.agent,
            input=run.input if step.input is None else step.input,
            results={key: s.result for key, s in upstream.items() if s.status == "completed"},
            missing=[key for key, s in upstream.items() if s.status == "failed"],
            peers=[key for key in run.steps if key != step.key],
            journal=await self.journal(request.tenant_id, command.agent_run_id, after_version=0),
            outcome=outcome,
        )

    async def _agent_run(self, tenant_id: UUID, agent_run_id: UUID, *, fresh: bool = False) -> AgentRun:
        loaded = await self._commands.load(agent_runs.DECIDER, tenant_id, agent_run_id, fresh=fresh)
        state: AgentRun = loaded.state
        if state.requested is None:
            raise NotFound(f"there is no agent run {agent_run_id}")
        return state

    async def run_of(self, tenant_id: UUID, agent_run_id: UUID) -> UUID:
        """The run that an agent run belongs to. Raises NotFound."""
        state = await self._agent_run(tenant_id, agent_run_id)
        assert state.requested is not None
        return state.requested.run_id

    async def is_tried_again(self, tenant_id: UUID, agent_run_id: UUID, attempt: int) -> bool:
        """Whether another attempt follows, or followed, a failed one: the same answer for a repeated report."""
        state = await self._agent_run(tenant_id, agent_run_id)
        return state.attempt > attempt or state.status not in agent_runs.TERMINAL

    async def journal(self, tenant_id: UUID, agent_run_id: UUID, *, after_version: int) -> JournalView:
        """Entries written after a version, with the outcomes of calls, and the mail that waits. Raises NotFound."""
        state = await self._agent_run(tenant_id, agent_run_id, fresh=True)
        changed = [(key, entry) for key, entry in state.journal.items() if entry.changed_in > after_version]
        waiting = [(i, m) for i, m in state.mailbox.items() if m.received_as is None and m.delivered_in > after_version]
        entries = await asyncio.gather(*(self._entry(tenant_id, state, key, entry) for key, entry in changed))
        mails = await asyncio.gather(*(self._mail(tenant_id, message_id, mail) for message_id, mail in waiting))
        return JournalView(state.status, state.attempt, state.version, list(entries), list(mails))

    async def _entry(self, tenant_id: UUID, state: AgentRun, key: str, entry: agent_runs.Entry) -> JournalEntry:
        result, error = entry.result, None
        if entry.kind == "call" and entry.status != "pending" and entry.invocation_id is not None:
            invocation = await self._invocation(tenant_id, entry.invocation_id)
            result, error = invocation.result, invocation.error
        elif entry.kind == "receive" and entry.result is not None:
            message_id = UUID(entry.result)
            message = await self._message(tenant_id, message_id)
            mail = state.mailbox[message_id]
            sent_at = timestamp(mail.sent_at)
            result = {"message_id": str(message_id), "sender": mail.sender, "body": message.body, "sent_at": sent_at}
        return JournalEntry(key, entry.kind, entry.status, result, error, entry.invocation_id)

    async def _mail(self, tenant_id: UUID, message_id: UUID, mail: agent_runs.Mail) -> MailItem:
        message = await self._message(tenant_id, message_id)
        return MailItem(message_id, mail.sender, message.body, mail.sent_at)

    async def _message(self, tenant_id: UUID, message_id: UUID) -> messages.MessageSent:
        loaded = await self._commands.load(messages.DECIDER, tenant_id, message_id, fresh=False)
        sent: messages.MessageSent | None = loaded.state.sent
        if sent is None:
            raise NotFound(f"there is no message {message_id}")
        return sent

    async def call_tool(
        self, request: CommandRequest, command: agent_runs.StartCall, arguments: dict[str, Json]
    ) -> tuple[UUID, CommandOutcome]:
        """Records the intent in the journal and requests the invocation, in one append.

        Raises:
            UnknownTool: no such tool is registered.
            InvalidCommand: the arguments break the tool's JSON Schema.
        """
        tool = await self._tool(request.tenant_id, command.tool)
        self.tool_schemas.check_arguments(tool.name, tool.parameters, arguments)
        state = await self._agent_run(request.tenant_id, command.agent_run_id)
        assert state.requested is not None
        invocation_id = agent_runs.invocation_id_of(command.agent_run_id, command.key)
        outcome = await self._commands.execute(
            request,
            command,
            invocations.RequestInvocation(
                invocation_id=invocation_id,
                run_id=state.requested.run_id,
                agent_run_id=command.agent_run_id,
                key=command.key,
                tool=command.tool,
                arguments=arguments,
                idempotent=tool.idempotent,
                timeout_s=tool.timeout_s,
                retry=Retry(max_attempts=tool.max_attempts),
            ),
        )
        return invocation_id, outcome

    async def _tool(self, tenant_id: UUID, name: str) -> tools.ToolRegistered:
        tool_id = tools.tool_id_of(tenant_id, name)
        for fresh in (False, True):
            loaded = await self._commands.load(tools.DECIDER, tenant_id, tool_id, fresh=fresh)
            found: tools.ToolRegistered | None = loaded.state.current
            if found is not None:
                return found
        raise UnknownTool(f"no tool '{name}' is registered", pointer="/tool")

    async def send_message(
        self, request: CommandRequest, *, agent_run_id: UUID, attempt: int, key: str, to: str, body: Json
    ) -> tuple[UUID, CommandOutcome]:
        """Sends to a step of the same run, by its key or its agent's name. Raises UnknownRecipient."""
        state = await self._agent_run(request.tenant_id, agent_run_id)
        assert state.requested is not None
        run_id = state.requested.run_id
        run: runs.Run = (await self._commands.load(runs.DECIDER, request.tenant_id, run_id, fresh=False)).state
        recipient = run.recipient(to)
        if recipient is None:
            known = ", ".join(sorted(run.steps))
            raise UnknownRecipient(f"there is no step or agent '{to}' in this run; there are: {known}", pointer="/to")
        message_id = agent_runs.message_id_of(agent_run_id, key)
        outcome = await self._commands.execute(
            request,
            agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=attempt, key=key, kind="send", result=str(message_id)),
            messages.SendMessage(
                message_id=message_id,
                run_id=run_id,
                sender=state.requested.step,
                sender_id=agent_run_id,
                recipient=recipient,
                recipient_id=runs.agent_run_id_of(run_id, recipient),
                body=body,
            ),
        )
        return message_id, outcome

    async def get_value(
        self, request: CommandRequest, *, agent_run_id: UUID, attempt: int, key: str, name: str
    ) -> tuple[Json, CommandOutcome]:
        """Reads a value of the run's shared context and records what was read under the key."""
        for fresh in (False, True):
            state = await self._agent_run(request.tenant_id, agent_run_id, fresh=fresh)
            assert state.requested is not None
            answer = _read_before(state, key, name)
            if answer is None:
                answer = await self._value(request.tenant_id, context.context_id_of(state.requested.run_id), name)
            record = agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=attempt, key=key, kind="state_get", result=answer)
            try:
                return answer, await self._commands.execute(request, record)
            except RepeatedDifferently:  # the key is recorded, and this process had not seen it: what was read then stays read
                if fresh:
                    raise
        raise AssertionError("the second turn ends")

    async def _value(self, tenant_id: UUID, context_id: UUID, name: str) -> dict[str, Json]:
        entry = (await self._commands.load(context.DECIDER, tenant_id, context_id)).state.entries.get(name)
        found: dict[str, Json] = {"name": name, "found": entry is not None, "value": None, "value_version": 0}
        return found | ({"value": entry.value, "value_version": entry.version} if entry else {})

    async def set_value(
        self, request: CommandRequest, *, agent_run_id: UUID, attempt: int, key: str, name: str, value: Json, expect: int | None
    ) -> tuple[Json, CommandOutcome]:
        """Sets a value of the run's shared context, once for the key.

        Raises:
            InvalidState: `expect` is not the value's version.
            RepeatedDifferently: the key set something else before.
        """
        for attempts_left in reversed(range(MAX_RACES)):
            # Fresh: what the key's first execution set, perhaps through another process, must not be set again.
            state = await self._agent_run(request.tenant_id, agent_run_id, fresh=True)
            assert state.requested is not None
            run_id = state.requested.run_id
            context_id = context.context_id_of(run_id)
            answer = _set_before(state, key, name, value, expect)
            once: tuple[context.SetContextValue, ...] = ()
            if answer is None:
                current = (await self._commands.load(context.DECIDER, request.tenant_id, context_id)).state.version_of(name)
                condition = current if expect is None else expect  # so that the version recorded below is the one that is set
                answer = {"name": name, "found": True, "value": value, "value_version": condition + 1}
                once = (
                    context.SetContextValue(
                        context_id=context_id, run_id=run_id, agent_run_id=agent_run_id, name=name, value=value, expect=condition
                    ),
                )
            record = agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=attempt, key=key, kind="state_set", result=answer)
            try:
                return answer, await self._commands.execute(request, record, *once)
            except (InvalidState, RepeatedDifferently) as error:
                # Another writer was quicker, or a repeat of this request was: the next turn sees what it did.
                if not once or not attempts_left or (expect is not None and isinstance(error, InvalidState)):
                    raise
        raise AssertionError("the last turn ends")

    # --- invocations --------------------------------------------------------------------------------------------------

    async def claim_invocation(
        self, request: CommandRequest, command: invocations.ClaimInvocation
    ) -> tuple[invocations.Invocation, CommandOutcome]:
        """Records the attempt before the tool is called. Raises WorkOver."""
        outcome = await self._commands.execute(request, command)
        state = await self._invocation(request.tenant_id, command.invocation_id)
        if state.status != "started" or state.worker_id != command.worker_id:
            raise WorkOver(f"the invocation is {state.status}, claimed by {state.worker_id}")
        return state, outcome

    async def run_of_invocation(self, tenant_id: UUID, invocation_id: UUID) -> UUID:
        """The run that an invocation belongs to. Raises NotFound."""
        loaded = await self._commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=False)
        if loaded.state.requested is None:
            raise NotFound(f"there is no invocation {invocation_id}")
        run_id: UUID = loaded.state.requested.run_id
        return run_id

    async def _invocation(self, tenant_id: UUID, invocation_id: UUID) -> invocations.Invocation:
        loaded = await self._commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=False)
        state: invocations.Invocation = loaded.state
        if state.status not in ("succeeded", "failed"):
            state = (await self._commands.load(invocations.DECIDER, tenant_id, invocation_id)).state
        return state


def _read_before(state: AgentRun, key: str, name: str) -> dict[str, Json] | None:
    """What a `get` recorded under a key, if it did. Raises RepeatedDifferently for a `get` of another value."""
    entry = state.journal.get(key)
    if entry is None or entry.kind != "state_get":
        return None
    before: dict[str, Json] = entry.result
    if before.get("name", name) != name:  # journals of before do not say which value it was
        raise RepeatedDifferently(f"key '{key}' read '{before['name']}' before", pointer="/name")
    return before


def _set_before(state: AgentRun, key: str, name: str, value: Json, expect: int | None) -> dict[str, Json] | None:
    """What a `set` recorded under a key, if it did. Raises RepeatedDifferently for a `set` that says something else."""
    entry = state.journal.get(key)
    if entry is None or entry.kind != "state_set":
        return None
    before: dict[str, Json] = entry.result
    if before.get("name", name) != name or not same_json(before["value"], value):
        raise RepeatedDifferently(f"key '{key}' set something else before", pointer="/key")
    if expect is not None and before["value_version"] != expect + 1:
        raise RepeatedDifferently(f"key '{key}' expected another version before", pointer="/expect")
    return before
