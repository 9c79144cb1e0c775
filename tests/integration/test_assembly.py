"""The composition root: each part can be replaced by a keyword, and a replaced part is not built."""

import contextlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest
import pytest_asyncio

import api.assembly
from adapters.embedded import EmbeddedServices
from adapters.postgres.read_models.schedules import PostgresDueSchedules
from adapters.postgres.read_models.timers import PostgresTimers
from api.assembly import assemble, storage
from api.assembly.parts import Overrides, Parts
from api.settings import ROLES, Settings
from tests.integration.assembly_kit import left_alone
from tests.integration.system_kit import PATIENCE_S, System, eventually, fresh_database, issue_key, running

NAMES = sorted(Overrides.__annotations__)
MADE_WHERE_THEY_ARE_USED = {"timers", "due_schedules"}
"""Parts without a function of their name: a listener lives as long as the process fires timers."""
NO_OBJECTS = {"log_id"}
FANOUT_BYTES = 16 * 1024**2
"""The smallest allowed value: the server of the tests reserves this space for each stream."""


def makers() -> dict[str, Callable[[Parts], Awaitable[Any]]]:
    """All functions that are marked as the maker of a part, by name."""
    found = {}
    for info in pkgutil.walk_packages(api.assembly.__path__, "api.assembly."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and "makes" in getattr(value, "__dict__", ()):
                assert name not in found, f"two make {name}"
                found[name] = value
    return found


SYSTEMS = 16
"""So many systems are started, each with a few given parts."""


class Noting:
    """A part, and whether the part was used."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self._used = False

    def _get(self) -> Any:
        self._used = True
        return self._part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def __call__(self, *arguments: Any) -> Any:
        return self._get()(*arguments)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._get())

    def __len__(self) -> int:
        return len(self._get())

    def __getitem__(self, key: Any) -> Any:
        return self._get()[key]


@pytest_asyncio.fixture
async def real(database_url: str, nats_url: str) -> AsyncIterator[Parts]:
    async with parts_on(database_url, nats_url) as parts:
        yield parts


@asynccontextmanager
async def parts_on(database_url: str, nats_url: str) -> AsyncIterator[Parts]:
    """Parts without a running process: each part is built when a test asks for it."""
    settings = Settings(database_url=database_url, nats_url=nats_url, fanout=True, fanout_max_bytes=FANOUT_BYTES)  # type: ignore[arg-type]  # pydantic turns the values into secrets
    async with AsyncExitStack() as stack:
        yield Parts(settings, frozenset(ROLES), stack, {})


async def of(real: Parts, name: str) -> Any:
    if name == "timers":
        return PostgresTimers(await storage.database(real), await storage.history_signal(real))
    if name == "due_schedules":
        return PostgresDueSchedules(await storage.database(real), await storage.history_signal(real))
    return await makers()[name](real)


def test_every_keyword_has_one_maker() -> None:
    assert set(makers()) | MADE_WHERE_THEY_ARE_USED == set(NAMES)


OBJECTS = [name for name in NAMES if name not in NO_OBJECTS]


@pytest.mark.parametrize("names", [OBJECTS[first::SYSTEMS] for first in range(SYSTEMS)], ids=" ".join)
async def test_a_part_that_is_given_is_the_one_that_is_used(services: EmbeddedServices, names: list[str]) -> None:
    """A part may be needed by nobody but another given part. Then it is given alone."""
    for name in await unused(services, names, 2):
        assert not await unused(services, [name], PATIENCE_S), f"nobody uses {name}"


async def unused(services: EmbeddedServices, names: list[str], patience_s: float) -> list[str]:
    """The parts that nobody uses in a system to which all of them are given."""
    async with fresh_database(services) as url, parts_on(url, services.nats_url) as real:
        notings = {name: Noting(await of(real, name)) for name in names}
        given, fanout = cast(Overrides, notings), "fanout" in names
        async with running(url, services.nats_url, given=given, fanout=fanout, fanout_max_bytes=FANOUT_BYTES) as system:
            await use(system)

            async def all_used() -> bool:
                return all(noting._used for noting in notings.values())

            with contextlib.suppress(AssertionError):
                await eventually(all_used, "somebody who uses each", patience_s)
            return [name for name, noting in notings.items() if not noting._used]


async def use(system: System) -> None:
    """Uses every kind of part: commands, waits for a read model and for the end of a run, work of an agent, the definition of a
    tool, health, read models."""
    await issue_key(system)
    worker = system.worker()
    await worker.register("alpha")
    hook = {"name": "hook", "hook": {"scheme": "token"}, "start": {"agent": "alpha"}}
    assert (await system.http.post("/v1/triggers", json=hook)).status_code == 201
    trigger = {"name": "ended", "on": {"topics": ["run.completed"]}, "start": {"agent": "alpha"}}
    assert (await system.http.post("/v1/triggers", json=trigger)).status_code == 201
    run_id = (await system.http.post("/v1/runs", json={"agent": "alpha"}, headers={"Prefer": "wait=0"})).json()["run_id"]
    await (await worker.next("alpha")).complete("done")
    await system.until_topic(run_id, "run.completed")
    waited = await system.http.post("/v1/runs", json={"agent": "alpha"}, headers={"Prefer": "wait=1", "Idempotency-Key": "k"})
    read = await system.http.get("/v1/runs", headers={"Tidelog-Position": str(waited.json()["position"])})
    assert (waited.status_code, read.status_code) == (201, 200)
    tool = {"name": "clock", "version": "1", "kind": "builtin", "builtin": "time.now", "parameters": {"type": "object"}}
    assert (await system.http.post("/v1/tools", json=tool)).status_code == 201
    steps = {"steps": [{"tool": "clock", "arguments": {}}], "result": "1 + 1"}
    chain = {"name": "twice", "version": "1", "kind": "chain", "chain": steps, "parameters": {"type": "object"}}
    assert (await system.http.post("/v1/tools", json=chain)).status_code == 201
    await system.container.workers.sessions.tokens.ready()
    assert (await system.container.sessions.held_by([UUID(run_id)])).work == []

    async def ready() -> bool:
        return (await system.http.get("/health/ready")).status_code == 200

    await eventually(ready, "readiness")  # the report gives each look two seconds, on a busy machine, too
    for path in ("/v1/projections", "/v1/projections/sagas/parked", "/v1/log/gaps", "/v1/blobs", f"/v1/ids/{run_id}"):
        assert (await system.http.get(path)).status_code == 200
    assert (await system.http.get("/v1/runs", headers={"Authorization": "Bearer wrong"})).status_code == 401
    signed_in = await system.http.post("/v1/sessions", json={"key": system.key})
    by_cookie = {"Cookie": signed_in.headers["Set-Cookie"].partition(";")[0], "Authorization": ""}
    assert (await system.http.get("/v1/runs", headers=by_cookie)).status_code == 200


async def test_the_id_of_the_log_is_replaced_too(real: Parts) -> None:
    async with assemble(real.settings, {"saga"}, log_id="another") as assembly:
        await left_alone(assembly)
        queue = assembly.parts.made["work_queue"]
        assert "another" in queue.stream.lower()


async def test_what_only_replaced_parts_need_is_not_built(real: Parts) -> None:
    """No connection to NATS and no writer are made if no remaining part uses them."""
    given: Overrides = {
        "store": await of(real, "store"),
        "subscription": await of(real, "subscription"),
        "work_queue": await of(real, "work_queue"),
        "position_calls": await of(real, "position_calls"),
        "streams": await of(real, "streams"),
        "fanout": None,
        "witnesses": (),
        "dependencies": {},
    }
    async with assemble(real.settings, ROLES[:1], **given) as assembly:
        await left_alone(assembly)
        assert assembly.container is not None and assembly.container.work_queue is given["work_queue"]
        assert "nats" not in assembly.parts.made
        assert set(assembly.loops) == {"histories", "live", "notifications", "sessions", "sharing", "snapshots"}


async def test_relay_and_projector_have_no_writer(real: Parts) -> None:
    async with assemble(real.settings, {"relay", "projector"}) as assembly:
        await left_alone(assembly)
        assert not {"store", "commands"} & assembly.parts.made.keys()


async def test_a_name_that_is_no_part_is_an_error(real: Parts) -> None:
    with pytest.raises(TypeError, match="there is no part called event_store"):
        async with assemble(real.settings, {"api"}, event_store=None):  # type: ignore[call-arg]
            pass
