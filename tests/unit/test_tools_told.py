"""What starts the worker of tools that are data: the api tells its supervisor of the first definition, and of those of before."""

import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from api.settings import Settings, SettingsError, load_settings
from api.supervisor.config import SupervisorConfig, role_environment, worker_environment
from api.supervisor.service import Service
from api.tools_told import ToolsTold
from application.workers.hosting.served import ServedTools
from domain.tenants import DEFAULT_TENANT_ID
from domain.tools import RegisterTool, tool_id_of
from tests.kit.engine import Engine
from tests.kit.waiting import running, turns, until


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Engine, ServedTools]]:
    engine = Engine()
    found = ServedTools(engine.data_tools, engine.feed, engine.live, engine.commands)
    yield engine, found
    await found.close()


async def define(engine: Engine, kind: str) -> None:
    more = {"builtin": "time.now"} if kind == "builtin" else {}
    tool_id = tool_id_of(DEFAULT_TENANT_ID, "t")
    command = RegisterTool(tool_id=tool_id, name="t", kind=kind, parameters={"type": "object"}, **more)  # type: ignore[arg-type]
    await engine.give(command, tenant_id=DEFAULT_TENANT_ID)


async def test_the_first_definition_is_told_once_and_only_those_of_the_default_tenant(served: tuple[Engine, ServedTools]) -> None:
    told: list[int] = []
    tools = ToolsTold(served[1], wanted=True, tell=lambda: told.append(1))
    tools.defined(uuid4())
    assert told == []
    tools.defined(DEFAULT_TENANT_ID)
    tools.defined(DEFAULT_TENANT_ID)
    assert told == [1]


@pytest.mark.parametrize(("kind", "wanted", "times"), [("builtin", True, 1), ("python", True, 0), ("builtin", False, 0)])
async def test_a_tool_of_before_is_told_at_the_start(
    served: tuple[Engine, ServedTools], kind: str, wanted: bool, times: int
) -> None:
    engine, found = served
    engine.data_tools.stands_at = 0  # the read model does not know of it yet
    await define(engine, kind)
    told: list[int] = []
    tools = ToolsTold(found, wanted=wanted, tell=lambda: told.append(1))
    async with running(tools.run()):
        if times:
            await until(lambda: told, "the news")
        await turns()
        assert len(told) == times


async def test_the_parent_gets_a_signal_if_it_is_the_one_of_the_start(
    served: tuple[Engine, ServedTools], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("api.tools_told.os.kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr("api.tools_told.os.getppid", lambda: 4711)
    tools, late = ToolsTold(served[1], wanted=True), ToolsTold(served[1], wanted=True)
    tools.defined(DEFAULT_TENANT_ID)
    monkeypatch.setattr("api.tools_told.os.getppid", lambda: 1)
    late.defined(DEFAULT_TENANT_ID)
    ToolsTold(served[1], wanted=True).defined(DEFAULT_TENANT_ID)
    assert sent == [(4711, signal.SIGUSR1)]


def config(**given: object) -> SupervisorConfig:
    of = {name: given.pop(name) for name in ("with_worker", "roles") if name in given}
    return SupervisorConfig.from_json(SupervisorConfig.of(Settings(**given), **of).to_json())  # type: ignore[arg-type]


def test_the_worker_is_started_with_a_key_of_its_own_and_what_the_settings_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDELOG_SECRET_TRACKER", "of-the-tracker")
    monkeypatch.setenv("TIDELOG_BUILTIN_NETWORKS", "10.0.0.0/8, 127.0.0.1")
    monkeypatch.setenv("TIDELOG_BUILTIN_HOSTS", "*.example.com")
    monkeypatch.setenv("TIDELOG_BOOTSTRAP_BUILTIN_KEY_SHA256", "0" * 64)
    service = Service(config(agents=("agents",)), on_ready=lambda server, console: None)
    service._worker_key, service._builtin_key = "of-agents", "of-tools"
    assert service._builtin is not None and service._worker is not None
    program, of_agents = service._builtin._program(), service._worker._program()
    arguments = " ".join(program.argv)
    assert arguments.endswith("--defined --allow-network 10.0.0.0/8 --allow-network 127.0.0.1 --only-host *.example.com")
    assert program.environment["TIDELOG_API_KEY"] == "of-tools" and "of-t" not in arguments
    assert program.environment["TIDELOG_SECRET_TRACKER"] == "of-the-tracker"
    assert "TIDELOG_BOOTSTRAP_BUILTIN_KEY_SHA256" not in program.environment
    assert of_agents.environment["TIDELOG_API_KEY"] == "of-agents"
    assert "TIDELOG_SECRET_TRACKER" not in of_agents.environment, "code of agents would read it"
    assert "TIDELOG_SECRET_TRACKER" not in role_environment() and "TIDELOG_SECRET_TRACKER" in worker_environment()
    assert [process.name for process in service._processes()][-1] == "worker", "not before it is needed"
    service._builtin_needed.set()
    assert [process.name for process in service._processes()][-1] == "builtin-worker"


def test_a_setting_or_no_worker_or_no_api_turn_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not config(with_worker=False).builtin_worker
    assert not config(roles=["relay"]).builtin_worker
    monkeypatch.setenv("TIDELOG_BUILTIN_WORKER", "false")
    off = config(agents=("agents",))
    assert not off.builtin_worker and Service(off, on_ready=lambda server, console: None)._builtin is None
    monkeypatch.setenv("TIDELOG_BUILTIN_WORKER", "perhaps")
    with pytest.raises(SettingsError, match="TIDELOG_BUILTIN_WORKER"):
        load_settings()
