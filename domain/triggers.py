"""Triggers: what starts when an event of the log, or a delivery of a webhook, is one of a kind.

A trigger is a stream by its name and its tenant. The stream has what people made of it, and each firing: what it was about, and
what it started. A firing goes into one append with what it starts, so the one is there exactly when the other is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal, assert_never
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, Json, Name, ShortText, Value, derive_id, unsaid
from domain.starting import FiringLimits, Target
from domain.tool_policy import Expression

MOST_IN_A_ROW = 20
"""Misfires one after the other. After so many a trigger pauses itself."""
WANTED = frozenset({"run-key-busy", "run-key-queue-full"})
"""Codes of misfires that are no fault of the trigger: its definition says what is to happen while the key of its runs is held."""
MOST_TOPICS = 100
MOST_HEADERS = 20
OWN = "trigger."
"""What the topics of this slice begin with. No trigger fires on them."""

Topic = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z_]+\.[a-z_]+$")]
HeaderName = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z0-9-]+$")]
Scheme = Literal["standard", "github", "token"]
SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "webhook-signature", "x-api-key", "x-hub-signature", "x-hub-signature-256"}
)
"""Headers that no expression sees: they have secrets, or what is made of secrets."""
Status = Literal["active", "paused", "removed"]


class EventFilter(Value):
    """Which events it is about: those of any of the topics and slices, for which everything else holds."""

    topics: tuple[Topic, ...] = Field(default=(), max_length=MOST_TOPICS)
    slices: tuple[Name, ...] = Field(default=(), max_length=MOST_TOPICS)
    project_id: UUID | None = None
    """Only events of the runs of this project, and of the project itself."""
    when: Expression | None = None
    """A condition in CEL over `event`, which has the form of a CloudEvent."""

    @model_validator(mode="after")
    def _names_events(self) -> "EventFilter":
        if not self.topics and not self.slices:
            raise ValueError("name the events: at least one of `topics` and `slices`")
        if "triggers" in self.slices or any(topic.startswith(OWN) for topic in self.topics):
            raise ValueError("a trigger cannot fire on the events of triggers")
        return self


class Webhook(Value):
    """That it is about deliveries of a webhook, and how they prove where they come from."""

    scheme: Scheme
    headers: tuple[HeaderName, ...] = Field(default=(), max_length=MOST_HEADERS)
    """The headers that expressions see, in lower case."""
    when: Expression | None = None
    """A condition in CEL over `body` and `headers`."""

    @model_validator(mode="after")
    def _shows_no_secret(self) -> "Webhook":
        secret = sorted(SECRET_HEADERS.intersection(self.headers))
        if secret:
            raise ValueError(f"no expression sees the header {secret[0]}")
        return self


class TriggerDefinition(FiringLimits):
    """What people say of a trigger."""

    description: ShortText = ""
    on: EventFilter | None = None
    hook: Webhook | None = None
    start: Target
    project_id: UUID
    """Of the runs that it starts. The trigger belongs to it."""

    @model_validator(mode="after")
    def _has_one_source(self) -> "TriggerDefinition":
        if (self.on is None) == (self.hook is None):
            raise ValueError("give either `on`, for events, or `hook`, for a webhook")
        return self

    def said(self) -> Json:
        """As events hold it: what differs from the defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)


class TriggerCreated(Event):
    TOPIC = "trigger.created"
    name: str
    definition: Json
    """See `TriggerDefinition`. A JSON object, so that older readers survive a newer field."""
    hook_id: UUID | None = None
    """The last part of the address of its webhook."""
    within: tuple[UUID, ...] | None = None
    """The projects whose events it sees at most: those of the key that made it. None: of the whole tenant."""


class TriggerChanged(Event):
    TOPIC = "trigger.changed"
    name: str
    definition: Json
    within: tuple[UUID, ...] | None = None


class TriggerPaused(Event):
    TOPIC = "trigger.paused"
    name: str
    because: str
    """`asked`: by a person or a program. `misfires`: too many, one after the other."""
    reason: str | None = None


class TriggerResumed(Event):
    TOPIC = "trigger.resumed"
    name: str


class TriggerRemoved(Event):
    TOPIC = "trigger.removed"
    name: str


class TriggerFired(Event):
    TOPIC = "trigger.fired"
    name: str
    event: str | None = None
    """`<stream id>:<version>` of the event that it was about."""
    delivery: str | None = None
    """The id of the delivery that it was about, as its sender says."""
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    signal: str | None = Field(default=None, exclude_if=unsaid)
    """The name of the signal that `run_id` was sent. None: what it names was started."""
    depth: int = 1
    """How many firings of triggers led here, this one included."""
    minute: int
    """The minute since 1970 in which the event or the delivery was recorded: that of its limit."""


