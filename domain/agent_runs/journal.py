"""The journal of an agent run: what is finished under each key, so that the next attempt does not repeat it."""

from collections.abc import Mapping
from typing import Literal, NamedTuple
from uuid import UUID

from domain.agent_runs.commands import FinishCall, RecordStep, SettledCall, StartCall
from domain.agent_runs.events import CallFinished, CallStarted, EntryKind, StepRecorded
from domain.amounts import Amounts
from domain.errors import InvalidState, RepeatedDifferently
from domain.failures import Failure
from domain.kernel import Event, Json, derive_id, same_json


class Entry(NamedTuple):
    """A journal entry. A call is `pending` until its invocation has an outcome, a wait until it has ended. A long journal has
    thousands of entries."""

    kind: EntryKind
    status: Literal["pending", "ok", "error"]
    result: Json = None
    invocation_id: UUID | None = None
    changed_in: int = 0
    """The version of the stream that wrote it last."""
    effect: bool = False
    """A call that failed, and had its effect all the same, or perhaps."""
    fingerprint: str | None = None
    error: Failure | None = None
    """Of a wait."""
    held_by: UUID | None = None
    """The agent run whose journal holds the result. None: it is `result`, or that of the invocation or message."""


def invocation_id_of(agent_run_id: UUID, key: str, number: int = 0) -> UUID:
    """The id of a call. `number`: of the retry of the run since which the call is made."""
    return derive_id(agent_run_id, f"call:{key}:{number}" if number else f"call:{key}")


def child_id_of(agent_run_id: UUID, key: str, number: int = 0) -> UUID:
    """The run that an agent starts under a key. `number`: of the retry of the agent's run since which it does."""
    return derive_id(agent_run_id, f"child:{key}:{number}" if number else f"child:{key}")


def record_step(journal: Mapping[str, Entry], command: RecordStep) -> list[Event]:
    if (entry := known(journal, command.key, command.kind)) is not None:
        return again(entry, command.key, command.result)
    return [StepRecorded(**command.model_dump(exclude={"agent_run_id", "result"}), result=command.result)]


def start_call(journal: Mapping[str, Entry], command: StartCall, number: int) -> list[Event]:
    if known(journal, command.key, "call") is not None:
        return []  # whether the call is the same is for the invocation to say
    invocation_id = invocation_id_of(command.agent_run_id, command.key, number)
    return [
        CallStarted(
            attempt=command.attempt, key=command.key, tool=command.tool, invocation_id=invocation_id,
            fingerprint=command.fingerprint, reserved=command.reserve, purse=command.purse, unpaid=command.unpaid,
        )
    ]  # fmt: skip


def finish_call(journal: Mapping[str, Entry], command: FinishCall | SettledCall, cost: Amounts | None = None) -> list[Event]:
    """Nothing, for a call that is not under way."""
    entry = journal.get(command.key)
    if entry is None or entry.status != "pending" or entry.invocation_id != command.invocation_id or entry.kind != "call":
        return []
    return [
        CallFinished(
            key=command.key, invocation_id=command.invocation_id, succeeded=command.succeeded, effect=command.effect,
            cost=cost,
        )
    ]  # fmt: skip


def known(journal: Mapping[str, Entry], key: str, kind: EntryKind) -> Entry | None:
    """The entry under a key, None where there is none. Raises InvalidState: the key has an entry of another kind."""
    entry = journal.get(key)
    if entry is not None and entry.kind != kind:
        raise InvalidState(f"key '{key}' is in the journal as a {entry.kind}, not a {kind}", pointer="/key")
    return entry


def again(entry: Entry, key: str, result: Json) -> list[Event]:
    """Nothing, for a key that is recorded again with the same result. Raises RepeatedDifferently: with another one."""
    if entry.held_by is None and not same_json(entry.result, result):
        raise RepeatedDifferently(f"key '{key}' was recorded before, with another result", pointer="/key")
    return []
