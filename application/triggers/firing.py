"""One trigger and one occurrence: whether it fires, and what comes of it."""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

import structlog

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.references import ReferencesRefused, refers
from application.triggers.occurrences import Occurrence
from application.triggers.roots import BY_TRIGGER
from application.triggers.starting import StartedTarget, Starter
from domain.errors import TidelogError, Unavailable, VersionConflict
from domain.kernel import Functions, Json, Spent
from domain.runs import Origin
from domain.starting import Unmapped, holds, input_of, signalled_run
from domain.triggers import FireTrigger, RecordMisfire, TriggerDefinition, TriggerNotActive, TriggerOverLimit

LOOP = "loop"
EXPRESSION = "expression"
MOST_TEXT = 1_000

log = structlog.get_logger(__name__)


class KnownTrigger(NamedTuple):
    """A trigger as it is at a place of the log."""

    tenant_id: UUID
    trigger_id: UUID
    name: str
    definition: TriggerDefinition
    hook_id: UUID | None = None
    within: tuple[UUID, ...] | None = None


class Misfire(Exception):
    """The trigger is about the occurrence, and cannot start anything."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code, self.error = code, error[:MOST_TEXT].replace("\x00", "")


def condition_of(definition: TriggerDefinition) -> str | None:
    source = definition.on or definition.hook
    return None if source is None else source.when


def mapped(trigger: KnownTrigger, occurrence: Occurrence, functions: Functions, spent: Spent) -> Json:
    """The input of what it starts. Raises Misfire."""
    definition = trigger.definition
    if occurrence.depth + 1 > definition.max_depth:
        most = definition.max_depth
        told = f"{occurrence.depth} firings of triggers led to this event; with this one there would be more than {most}"
        raise Misfire(LOOP, told)
    try:
        made = input_of(definition.start, occurrence.values, functions, spent)
    except Unmapped as error:
        raise Misfire(EXPRESSION, str(error)) from None
    if (trigger.within is not None or trigger.hook_id is not None) and refers(made):
        raise Misfire(ReferencesRefused.code, "a trigger of a narrowed key, or of a webhook, refers to no blobs")
    return made


def signalled(trigger: KnownTrigger, occurrence: Occurrence, functions: Functions, spent: Spent) -> UUID | None:
    """The run that gets the signal of the trigger. None: the trigger starts something. Raises Misfire."""
    signal = trigger.definition.start.signal
    if signal is None:
        return None
    try:
        return signalled_run(signal, occurrence.values, functions, spent)
    except Unmapped as error:
        raise Misfire(EXPRESSION, str(error)) from None


def fits(trigger: KnownTrigger, values: Mapping[str, Json], functions: Functions, spent: Spent) -> bool:
    """Whether the condition of the trigger holds for what it would be about. Raises Misfire."""
    try:
        return holds(condition_of(trigger.definition), values, functions, spent)
    except Unmapped as error:
        raise Misfire(EXPRESSION, str(error)) from None


class Firing:
    """Fires triggers."""

    def __init__(self, commands: CommandLoop, starter: Starter, functions: Functions) -> None:
        self._commands = commands
        self._starter = starter
        self._functions = functions

    async def fire(
        self, trigger: KnownTrigger, occurrence: Occurrence, *, id: UUID, command_id: UUID, spent: Spent | None = None
    ) -> StartedTarget:
        """Starts what the trigger starts. Its condition holds.

        Raises:
            Misfire: it starts nothing for this occurrence, for ever.
            TriggerNotActive: it was paused or removed meanwhile.
            TriggerOverLimit: it has fired too often.
            Unavailable, VersionConflict: nobody knows. Try again.
        """
        spent = spent or Spent()
        input = mapped(trigger, occurrence, self._functions, spent)
        run_id, target = signalled(trigger, occurrence, self._functions, spent), trigger.definition.start
        along = FireTrigger(
            trigger_id=trigger.trigger_id, name=trigger.name, hook_id=trigger.hook_id, event=occurrence.event,
            delivery=occurrence.delivery, minute=occurrence.minute, depth=occurrence.depth + 1,
            run_id=run_id or (None if target.tool is not None else id), invocation_id=id if target.tool is not None else None,
            signal=None if target.signal is None else target.signal.name,
        )  # fmt: skip
        request = _request(trigger, occurrence, command_id)._replace(along=along)
        try:
            origin = Origin(
                kind="trigger" if trigger.hook_id is None else "webhook", name=trigger.name, depth=along.depth,
                event=occurrence.event or occurrence.delivery,
            )  # fmt: skip
            project_id = trigger.definition.project_id
            if run_id is not None:
                return await self._starter.signal(request, target, input, run_id, id=id, project_id=project_id, origin=origin)
            return await self._starter.start(request, target, input, id=id, project_id=project_id, origin=origin)
        except (TriggerNotActive, TriggerOverLimit, Unavailable, VersionConflict):
            raise
        except TidelogError as error:
            place = f"{error.pointer}: " if error.pointer else ""
            raise Misfire(error.code, f"{place}{error.message}") from error
        except Exception as error:  # a defect: the reader must go on, and people must see it
            log.exception("trigger_failed", trigger=trigger.name, event=occurrence.event)
            raise Misfire("internal", f"{type(error).__name__}") from error

    async def record(self, trigger: KnownTrigger, occurrence: Occurrence, misfire: Misfire) -> None:
        """Raises TriggerOverLimit: it has had as many firings and misfires as it may in the minute. Unavailable."""
        command = RecordMisfire(
            trigger_id=trigger.trigger_id, name=trigger.name, event=occurrence.event, delivery=occurrence.delivery,
            code=misfire.code, error=misfire.error, minute=occurrence.minute,
        )  # fmt: skip
        await self._commands.execute(_request(trigger, occurrence, occurrence.id_for(trigger.trigger_id, ":misfire")), command)


def _request(trigger: KnownTrigger, occurrence: Occurrence, command_id: UUID) -> CommandRequest:
    return CommandRequest(
        tenant_id=trigger.tenant_id,
        actor=f"{BY_TRIGGER}{trigger.name}",
        command_id=command_id,
        correlation_id=occurrence.correlation_id,
        causation_id=occurrence.causation_id,
        traceparent=occurrence.traceparent,
        on_behalf_of=occurrence.on_behalf_of,
    )