class TriggerMisfired(Event):
    TOPIC = "trigger.misfired"
    name: str
    event: str | None = None
    delivery: str | None = None
    code: str
    """`expression`, `loop`, or the code of the error that its start met."""
    error: str
    minute: int


class TriggerLimited(Event):
    """It would have fired more often than it may."""

    TOPIC = "trigger.limited"
    name: str
    count: int
    """Events or deliveries that started nothing for that."""
    minute: int
    """Of the last of them."""
    until: int | None = None
    """Position of the last of the events."""


TriggerEvent = (
    TriggerCreated | TriggerChanged | TriggerPaused | TriggerResumed | TriggerRemoved | TriggerFired | TriggerMisfired
    | TriggerLimited
)  # fmt: skip


class TriggerNotActive(InvalidState):
    """The trigger is paused or removed, or its webhook has another address now."""

    code = "trigger-not-active"


class TriggerOverLimit(InvalidState):
    """The trigger has fired as often in a minute as it may."""

    code = "trigger-over-limit"


@dataclass(frozen=True, slots=True)
class Trigger:
    status: Status | None = None
    """None: there has never been one of this name."""
    definition: Json = None
    max_per_minute: int = 600
    hook_id: UUID | None = None
    within: tuple[UUID, ...] | None = None
    because: str | None = None
    reason: str | None = None
    """Why it is paused."""
    misfires: int = 0
    """Since it fired last, or was changed or resumed."""
    minute: int = 0
    in_minute: int = 0
    """Firings and misfires of that minute."""
    limited_until: int = 0
    """Position of the last event that is counted as one over the limit."""

    @property
    def exists(self) -> bool:
        return self.status in ("active", "paused")


class CreateTrigger(Command):
    trigger_id: UUID
    name: Name
    definition: TriggerDefinition
    hook_id: UUID | None = None
    within: tuple[UUID, ...] | None = None


class ChangeTrigger(Command):
    trigger_id: UUID
    name: Name
    definition: TriggerDefinition
    within: tuple[UUID, ...] | None = None


class PauseTrigger(Command):
    trigger_id: UUID
    name: Name
    reason: ShortText | None = None


class ResumeTrigger(Command):
    trigger_id: UUID
    name: Name


class RemoveTrigger(Command):
    trigger_id: UUID
    name: Name


class FireTrigger(Command):
    """Goes along with what is started."""

    trigger_id: UUID
    name: Name
    hook_id: UUID | None = None
    event: str | None = None
    delivery: str | None = None
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    signal: str | None = None
    depth: int = 1
    minute: int


class RecordMisfire(Command):
    trigger_id: UUID
    name: Name
    event: str | None = None
    delivery: str | None = None
    code: str
    error: str
    minute: int


class RecordLimited(Command):
    trigger_id: UUID
    name: Name
    count: int = Field(ge=1)
    minute: int
    until: int | None = None


TriggerCommand = (
    CreateTrigger | ChangeTrigger | PauseTrigger | ResumeTrigger | RemoveTrigger | FireTrigger | RecordMisfire | RecordLimited
)


@lru_cache(maxsize=10_000)
def trigger_id_of(tenant_id: UUID, name: str) -> UUID:
    return derive_id(tenant_id, f"trigger:{name}")


def bounds_of(definition: Json, within: Sequence[UUID] | None) -> tuple[UUID, ...] | None:
    """The projects whose events a trigger can see at most. None: those of the whole tenant.

    `within`: those of the key that defined it. Of a webhook there are none: a trigger on one sees no events.
    """
    if definition.get("on") is None:
        return ()
    named = definition["on"].get("project_id")
    if named is not None and (within is None or UUID(named) in within):
        return (UUID(named),)
    return None if within is None else tuple(within)


def decide(trigger: Trigger, command: TriggerCommand) -> list[Event]:
    match command:
        case CreateTrigger():
            return _create(trigger, command)
        case FireTrigger():
            return _fire(trigger, command)
        case RecordMisfire():
            return _misfire(trigger, command)
        case RecordLimited():
            known = command.until is not None and command.until <= trigger.limited_until
            said = TriggerLimited(name=command.name, count=command.count, minute=command.minute, until=command.until)
            return [said] if trigger.status == "active" and not known else []
        case RemoveTrigger() if trigger.status == "removed":
            return []
        case _ if not trigger.exists:
            raise NotFound(f"there is no trigger '{command.name}'")
        case ChangeTrigger():
            return _change(trigger, command)
        case PauseTrigger():
            paused = TriggerPaused(name=command.name, because="asked", reason=command.reason)
            return [] if trigger.status == "paused" else [paused]
        case ResumeTrigger():
            return [] if trigger.status == "active" else [TriggerResumed(name=command.name)]
        case RemoveTrigger():
            return [TriggerRemoved(name=command.name)]
        case _:
            assert_never(command)


