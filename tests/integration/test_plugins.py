"""Users' projections: found in installed distributions, with their own tables, run, rebuilt. A broken projection harms no other."""

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.assembly import assemble
from domain import agent_runs
from domain.failures import Failure
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections.engine import plugins
from projections.engine.plugins import Discovery
from projections.kernel import Projection
from projections.registry import PROJECTIONS
from tests.integration.assembly_kit import left_alone
from tests.integration.projection_kit import Log, building, log_on, projecting
from tests.integration.system_kit import System, new_id

ROOT = Path(__file__).parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "write-a-projection.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)


class Site:
    """A folder of installed distributions in the layout of pip."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: list[str] = []

    def install(self, name: str, source: str, *points: str, version: str = "1.0") -> None:
        """Installs a distribution `tidelog-<name>` with one module of that name."""
        (self._folder / f"{name}.py").write_text(source)
        info = self._folder / f"tidelog_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tidelog-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("\n".join(["[tidelog.projections]", *points]) + "\n")
        self._modules.append(name)

    def change(self, name: str, source: str) -> None:
        """Installs another release of a module. The module is imported anew, as in a new process."""
        (self._folder / f"{name}.py").write_text(source)
        self.forget()

    def forget(self) -> None:
        for name in self._modules:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    site = Site(tmp_path)
    yield site
    site.forget()


def found() -> Discovery:
    return plugins.discover(PROJECTIONS, REGISTRY.events)


def loaded(name: str) -> Projection:
    return next(p for p in found().projections if p.name == name)


def told(logged: Sequence[Mapping[str, object]]) -> list[str]:
    """What was logged about projections. Connections may tell something at any time, too."""
    return [event for entry in logged if (event := str(entry["event"])).startswith("projection")]


async def fail(log: Log, agent: str, times: int) -> None:
    for _ in range(times):
        run_id, agent_run_id = new_id(), new_id()
        requested = agent_runs.AgentRunRequested(run_id=run_id, step="s", agent=agent, agent_version=None)
        error = Failure(type="T", message="m", kind="permanent")
        failed = agent_runs.AgentRunFailed(run_id=run_id, step="s", attempt=1, error=error)
        await log.append(run_id, (agent_run_id, 0, [requested, failed]))


async def test_the_example_of_the_documentation_works(database_url: str, site: Site) -> None:
    assert 'failures = "failures:PROJECTION"' in HOW_TO
    site.install("failures", CODE[0], "failures = failures:PROJECTION")
    projection = loaded("agent_failures")
    assert found().sources == {"agent_failures": "tidelog-failures 1.0"}
    query: dict[str, object] = {}
    exec(compile(CODE[1], "how-to", "exec"), query)
    failures_of = query["failures_of"]
    assert callable(failures_of)
    async with log_on(database_url) as log:
        await fail(log, "writer", 3)
        assert await plugins.installed(log.database, [projection]) == (projection,)
        async with projecting(log, projection), building(log, projection):
            await fail(log, "reader", 1)
            expected = [("reader", 1), ("writer", 3)]
            assert await failures_of(log.database, DEFAULT_TENANT_ID, await log.feed.head()) == expected
            await log.ask(projection, "verify")
            await log.until_status(projection.name, "equal", purpose="check")
        # The next release counts attempts in a table of another shape: the table is built beside the live one, then swapped.
        changed = CODE[0].replace("failures     int NOT NULL DEFAULT 0", "failures     bigint NOT NULL DEFAULT 100")
        site.change("failures", changed)
        newer = loaded("agent_failures")
        assert newer.ddl != projection.ddl
        with capture_logs() as logged:
            assert await plugins.installed(log.database, [newer]) == (newer,)
        assert told(logged) == ["projection_tables_outdated"]
        async with projecting(log, newer), building(log, newer):
            await log.ask(newer, "rebuild", swap=True)
            await log.until_status(newer.name, "swapped")
            assert await failures_of(log.database, DEFAULT_TENANT_ID, await log.feed.head()) == [("reader", 101), ("writer", 303)]
        with capture_logs() as logged:
            await plugins.installed(log.database, [newer])
        assert told(logged) == []
        indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'agent_failure_run' ORDER BY 1"
        assert await log.rows(indexes) == [("agent_failure_run_pkey",), ("agent_failure_run_tenant",)]


DECLARED = """
from projections.engine.plugins import Discovery
from projections.kernel import Projection
from projections.registry import PROJECTIONS
async def apply(connection, batch): ...
def made(name="mine", topics=("run.started",), tables=("mine_table",), ddl=("CREATE TABLE mine_table (id int PRIMARY KEY)",)):
    return Projection(name, frozenset(topics), tables, apply, ddl)
