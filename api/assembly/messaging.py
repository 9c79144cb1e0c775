"""The connection to NATS, the queue that workers pull from, and the calls between processes."""

from adapters.nats import JetStreamWorkQueue, NatsConnection, NatsPositionCalls, names
from api.assembly import access, storage
from api.assembly.parts import Parts, part
from application.engine.ports.positions import PositionCalls
from application.engine.ports.queue import WorkQueue


@part
async def nats(parts: Parts) -> NatsConnection:
    _, url = access.urls(parts.settings)
    security = access.nats_security(parts.settings)
    connection = NatsConnection(url, name=f"tidelog-{parts.name}", security=security, inbox_prefix=names.INBOX)
    await connection.start()
    parts.stack.push_async_callback(connection.close)
    parts.loops["nats"] = connection.failed
    return connection


@part
async def work_queue(parts: Parts) -> WorkQueue:
    return JetStreamWorkQueue(await nats(parts), log_id=await storage.log_id(parts), replicas=parts.settings.nats_replicas)


@part
async def position_calls(parts: Parts) -> PositionCalls:
    """How a process that waits for a read model reaches the process that moves it."""
    return NatsPositionCalls(await nats(parts), await storage.log_id(parts))