def _create(trigger: Trigger, command: CreateTrigger) -> list[Event]:
    if (command.hook_id is None) != (command.definition.hook is None):
        raise InvalidCommand("a trigger has an address exactly when it is about a webhook", pointer="/hook")
    if trigger.exists:
        raise AlreadyExists(f"there is a trigger '{command.name}' already: change it, or choose another name", pointer="/name")
    return [
        TriggerCreated(
            name=command.name, definition=command.definition.said(), hook_id=command.hook_id, within=command.within
        )
    ]  # fmt: skip


def _change(trigger: Trigger, command: ChangeTrigger) -> list[Event]:
    if (trigger.hook_id is None) != (command.definition.hook is None):
        raise InvalidState("a trigger on events stays one, and one on a webhook, too: remove it, and create another")
    hook = command.definition.hook
    if hook is not None and hook.scheme != trigger.definition["hook"]["scheme"]:
        raise InvalidState("a webhook keeps its scheme, for which its secrets are made: remove it, and create another")
    changed = TriggerChanged(name=command.name, definition=command.definition.said(), within=command.within)
    return [] if (trigger.definition, trigger.within) == (changed.definition, changed.within) else [changed]


def _fire(trigger: Trigger, command: FireTrigger) -> list[Event]:
    if trigger.status != "active" or trigger.hook_id != command.hook_id:
        raise TriggerNotActive(f"the trigger '{command.name}' is {trigger.status or 'not there'}")
    if _in_minute(trigger, command.minute) >= trigger.max_per_minute:
        raise TriggerOverLimit(f"the trigger '{command.name}' fires {trigger.max_per_minute} times in a minute at most")
    return [TriggerFired(**command.model_dump(exclude={"trigger_id", "hook_id"}))]


def _misfire(trigger: Trigger, command: RecordMisfire) -> list[Event]:
    """A misfire counts as a firing, so their number is bounded, too."""
    if trigger.status != "active":
        return []
    if _in_minute(trigger, command.minute) >= trigger.max_per_minute:
        raise TriggerOverLimit(f"the trigger '{command.name}' fires {trigger.max_per_minute} times in a minute at most")
    misfired = TriggerMisfired(**command.model_dump(exclude={"trigger_id"}))
    if command.code in WANTED or trigger.misfires + 1 < MOST_IN_A_ROW:
        return [misfired]
    reason = f"it misfired {MOST_IN_A_ROW} times in a row, the last time with: {command.code}: {command.error}"
    return [misfired, TriggerPaused(name=command.name, because="misfires", reason=reason[:500])]


def _in_minute(trigger: Trigger, minute: int) -> int:
    """What the minute has had already. A late event counts in the minute of now."""
    return trigger.in_minute if minute <= trigger.minute else 0


def evolve(trigger: Trigger, event: TriggerEvent) -> Trigger:
    match event:
        case TriggerCreated():
            return replace(
                _defined(trigger, event.definition), status="active", hook_id=event.hook_id, within=event.within, because=None,
                reason=None,
            )  # fmt: skip
        case TriggerChanged():
            return replace(_defined(trigger, event.definition), within=event.within)
        case TriggerPaused():
            return replace(trigger, status="paused", because=event.because, reason=event.reason)
        case TriggerResumed():
            return replace(trigger, status="active", because=None, reason=None, misfires=0)
        case TriggerRemoved():
            return replace(trigger, status="removed", hook_id=None, because=None, reason=None)
        case TriggerFired():
            return replace(_counted(trigger, event.minute), misfires=0)
        case TriggerMisfired():
            return replace(_counted(trigger, event.minute), misfires=trigger.misfires + (event.code not in WANTED))
        case TriggerLimited():
            return trigger if event.until is None else replace(trigger, limited_until=event.until)
        case _:
            assert_never(event)


def _defined(trigger: Trigger, definition: Json) -> Trigger:
    limit = definition.get("max_per_minute", FiringLimits.model_fields["max_per_minute"].default)
    return replace(trigger, definition=definition, max_per_minute=limit, misfires=0)


def _counted(trigger: Trigger, minute: int) -> Trigger:
    return replace(trigger, minute=max(minute, trigger.minute), in_minute=_in_minute(trigger, minute) + 1)


DECIDER: Decider[Trigger] = Decider("triggers", Trigger, decide, evolve)
