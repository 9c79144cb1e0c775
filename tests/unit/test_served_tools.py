"""Tools that are data, and the sessions whose workers carry them out by their definitions."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from application.workers.hosting import offering, served
from application.workers.hosting.messages import Complete, Leaving, WorkForTool
from application.workers.hosting.served import VersionDefinitions
from domain.kernel import Json
from domain.tools import RegisterTool, RemoveTool, tool_id_of
from tests.kit.engine import Claim, Engine
from tests.kit.hosting import Define, Hosting, SpeakingWorker, hosting, with_key
from tests.kit.waiting import TENANT, turns, until

PARAMETERS: dict[str, Json] = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with with_key(Engine()) as engine:
        yield engine


@pytest_asyncio.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    async with hosting(engine) as found:
        yield found


def request(version: str) -> dict[str, Json]:
    return {"url": f"https://api.example.com/v{version}/{{{{city}}}}"}


async def define(engine: Engine, name: str, version: str = "1", *, how: Any = "created", **fields: Any) -> None:
    of_kind = {"kind": "builtin"} if "builtin" in fields else {"kind": "http", "request": request(version)}
    declared: dict[str, Any] = {"parameters": PARAMETERS, "pinned": True, **of_kind, **fields}
    await engine.give(RegisterTool(tool_id=tool_id_of(TENANT, name), name=name, version=version, how=how, **declared))


async def remove(engine: Engine, name: str) -> None:
    await engine.give(RemoveTool(tool_id=tool_id_of(TENANT, name), name=name))


async def serving(process: Hosting, *kinds: str, tools: tuple[str, ...] = (), slots: int = 10) -> SpeakingWorker:
    worker = process.connect()
    await worker.hello((), tools, serves=kinds or ("http", "builtin"))
    worker.credit(tool=slots)
    return worker


def offered(worker: SpeakingWorker) -> set[str]:
    """Whose calls the session takes."""
    return set(worker.session.offered("tool"))


async def told(engine: Engine, names: set[str]) -> None:
    """Waits until operators see that these tools are offered, and no others."""
    found: set[str] = set()
    for _ in range(1_000):
        [listed] = await engine.sessions.of_tenant(TENANT, limit=10, after=None)
        found = set() if listed.offered is None else set(listed.offered.tools)
        if found == names:
            return
        await turns(1)
    assert found == names


class Caller:
    """An agent run that calls tools."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.calls = 0

    async def __call__(self, tool: str) -> UUID:
        self.calls += 1
        return await self.claim.call(f"call-{self.calls}", tool, city="Bergen")


@pytest_asyncio.fixture
async def call(engine: Engine) -> Caller:
    agents = engine.worker("agents")
    await agents.register("alpha")
    await engine.start("alpha")
    return Caller(await agents.next("alpha"))


# --- what is offered ------------------------------------------------------------------------------------------------------


async def test_a_session_offers_the_tools_that_are_data_those_before_and_those_after_its_start(
    engine: Engine, process: Hosting
) -> None:
    await define(engine, "weather")
    worker = await serving(process)
    await until(lambda: offered(worker) == {"weather"}, "the tool of before")
    await define(engine, "clock", builtin="time.now")
    await until(lambda: offered(worker) == {"weather", "clock"}, "the tool of now")
    await told(engine, {"weather", "clock"})
    other = engine.worker("code")
    await other.register(tools_=["code"])
    await define(engine, "last")
    await until(lambda: "last" in offered(worker), "the last tool")
    assert "code" not in offered(worker), "code is its worker's"


async def test_only_kinds_that_the_worker_serves_are_offered_and_nothing_to_others(engine: Engine, process: Hosting) -> None:
    await define(engine, "weather")
    await define(engine, "clock", builtin="time.now")
    of_one, of_none = await serving(process, "builtin", "of-later"), process.connect()
    await of_none.hello()
    await until(lambda: offered(of_one) == {"clock"}, "the built-in tool")
    await define(engine, "other")
    await define(engine, "clock2", builtin="time.now")
    await until(lambda: offered(of_one) == {"clock", "clock2"}, "the other built-in tool")
    assert offered(of_none) == set()


async def test_what_the_read_model_does_not_know_yet_is_read_from_the_log(engine: Engine, process: Hosting) -> None:
    await define(engine, "early")
    await define(engine, "gone")
    engine.data_tools.stands_at = engine.log.head
    await define(engine, "late")
    await remove(engine, "gone")
    worker = await serving(process)
    await until(lambda: offered(worker) == {"early", "late"}, "what the log has")


async def test_more_tools_than_a_page(engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "PAGE", 2)
    names = {f"tool-{number}" for number in range(7)}
    for name in names:
        await define(engine, name)
    engine.data_tools.stands_at = engine.log.head - 3
    worker = await serving(process)
    await until(lambda: offered(worker) == names, "all tools")


