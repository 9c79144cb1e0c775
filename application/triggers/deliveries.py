"""Deliveries of webhooks: who sends proves itself by a signature, and starts what the trigger of the webhook starts."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.hook_secrets import HookSecrets
from application.engine.ports.log import EventStore
from application.engine.retry import persistently
from application.triggers.firing import Firing, KnownTrigger, Misfire, fits
from application.triggers.index import definition_of
from application.triggers.occurrences import Occurrence
from application.triggers.signatures import proven
from domain import triggers
from domain.errors import InvalidCommand, InvalidState, TidelogError, Unauthenticated, Unavailable
from domain.kernel import Functions, Json, Spent, derive_id
from domain.triggers import DECIDER, RecordLimited, Scheme, Trigger, TriggerOverLimit, trigger_id_of

MOST_LOOKS = 4
"""Deliveries whose secrets a process looks up at once. The others wait for a moment: strangers must not take all connections."""
LOOK_S = 5.0
COUNTED_S = 10.0
"""Seconds for which deliveries over a limit are counted together."""
LAST_S = 2.0
BODY_BYTES = 256 * 1024
Reader = Callable[[bytes], Json]
NOT_PROVEN = "there is no such webhook, or the signature is not one of its secrets"

log = structlog.get_logger(__name__)


class DeliveryRefused(InvalidCommand):
    """The trigger cannot start anything for the delivery. Again: neither."""

    code = "delivery-refused"


class TooManyDeliveries(TidelogError):
    """The trigger has fired as often in a minute as it may."""

    code = "too-many-deliveries"
    retryable = True


@dataclass(frozen=True, slots=True)
class HookDelivery:
    hook_id: UUID
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    delivery: str
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    """Neither: the condition of the trigger does not hold."""


class Deliveries:
    def __init__(
        self, commands: CommandLoop, store: EventStore, secrets: HookSecrets, firing: Firing, functions: Functions
    ) -> None:
        self._commands = commands
        self._store = store
        self._limits = LimitCounter(commands)
        self._secrets = secrets
        self._firing = firing
        self._functions = functions
        self._looking = asyncio.Semaphore(MOST_LOOKS)

    async def close(self) -> None:
        await self._limits.close()

    async def take(self, delivery: HookDelivery, read: Reader) -> Delivered:
        """Starts what the trigger of the webhook starts; a repeat of the delivery gets the same answer.

        `read`: the JSON value of a body. It is called once the sender has proven itself, and may raise a TidelogError.

        Raises:
            Unauthenticated: there is no such webhook, or the sender did not prove itself. Nobody can tell which.
            InvalidState: the trigger is paused. DeliveryRefused, TooManyDeliveries, Unavailable.
        """
        id, tenant_id, name = await self._sender(delivery)
        trigger_id = trigger_id_of(tenant_id, name)
        state: Trigger = (await self._commands.load(DECIDER, tenant_id, trigger_id)).state
        if not state.exists or state.hook_id != delivery.hook_id:
            raise Unauthenticated(NOT_PROVEN)
        definition = definition_of(state.definition)
        if definition is None or definition.hook is None:
            raise Unavailable("the trigger is of a later release: try again after the upgrade")
        command_id = derive_id(trigger_id, f"delivery:{delivery.hook_id}:{id}")
        if (known := await self._answered(tenant_id, trigger_id, command_id, id)) is not None:
            return known
        if state.status == "paused":
            raise InvalidState("the trigger is paused")
        shown = {header: delivery.headers[header] for header in definition.hook.headers if header in delivery.headers}
        values: dict[str, Json] = {"body": read(delivery.body), "headers": shown}
        occurrence = Occurrence(
            tenant_id, datetime.now(UTC), values, command_id, str(command_id), delivery.traceparent, delivery=id
        )  # fmt: skip
        trigger = KnownTrigger(tenant_id, trigger_id, name, definition, delivery.hook_id, state.within)
        return await self._fire(trigger, occurrence, command_id)

    async def _sender(self, delivery: HookDelivery) -> tuple[str, UUID, str]:
        """The id of the delivery, the tenant, and the name of the trigger. Raises Unauthenticated, Unavailable."""
        try:
            async with asyncio.timeout(LOOK_S), self._looking:
                owner = await self._secrets.find(delivery.hook_id)
        except TimeoutError:
            raise Unavailable("the webhook could not be looked up in time") from None
        scheme = "standard" if owner is None else cast(Scheme, owner.scheme)
        id = proven(scheme, () if owner is None else owner.secrets, delivery.headers, delivery.body, time.time())
        if owner is None or id is None:
            raise Unauthenticated(NOT_PROVEN)
        return id, owner.tenant_id, owner.name

    async def _answered(self, tenant_id: UUID, trigger_id: UUID, command_id: UUID, id: str) -> Delivered | None:
        """The answer to a delivery that came before and started something."""
        record = await self._store.find_command(tenant_id, command_id)
        for event in () if record is None else await self._store.read_append(tenant_id, record):
            if event.stream_id == trigger_id:
                fired = self._commands.registry.decoded(event)
                assert isinstance(fired, triggers.TriggerFired)
                return Delivered(id, fired.run_id, fired.invocation_id)
        return None

    async def _fire(self, trigger: KnownTrigger, occurrence: Occurrence, command_id: UUID) -> Delivered:
        assert occurrence.delivery is not None
        spent, new = Spent(), uuid7()
        try:
            try:
                if not fits(trigger, occurrence.values, self._functions, spent):
                    return Delivered(occurrence.delivery)
                started = await self._firing.fire(trigger, occurrence, id=new, command_id=command_id, spent=spent)
            except Misfire as misfire:
                await self._firing.record(trigger, occurrence, misfire)
                raise DeliveryRefused(f"{misfire.code}: {misfire.error}") from None
        except TriggerOverLimit as error:
            self._limits.count(trigger, occurrence.minute)
            raise TooManyDeliveries(error.message) from None
        is_call = trigger.definition.start.tool is not None
        return Delivered(occurrence.delivery, None if is_call else started.id, started.id if is_call else None)


class LimitCounter:
    """Counts deliveries over the limits of their triggers, and records the counts from time to time: one event for many."""

    def __init__(self, commands: CommandLoop, *, every_s: float = COUNTED_S) -> None:
        self._commands = commands
        self._every_s = every_s
        self._counts: dict[UUID, tuple[KnownTrigger, int, int]] = {}
        """By trigger: how many, and the minute of the last one."""
        self._recording = OnDemand(self._work, "count-deliveries")

    def count(self, trigger: KnownTrigger, minute: int) -> None:
        known = self._counts.get(trigger.trigger_id)
        self._counts[trigger.trigger_id] = (trigger, 1 if known is None else known[1] + 1, minute)
        with suppress(Unavailable):  # the process stops: what was counted is recorded at its end
            self._recording.start()

    async def close(self) -> None:
        await self._recording.close()
        with suppress(TidelogError, TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.record()

    async def _work(self) -> None:
        while self._counts:
            await asyncio.sleep(self._every_s)
            await persistently(self.record)

    async def record(self) -> None:
        """Raises Unavailable: what is not recorded yet stays counted."""
        for trigger_id, (trigger, count, minute) in list(self._counts.items()):
            command = RecordLimited(trigger_id=trigger_id, name=trigger.name, count=count, minute=minute)
            id = uuid7()
            del self._counts[trigger_id]
            try:
                await self._commands.execute(CommandRequest(trigger.tenant_id, "system", id, id, str(id), checked=True), command)
            except Unavailable:
                known = self._counts.get(trigger_id)
                self._counts[trigger_id] = (trigger, count + (0 if known is None else known[1]), minute)
                raise
            except TidelogError as error:
                log.warning("deliveries_not_counted", trigger=trigger.name, count=count, error=error.message)
