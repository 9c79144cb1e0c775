"""The connection to NATS, and the queue that workers pull from."""

from adapters.nats import JetStreamWorkQueue, NatsConnection
from api.assembly import access, storage
from api.assembly.parts import Parts, part
from application.engine.ports.queue import WorkQueue


@part
async def nats(parts: Parts) -> NatsConnection:
    _, url = access.urls(parts.settings)
    connection = NatsConnection(url, name=f"tidelog-{parts.name}", security=access.nats_security(parts.settings))
    await connection.start()
    parts.stack.push_async_callback(connection.close)
    parts.loops["nats"] = connection.failed
    return connection


@part
async def work_queue(parts: Parts) -> WorkQueue:
    return JetStreamWorkQueue(await nats(parts), log_id=await storage.log_id(parts), replicas=parts.settings.nats_replicas)