async def test_a_session_has_a_bound_and_the_first_names_count(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "MOST_SERVED", 2)
    for name in ("c", "a", "b"):
        await define(engine, name)
    worker = await serving(process)
    await until(lambda: offered(worker) == {"a", "b"}, "the first two")


async def test_tools_of_other_tenants_are_not_offered(engine: Engine, process: Hosting) -> None:
    foreign = uuid4()
    for tenant_id in (foreign, TENANT):
        command = RegisterTool(
            tool_id=tool_id_of(tenant_id, "weather"), name="weather", version=str(tenant_id), how="created", kind="http",
            parameters=PARAMETERS, request=request("1"), pinned=True,
        )  # fmt: skip
        await engine.give(command, tenant_id=tenant_id)
    worker = await serving(process)
    await told(engine, {"weather"})
    assert worker.session._offering.told.tools == {"weather": str(TENANT)}
    await engine.give(command.model_copy(update={"name": "x", "tool_id": tool_id_of(foreign, "x")}), tenant_id=foreign)
    await define(engine, "mine")
    await told(engine, {"weather", "mine"})


async def test_announced_tools_stay_beside_served_ones(engine: Engine, process: Hosting) -> None:
    await define(engine, "weather")
    worker = await serving(process, tools=("code",))
    await until(lambda: offered(worker) == {"weather", "code"}, "both")
    worker.say(Define(t="define", id=1, tools=("code2",)))
    await until(lambda: offered(worker) == {"weather", "code2"}, "the new code")
    await told(engine, {"weather", "code2"})
    worker.say(Leaving(t="leaving"))
    await until(lambda: offered(worker) == set(), "nothing")
    await define(engine, "later")
    await turns()
    assert offered(worker) == set()


async def test_sessions_of_a_tenant_share_one_look_and_the_last_one_ends_it(engine: Engine, process: Hosting) -> None:
    await define(engine, "weather")
    first = await serving(process)
    await until(lambda: offered(first) == {"weather"}, "the tool")
    engine.data_tools.stands_at = 0  # nobody looks there again
    second = await serving(process)
    await until(lambda: offered(second) == {"weather"}, "the tool, too")
    heard = engine.live.overhearing
    await process.lose(first)
    await define(engine, "other")
    await until(lambda: offered(second) == {"weather", "other"}, "the other tool")
    await process.lose(second)
    assert engine.live.overhearing < heard
    assert await process.host.served.any(TENANT) and not await process.host.served.any(uuid4())


# --- what is sent ---------------------------------------------------------------------------------------------------------


async def test_a_call_comes_with_the_definition_of_the_version_that_was_called(
    engine: Engine, process: Hosting, call: Caller
) -> None:
    await define(engine, "weather")
    worker = await serving(process, slots=0)
    await until(lambda: offered(worker) == {"weather"}, "the tool")
    first = await call("weather")
    await define(engine, "weather", "2", how="version")
    second = await call("weather")
    worker.credit(tool=10)
    works = {work.work_id: work for work in [await worker.hears(WorkForTool), await worker.hears(WorkForTool)]}
    assert works[first].definition == {"kind": "http", "version": "1", "request": request("1"), "parameters": PARAMETERS}
    assert works[second].definition == {"kind": "http", "version": "2", "request": request("2"), "parameters": PARAMETERS}
    for work in works.values():
        await worker.done(work, Complete, result=1)
    assert {(await engine.invocation(id)).status for id in (first, second)} == {"succeeded"}


async def test_a_call_that_is_claimed_in_its_append_has_its_definition_too(engine: Engine, process: Hosting, call: Caller) -> None:
    await define(engine, "clock", builtin="time.now")
    worker = await serving(process)
    await until(lambda: offered(worker) == {"clock"}, "the tool")
    await call("clock")
    assert (await worker.hears(WorkForTool)).definition == {"kind": "builtin", "version": "1", "builtin": "time.now"}


async def test_code_of_the_worker_itself_comes_without_a_definition(engine: Engine, process: Hosting, call: Caller) -> None:
    worker = await serving(process, tools=("code",))
    await call("code")
    assert (await worker.hears(WorkForTool)).definition is None