"""

BROKEN = {
    "raise RuntimeError('at import')": "RuntimeError: at import",
    "X = 5": "is neither a projections.kernel.Projection nor a tuple",
    "Y = 5": "AttributeError",
    "X = made('runs')": "there is another projection 'runs'",
    "X = made('Bad-Name')": "is no name of a projection",
    "X = made('b', tables=('run',))": "run belong to others",
    "X = made('b', ('run.unheard_of',), ('b_table',))": "unknown topics run.unheard_of",
    "X = made('b', tables=('b_table',), ddl=())": "must name its tables, and the statements that make them",
}


def test_what_is_wrong_with_a_plugin_is_said_and_others_go_on(site: Site) -> None:
    for number, source in enumerate(BROKEN):
        site.install(f"broken{number}", DECLARED + source, f"p{number} = broken{number}:X")
    site.install("good", DECLARED + "X = (made(), made('other', tables=('other_table',)))", "a = good:X")
    assert [p.name for p in found().projections] == ["mine", "other"]
    problems = {p.entry_point: (p.distribution, p.error) for p in found().problems}
    for number, expected in enumerate(BROKEN.values()):
        distribution, error = problems[f"p{number}"]
        assert distribution == f"tidelog-broken{number} 1.0" and expected in error, error


async def test_one_whose_tables_cannot_be_made_is_left_out(database_url: str, site: Site) -> None:
    source = """
WRONG = made("wrong", tables=("wrong_table",), ddl=("CREATE TABLE wrong_table (id nonsense)",))
OTHERS = made("others", tables=("command",), ddl=("CREATE TABLE IF NOT EXISTS command (id int)",))
ELSEWHERE = made("elsewhere", tables=("there",), ddl=("CREATE TABLE mine_2 (id int)",))
X = (WRONG, OTHERS, ELSEWHERE, made())
"""
    site.install("mixed", DECLARED + source, "x = mixed:X")
    declared = [loaded(name) for name in ("wrong", "others", "elsewhere", "mine")]
    async with log_on(database_url) as log:
        with capture_logs() as logged:
            assert [p.name for p in await plugins.installed(log.database, declared)] == ["mine"]
        errors = {e["projection"]: e["error"] for e in logged if e["event"] == "projection_not_installed"}
        assert 'type "nonsense" does not exist' in errors["wrong"]
        assert "exist and are not its own: command" in errors["others"]
        assert "did not make there" in errors["elsewhere"]
        assert await log.rows("SELECT to_regclass('mine_2'), to_regclass('mine_table')::text") == [(None, "mine_table")]


async def test_an_operator_sees_plugins_and_their_problems(shared: System, site: Site) -> None:
    site.install("good", DECLARED + "X = made()", "good = good:X")
    site.install("bad", "import nothing_of_that_name", "bad = bad:X")
    async with assemble(shared.container.settings, {"api"}) as assembly:
        await left_alone(assembly)
        async with shared.client(shared.key, container=assembly.container) as http:
            listed = (await http.get("/v1/projections")).json()
    [mine] = [view for view in listed["data"] if view["plugin"]]
    assert (mine["name"], mine["plugin"], mine["position"]) == ("mine", "tidelog-good 1.0", 0)
    [problem] = listed["problems"]
    assert problem == {
        "entry_point": "bad",
        "distribution": "tidelog-bad 1.0",
        "error": "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    }
