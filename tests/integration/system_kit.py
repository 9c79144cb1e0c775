"""For tests of the whole server in one process: an assembled container whose loops run, its HTTP interface, and a played worker.

All parts are real: Postgres, NATS, the ASGI application. The functions wait for conditions, never for a fixed time.
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx2
import nats.errors
import nats.js.errors
import psycopg
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier
from starlette.types import ASGIApp
from uuid_utils.compat import uuid7
from uvicorn.server import ServerState

from adapters.embedded import EmbeddedServices
from adapters.nats.names import work_subjects
from adapters.nats.security import NatsSecurity, SecuredClient
from api.assembly import assemble, log_streams, storage
from api.assembly.parts import Overrides
from api.container import Container
from api.http.app import create_app
from api.http.conventions.door import Limits
from api.http.conventions.middleware import Gate
from api.http.server import make_server
from api.settings import ROLES, Role, Settings
from application.engine.background import end
from application.engine.commands.request import CommandRequest
from application.engine.ports.log import EventStore, NewEvent, StreamAppend, Subscription, one_command
from application.engine.sagas.manager import PARTITIONS
from application.setup import set_up
from application.triggers.matcher import CHECKPOINT
from domain.errors import ProjectionBehind, Unavailable
from domain.kernel import Command, Event, RecordedEvent, derive_id
from domain.projects import CreateProject, default_project_id
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID, CreateTenant, IssueApiKey
from projections.kernel import Connection, Database
from projections.registry import PROJECTIONS
from tests.integration.played_worker import PlayedWorker
from tests.kit.copies import copy_database
from tests.pace import ANSWER_S, within
from tidelog.http_client import http_client
from tidelog.sse import ServerSentEvent, parse_sse

T = TypeVar("T")
PATIENCE_S = 15.0
NAMES = (*(projection.name for projection in PROJECTIONS), *PARTITIONS, CHECKPOINT)
BASE = "http://tidelog.test"


def new_id() -> UUID:
    return uuid7()


async def eventually(condition: Callable[[], Awaitable[T | None]], what: str = "the condition", timeout_s: float = PATIENCE_S) -> T:
    """Returns the first truthy answer of a condition."""
    answer: T | None = None
    try:
        async with within(timeout_s):
            while True:
                answer = await condition()
                if answer:
                    return answer
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {timeout_s:g} s; last: {answer!r}") from None


async def stopped(*tasks: asyncio.Task[None]) -> list[BaseException | None]:
    """Ends the tasks, and returns the exceptions that they raised."""
    async with within(PATIENCE_S):
        await end(*tasks)
    return await asyncio.gather(*tasks, return_exceptions=True)


def request_of(tenant_id: UUID = DEFAULT_TENANT_ID, command_id: UUID | None = None, *, repeatable: bool = False) -> CommandRequest:
    """Metadata for a command that the test itself gives."""
    command_id = command_id or new_id()
    return CommandRequest(tenant_id, "test", command_id, command_id, "test", repeatable=repeatable)


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class OfOneClient(httpx2.ASGITransport):
    """Asks an application that ends with its client.

    An application that went on would write down the last uses of its keys in the middle of later tests.
    """

    def __init__(self, app: Gate, **options: Any) -> None:
        super().__init__(app, **options)
        self._close: Callable[[], Awaitable[None]] | None = app.close

    async def aclose(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()


class System:
    """A running server, and the ways in which a test watches and uses the server."""

    store: EventStore
    """The only writer that skips the domain's rules: no route appends a broken event."""
    subscription: Subscription

    def __init__(
        self, container: Container, database_url: str, http: httpx2.AsyncClient, key: str, nats: NatsClient, app: ASGIApp
    ) -> None:
        self.container = container
        self.database_url = database_url
        self.http = http
        """A client with the key of the default tenant."""
        self.key = key
        self.nats = nats
        self.app = app
        self.opened = contextlib.AsyncExitStack()
        """Closed before the server stops: its HTTP server, the connections of its played workers."""
        self._url: str | None = None
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def client(self, key: str | None, *, container: Container | None = None, **options: Any) -> httpx2.AsyncClient:
        """Another client of the same application, or of another container's application. The caller closes the client."""
        transport = OfOneClient(create_app(container or self.container), raise_app_exceptions=False)
        self.opened.push_async_callback(transport.aclose)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.AsyncClient(transport=transport, base_url=BASE, headers=headers, timeout=ANSWER_S, **options)

    async def url(self) -> str:
        """The URL of the server. The first call lets it listen."""
        if self._url is None:
            self._url = await self.opened.enter_async_context(listening(self.app))
        return self._url

    async def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def command(self, *commands: Command, tenant_id: UUID = DEFAULT_TENANT_ID) -> int:
        return (await self.container.commands.execute(request_of(tenant_id), *commands)).position

    async def settled(self) -> int:
        """Makes every consumer handle the whole log, so that no more events follow by themselves. Returns the head.

        A bulk action goes on by itself until it is over.
        """
        query = (
            "SELECT (SELECT position FROM log_head), min(position), max(position), count(*),"
            " (SELECT count(*) FROM bulk_action WHERE status IN ('selecting', 'acting')) FROM checkpoint"
        )
        async with self.container.database.connection() as connection:

            async def all_at_head() -> int:
                head, positions = await self.container.feed.head(), self.container.positions  # pulled
                await asyncio.gather(*(positions.until(name, head, 0.1) for name in NAMES), return_exceptions=True)
                [(reached, *others, count, going)] = await (await connection.execute(query)).fetchall()
                for task in self.tasks.values():
                    assert not task.done(), f"{task.get_name()} ended: {task}"
                return int(reached) if others == [reached, reached] and count == len(NAMES) and not going else 0

            return await eventually(all_at_head, "all consumers at the head of the log")

    async def copied(self) -> int:
        """Waits until the relay has copied the whole log.

        Readers that read the database may reach the head earlier. Returns the head.
        """

        async def all_there() -> int:
            head = await self.container.feed.head()
            return head if (await self.container.streams()).get("relay") == head else 0

        return await eventually(all_there, "the relay at the head of the log")

    async def events(self, run_id: UUID | str | None = None, tenant_id: UUID = DEFAULT_TENANT_ID) -> list[RecordedEvent]:
        """Events of a run, or of the tenant, straight from the log."""
        root_id = UUID(str(run_id)) if run_id is not None else None
        return await self.container.feed.read_tenant(tenant_id, after=0, limit=100_000, root_id=root_id)

    async def topics(self, run_id: UUID | str) -> list[str]:
        return [event.topic for event in await self.events(run_id)]

    async def until_topic(self, run_id: UUID | str, topic: str, count: int = 1) -> list[RecordedEvent]:
        async def there() -> list[RecordedEvent]:
            found = [event for event in await self.events(run_id) if event.topic == topic]
            return found if len(found) >= count else []

        return await eventually(there, f"{count} × {topic}")

    async def start(self, *agents: str, **body: Any) -> str:
        """Starts a sequential run of agents (or what `body` says) and returns its id."""
        plan = {"plan": {"kind": "sequential", "agents": list(agents)}} if agents else {}
        response = await self.http.post("/v1/runs", json={**plan, **body})
        assert response.status_code == 201, response.text
        return str(response.json()["run_id"])

    async def run(self, run_id: str) -> dict[str, Any]:
        """The run as the read model shows it, after the read model has handled the whole log."""
        await self.container.positions.until("runs", await self.container.feed.head(), 15)
        response = await self.http.get(f"/v1/runs/{run_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def ended(self, run_id: str) -> dict[str, Any]:
        """Waits for the end of the run, and until no more events follow. Returns the run."""

        async def over() -> dict[str, Any] | None:
            run = await self.run(run_id)
            return run if run["status"] != "running" else None

        await eventually(over, f"the end of run {run_id}")
        await self.settled()
        return await self.run(run_id)

    async def tenant(self, name: str) -> tuple[UUID, str]:
        """Makes another tenant. Returns the tenant and its key."""
        tenant_id, key = new_id(), secrets.token_hex(16)
        await self.command(CreateTenant(tenant_id=tenant_id, name=name), tenant_id=tenant_id)
        await self.command(CreateProject(project_id=default_project_id(tenant_id), name="default"), tenant_id=tenant_id)
        await self.command(IssueApiKey(tenant_id=tenant_id, key_id=new_id(), label="test", sha256=sha256(key)), tenant_id=tenant_id)
        await self.settled()
        return tenant_id, key

    def worker(self, worker_id: str = "worker-1", http: httpx2.AsyncClient | None = None) -> PlayedWorker:
        return PlayedWorker(self, worker_id, http or self.http)


class CountingDatabase:
    """The database with a counter of the connections that were taken from its pool."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.taken = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.taken += 1
        async with self._database.connection() as connection:
            yield connection


async def append(system: System, stream_id: UUID, root_id: UUID, version: int, *events: Event | NewEvent) -> int:
    """Appends to the log without the domain's rules."""
    new = tuple(e if isinstance(e, NewEvent) else NewEvent(e.TOPIC, e.VERSION, REGISTRY.encode(e)) for e in events)
    request = request_of()
    stream = StreamAppend(stream_id, root_id, version, new)
    return (
        await system.store.append(one_command(DEFAULT_TENANT_ID, request.command_id, (stream,), request.metadata()))
    ).last_position


async def nats_client_of(url: str, **options: Any) -> NatsClient:
    """A client of the test's own.

    The library's plain client leaves sockets open when a reconnect fails half-way; this client does not.
    """
    client = SecuredClient(NatsSecurity(), require_tls=False)
    await client.connect(url, **options)
    return client


@asynccontextmanager
async def running(
    database_url: str,
    nats_url: str,
    *,
    roles: Iterable[Role] = ROLES,
    loops: Iterable[str] | None = None,
    key: str | None = None,
    given: Overrides | None = None,
    **settings: Any,
) -> AsyncIterator[System]:
    """Runs a server with these roles and these of their loops (None: all loops) until the end of the block.

    The server is ready for requests when the block begins. A loop that fails ends the block.

    `given`: parts that replace parts of the server.
    """
    key = key or secrets.token_hex(16)
    # Only requests for data that are not there wait for the whole read time-out.
    options = {"read_timeout_s": PATIENCE_S, "database_pool_size": 10, **settings}
    configured = Settings(database_url=database_url, nats_url=nats_url, **options)
    async with contextlib.AsyncExitStack() as stack:
        nats_client = await nats_client_of(nats_url)
        stack.push_async_callback(nats_client.close)
        assembly = await stack.enter_async_context(assemble(configured, {*roles, "api"}, **(given or {})))
        assert assembly.container is not None
        app = create_app(assembly.container)
        transport = OfOneClient(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        http = await stack.enter_async_context(
            httpx2.AsyncClient(transport=transport, base_url=BASE, headers=headers, timeout=ANSWER_S)
        )
        system = System(assembly.container, database_url, http, key, nats_client, app)
        system.store, system.subscription = await storage.store(assembly.parts), await log_streams.subscription(assembly.parts)
        for name, loop in assembly.loops.items():
            if loops is None or name in (*loops, "sharing"):
                system.tasks[name] = asyncio.create_task(loop, name=name)
            else:
                loop.close()
        try:
            async with system.opened:
                yield system
        finally:
            for ended in await stopped(*system.tasks.values()):
                if isinstance(ended, Exception):
                    raise ended  # even if the block failed: this is why


async def issue_key_without_projector(system: System) -> None:
    """The system's key, in the log and in the read model, where nothing moves the read model."""
    digest = sha256(system.key)
    await set_up(system.container.commands, key_sha256=digest)
    key_id = derive_id(DEFAULT_TENANT_ID, f"key:{digest}")
    await system.sql("INSERT INTO api_key VALUES (%s, %s, %s, 'test', now())", key_id, DEFAULT_TENANT_ID, digest)


async def issue_key(system: System) -> None:
    """Sets up the installation with the system's key, and waits until the key can be used."""
    position = await set_up(system.container.commands, key_sha256=sha256(system.key))

    async def usable() -> bool:
        with contextlib.suppress(ProjectionBehind, Unavailable):
            await system.container.positions.until("tenants", position, 0.5)  # pulled: nothing else may move the read model soon
            return True
        return False

    await eventually(usable, "the first key")


async def work_stream_of(jetstream: JetStreamContext) -> str:
    """The work queue of the only log that has a work queue on this server. Raises NotFoundError."""
    return str(await jetstream.find_stream_name_by_subject(f"{work_subjects('*')}.>"))


async def empty_work_queue(nats_url: str) -> None:
    """Deletes the work queues of earlier tests. Each test's log has its own queue, and the queues would pile up on the server."""
    client = await nats_client_of(nats_url)
    try:
        with contextlib.suppress(nats.js.errors.NotFoundError):
            jetstream = client.jetstream(timeout=ANSWER_S)
            while True:
                await jetstream.delete_stream(await work_stream_of(jetstream))
    finally:
        await client.close()


@asynccontextmanager
async def fresh_database(services: EmbeddedServices, *, copy_of: str = "dbname=tidelog_template") -> AsyncIterator[str]:
    """Copies a database that nobody uses. The default is the migrated database of the fixture `services`."""
    name, owner = f"test_{secrets.token_hex(16)}", str(conninfo_to_dict(services.database_url)["user"])
    copied = str(conninfo_to_dict(copy_of)["dbname"])
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as connection:
        await copy_database(connection, copied, name, owner)
        try:
            yield make_conninfo(services.database_url, dbname=name)
        finally:
            await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """Takes connections for an application, as the HTTP server does, and yields the URL. Ends at once, unlike the server."""
    config = make_server(app, Limits(), host="127.0.0.1", port=0).config
    config.load()
    state, connection = ServerState(), cast("Any", config.http_protocol_class)
    made = await asyncio.get_running_loop().create_server(
        lambda: connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}"
    finally:
        made.close()
        async with within(PATIENCE_S):
            while state.tasks:
                await asyncio.wait(state.tasks)


@asynccontextmanager
async def served(container: Container, limits: Limits | None = None) -> AsyncIterator[str]:
    """Runs the container's application on a real HTTP server, and yields the server's URL."""
    app = create_app(container)
    server = make_server(app, limits or Limits(), host="127.0.0.1", port=0)
    task = asyncio.create_task(server.serve(), name="uvicorn")
    try:

        async def listening() -> bool:
            assert not task.done(), task
            return server.started

        await eventually(listening, "the HTTP server")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        await app.close()


def position_of(event: ServerSentEvent) -> int:
    """The parts of the event's id: `<position>-<history>-<seal>`."""
    return int(event.id.partition("-")[0])


class Stream:
    """An event stream that a test reads."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._events = parse_sse(response.aiter_bytes())

    async def next(self, timeout_s: float = PATIENCE_S) -> ServerSentEvent:
        async with within(timeout_s):
            return await anext(self._events)

    async def rest(self, timeout_s: float = PATIENCE_S) -> list[ServerSentEvent]:
        """Reads everything up to the end of the response."""
        async with within(timeout_s):
            return [event async for event in self._events]


@asynccontextmanager
async def streaming(url: str, key: str, path: str, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator[Stream]:
    asked = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream", **(headers or {})}
    async with (
        http_client(url, timeout_s=ANSWER_S) as client,
        client.stream("GET", path, params=query, headers=asked) as response,
    ):
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        yield Stream(response)