async def test_calls_of_a_removed_tool_go_on_for_a_while(
    engine: Engine, process: Hosting, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await define(engine, "weather")
    worker = await serving(process, slots=0)
    await until(lambda: offered(worker) == {"weather"}, "the tool")
    await call("weather")
    await remove(engine, "weather")
    await told(engine, set())
    assert offered(worker) == {"weather"}, "calls that were made go on"
    worker.credit(tool=10)
    work = await worker.hears(WorkForTool)
    assert isinstance(work.definition, dict) and work.definition["request"] == request("1")
    monkeypatch.setattr(offering, "LINGER_S", 0.0)
    await define(engine, "short")
    await until(lambda: "short" in offered(worker), "the next tool")
    await remove(engine, "short")
    await until(lambda: offered(worker) == {"weather"}, "the end of the short one")


async def test_a_tool_that_comes_back_stays(engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offering, "LINGER_S", 0.05)
    await define(engine, "weather")
    worker = await serving(process)
    await until(lambda: offered(worker) == {"weather"}, "the tool")
    await remove(engine, "weather")
    await define(engine, "weather", "2")
    await define(engine, "other")
    await remove(engine, "other")
    await until(lambda: offered(worker) == {"weather"}, "the other tool's end")
    assert worker.session._offering.told.tools == {"weather": "2"}


async def test_a_version_that_nobody_knows_has_a_definition_that_says_so(engine: Engine) -> None:
    definitions = VersionDefinitions(engine.commands)
    assert await definitions.load(TENANT, "weather", "9") == {"kind": "unknown", "version": "9"}
    await engine.worker("code").register(tools_=["weather"])
    assert await definitions.load(TENANT, "weather", "1") == {"kind": "python", "version": "1"}


async def test_a_bounded_number_of_definitions_is_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MOST_KEPT", 2)
    definitions = VersionDefinitions(engine.commands)
    await define(engine, "weather")
    for version in ("2", "3", "4"):
        await define(engine, "weather", version, how="version")
    for version in ("1", "2", "3", "4"):
        found = await definitions.load(TENANT, "weather", version)
        assert isinstance(found, dict) and found["request"] == request(version)
    assert definitions.known(TENANT, "weather", "1") is None
    assert definitions.known(TENANT, "weather", "3") is not None


async def test_an_event_that_cannot_be_read_holds_up_nobody(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await serving(process)
    await define(engine, "first")
    await until(lambda: offered(worker) == {"first"}, "the first tool")
    registry, faulty = process.host.served._registry, ["broken"]

    class Faulty:
        def decode(self, *given: Any) -> Any:
            event: Any = registry.decode(*given)
            if event.name in faulty:
                raise ValueError("of a later release")
            return event

    monkeypatch.setattr(process.host.served, "_registry", Faulty())
    await define(engine, "broken")
    await define(engine, "last")
    await until(lambda: offered(worker) == {"first", "last"}, "the last tool")


async def test_a_look_that_fails_is_no_end_of_looks(engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    await define(engine, "first")
    read = engine.data_tools.data
    fails = [True]

    async def once(*given: Any, **more: Any) -> Any:
        if fails.pop() if fails else False:
            raise ValueError("a defect")
        return await read(*given, **more)

    monkeypatch.setattr(engine.data_tools, "data", once)
    worker = await serving(process)
    await until(lambda: not fails, "the look that fails")
    process.host.served._look(TENANT)  # as after the begin of another history
    await until(lambda: offered(worker) == {"first"}, "the tool")


async def test_a_call_of_a_release_that_noted_no_version_is_of_the_current_one(engine: Engine) -> None:
    await define(engine, "weather")
    await define(engine, "weather", "2", how="version")
    found = await VersionDefinitions(engine.commands).load(TENANT, "weather", "")
    assert isinstance(found, dict) and found["version"] == "2"


async def test_what_changes_while_pages_are_read_is_not_missed(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "PAGE", 1)
    for name in ("a", "b"):
        await define(engine, name)
    data, pages = engine.data_tools.data, 0

    async def then_removed(*given: Any, **more: Any) -> Any:
        nonlocal pages
        found, pages = await data(*given, **more), pages + 1
        if pages == 1:
            await remove(engine, "a")
        return found

    monkeypatch.setattr(engine.data_tools, "data", then_removed)
    worker = await serving(process)
    await until(lambda: offered(worker) == {"b"}, "what is left")


async def test_what_is_heard_while_the_log_is_read_is_not_missed(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = engine.live.watches
    read, heard = engine.feed.read_tenant, process.host.served._tenants

    async def then_defined(*given: Any, **more: Any) -> Any:
        found = await read(*given, **more)
        if not found and "topics" in more:
            monkeypatch.setattr(engine.feed, "read_tenant", read)
            await define(engine, "meanwhile")
            await until(lambda: heard[TENANT].heard, "the news")
        return found

    monkeypatch.setattr(engine.feed, "read_tenant", then_defined)
    worker = await serving(process)
    await until(lambda: offered(worker) == {"meanwhile"}, "the tool")
    await process.lose(worker)
    assert engine.live.watches == watches and not heard
