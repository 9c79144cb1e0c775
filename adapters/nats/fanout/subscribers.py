"""The consumers of tenants that subscribe to the fan-out: one durable consumer for each, made by the server.

A tenant may not make a consumer: whoever makes one names the subject to which it delivers, and that can be any subject of the
stream's account. So the tenant gets a consumer that is ready, with the filter of its events.
"""

import asyncio
import contextlib
from uuid import UUID

import nats.errors

from adapters.nats import names
from adapters.nats.connection import NatsConnection
from adapters.nats.jetstream import API, STREAM_NOT_FOUND, JetStreamError, call
from adapters.nats.security import NatsSecurity, SecuredClient
from domain.errors import Unavailable

_TENANT = "tidelog-tenant"
"""Key of a consumer's metadata."""
_CONSUMER_NOT_FOUND = 10014
_BAD_REQUEST = "400"
_ACK_WAIT_S = 30
_MAX_PENDING = 1_000
_SECOND = 1_000_000_000


class NoFanOut(Unavailable):
    """The log has no stream of the fan-out on this NATS."""


async def make(connection: NatsConnection, log_id: str, tenant_id: UUID) -> None:
    """Makes the consumer of a tenant, at the first message that the stream keeps. One that is there stays where it is.

    Raises NoFanOut, Unavailable.
    """
    stream, consumer = names.events_stream(names.checked(log_id)), names.subscriber(tenant_id)
    events = f"{names.event_subjects(log_id, tenant_id)}.>"
    configuration = {
        "durable_name": consumer,
        "name": consumer,
        "description": f"events of tenant {tenant_id}",
        "filter_subject": events,
        "ack_policy": "explicit",
        "ack_wait": _ACK_WAIT_S * _SECOND,
        "max_ack_pending": _MAX_PENDING,
        "max_deliver": -1,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "metadata": {_TENANT: str(tenant_id)},
    }
    try:
        await call(connection, f"CONSUMER.CREATE.{stream}.{consumer}.{events}", {"stream_name": stream, "config": configuration})
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            raise NoFanOut(f"there is no stream {stream} on this NATS") from error
        raise


async def remove(connection: NatsConnection, log_id: str, tenant_id: UUID) -> None:
    """Raises Unavailable."""
    try:
        await call(connection, f"CONSUMER.DELETE.{names.events_stream(log_id)}.{names.subscriber(tenant_id)}")
    except JetStreamError as error:
        if error.err_code not in (STREAM_NOT_FOUND, _CONSUMER_NOT_FOUND):
            raise


async def consumers(connection: NatsConnection, stream: str) -> list[UUID]:
    """The tenants that have a consumer at a stream. Raises Unavailable."""
    found: list[UUID] = []
    offset, total = 0, 1
    while offset < total:
        answer = await call(connection, f"CONSUMER.LIST.{stream}", {"offset": offset})
        page = answer.get("consumers") or []
        for consumer in page:
            with contextlib.suppress(ValueError):  # a consumer that people made
                found.append(UUID((consumer["config"].get("metadata") or {}).get(_TENANT, "")))
        offset, total = offset + len(page), answer.get("total", 0) if page else 0
    return found


async def lets_in(url: str, security: NatsSecurity, log_id: str, tenant_id: UUID, *, timeout: float) -> bool:
    """Whether the user of a tenant in `url` may connect and reaches its consumer."""
    client = SecuredClient(security, require_tls=security.asks_for_tls([url]))

    async def told_by_the_answer(_: Exception) -> None: ...

    try:
        async with asyncio.timeout(timeout):
            options = {"allow_reconnect": False, "max_reconnect_attempts": 1, "error_cb": told_by_the_answer}
            await client.connect([url], connect_timeout=2, **options, **client.security_options())
            consumer = f"{names.events_stream(log_id)}.{names.subscriber(tenant_id)}"
            # The consumer refuses what is no request, and so gives nothing out.
            answer = await client.request(f"{API}.CONSUMER.MSG.NEXT.{consumer}", b"{", timeout=timeout)
            return (answer.headers or {}).get("Status") == _BAD_REQUEST
    except (nats.errors.Error, OSError, TimeoutError):
        return False
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(1):
                await client.close()
