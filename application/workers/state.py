"""The shared context of a run: values that its agents read and set, once for each key of the journal."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import agent_runs, context
from domain.agent_runs import AgentRun
from domain.errors import InvalidState, RepeatedDifferently
from domain.kernel import Json, same_json

MAX_RACES = 20
"""Attempts of a write without a condition while other writers are faster."""


class SharedContext:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def get(
        self, caller: Caller, *, agent_run_id: UUID, attempt: int, key: str, name: str
    ) -> tuple[dict[str, Json], CommandOutcome]:
        """Reads a value and records the answer under the key. Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"state:{attempt}:{key}")
        for fresh in (False, True):
            state = await load_agent_run(self._commands, request.tenant_id, agent_run_id, fresh=fresh)
            assert state.requested is not None
            answer = _read_before(state, key, name)
            if answer is None:
                answer = await self._value(request.tenant_id, context.context_id_of(state.requested.run_id), name)
            record = agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=attempt, key=key, kind="state_get", result=answer)
            try:
                return answer, await self._commands.execute(request, record)
            except RepeatedDifferently:  # another process has recorded the key: its answer counts
                if fresh:
                    raise
        raise AssertionError("the second turn ends")

    async def set(
        self, caller: Caller, *, agent_run_id: UUID, attempt: int, key: str, name: str, value: Json, expect: int | None
    ) -> tuple[dict[str, Json], CommandOutcome]:
        """Sets a value, once for the key, in one append with the key's entry.

        Raises:
            InvalidState: `expect` is not the value's version.
            RepeatedDifferently: the first `set` under the key differs from this one.
            NotFound, WorkOver, StaleAttempt.
        """
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"state:{attempt}:{key}")
        for attempts_left in reversed(range(MAX_RACES)):
            # Fresh: the first execution of the key, perhaps in another process, may have set the value. It must not be set again.
            state = await load_agent_run(self._commands, request.tenant_id, agent_run_id, fresh=True)
            assert state.requested is not None
            run_id = state.requested.run_id
            context_id = context.context_id_of(run_id)
            answer = _set_before(state, key, name, value, expect)
            once: tuple[context.SetContextValue, ...] = ()
            if answer is None:
                current = (await self._commands.load(context.DECIDER, request.tenant_id, context_id)).state.version_of(name)
                condition = current if expect is None else expect  # so the version recorded below is the version that is set
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
                # Another writer or a repeat of this request was faster: the next turn sees its result.
                if not once or not attempts_left or (expect is not None and isinstance(error, InvalidState)):
                    raise
        raise AssertionError("the last turn ends")

    async def _value(self, tenant_id: UUID, context_id: UUID, name: str) -> dict[str, Json]:
        entry = (await self._commands.load(context.DECIDER, tenant_id, context_id)).state.entries.get(name)
        found: dict[str, Json] = {"name": name, "found": entry is not None, "value": None, "value_version": 0}
        return found | ({"value": entry.value, "value_version": entry.version} if entry else {})


def _read_before(state: AgentRun, key: str, name: str) -> dict[str, Json] | None:
    """The answer that a `get` recorded under a key, if any. Raises RepeatedDifferently if the `get` was of another value."""
    entry = state.journal.get(key)
    if entry is None or entry.kind != "state_get" or entry.held_by is not None:
        return None
    before: dict[str, Json] = entry.result
    if before.get("name", name) != name:  # journals of earlier releases do not have the value's name
        raise RepeatedDifferently(f"key '{key}' read '{before['name']}' before", pointer="/name")
    return before


def _set_before(state: AgentRun, key: str, name: str, value: Json, expect: int | None) -> dict[str, Json] | None:
    """The answer that a `set` recorded under a key, if any. Raises RepeatedDifferently if the `set` differs from this one."""
    entry = state.journal.get(key)
    if entry is None or entry.kind != "state_set" or entry.held_by is not None:
        return None
    before: dict[str, Json] = entry.result
    if before.get("name", name) != name or not same_json(before["value"], value):
        raise RepeatedDifferently(f"key '{key}' set something else before", pointer="/key")
    if expect is not None and before["value_version"] != expect + 1:
        raise RepeatedDifferently(f"key '{key}' expected another version before", pointer="/expect")
    return before
