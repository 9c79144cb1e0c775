"""Which modules may import which, and that an import does no work."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tidelog
from tests.architecture.sources import ROOT, SDK, SERVER, imported, module_names, names_in, parsed, python_files
from tests.pace import finished

IMPORT_ALL = """
import importlib, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn"):
        raise RuntimeError(f"importing {current} does {event}")

sys.addaudithook(refuse)
for current in sys.stdin.read().split():
    importlib.import_module(current)
"""

NO_SERVER = """
import sys
import tidelog, tidelog.client, tidelog.testing, tidelog.worker.runtime, tidelog.worker.__main__
foreign = {name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])
assert not foreign, foreign
"""


NOTHING_ELSE_OF_THE_SDK = """
import sys
import adapters.nats
loaded = {name for name in sys.modules if name.partition(".")[0] == "tidelog"}
assert not loaded, loaded
"""

NAMES_OF_THE_SDK = """
import sys
import tidelog
assert not [name for name in sys.modules if name.startswith("tidelog.")], "loaded before it is used"
assert {*tidelog.__all__} <= {*dir(tidelog)} and tidelog._MODULES <= {*dir(tidelog)}
assert tidelog.errors.NotFoundError.__module__ == "tidelog.errors"
assert issubclass(tidelog.errors.NotFoundError, tidelog.TidelogAPIError)
for name in tidelog.__all__:
    assert getattr(tidelog, name) is getattr(sys.modules[f"tidelog.{tidelog._HOMES[name]}"], name)
    assert name in vars(tidelog), "found again at each use"
for name in sorted(tidelog._MODULES):
    assert getattr(tidelog, name) is sys.modules[f"tidelog.{name}"]
from tidelog import *
assert Client is tidelog.Client
try:
    tidelog.Agents
except AttributeError as error:
    assert str(error) == "module 'tidelog' has no attribute 'Agents'"
else:
    raise AssertionError("a name that is none of ours")
"""


def run_python(source: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs source on the modules of this tree, in a process without any of Tidelog's environment variables."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    return finished([sys.executable, "-W", "error", "-c", source, *arguments], 60, env=environment, given=given)


def test_import_rules_of_pyproject_hold() -> None:
    source = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", source, "--no-cache", "--no-logo"]
    done = finished(command, 120, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_slices_that_must_not_meet_are_all_slices() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = next(c["modules"] for c in contracts if c["name"] == "Domain slices do not import one another")
    slices = {_slice_of(path) for path in python_files("domain") if "DECIDER" in _assigned(path)}
    assert set(listed) == slices
    assert len(slices) > 5


def test_modules_of_a_slice_that_is_a_package_are_imported_by_the_package_alone() -> None:
    inner = {name for name in module_names() if name.startswith("domain.") and name.count(".") > 1}
    assert "domain.agent_runs.journal" in inner
    for path in python_files():
        foreign = {name for name in _imported_names(path) & inner if not name.startswith(f"{_slice_of(path)}.")}
        assert not foreign, path


CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
QUERIES = {"application.reads", "application.views"}
"""Ports and view models that read models implement."""
OPEN_TO_THE_ENGINE = {"domain.deep_json", "domain.errors", "domain.event_registry", "domain.kernel", "domain.maps", "domain.values"}


def modules_of(folder: str) -> set[str]:
    """Modules and packages directly in a folder, by their dotted names."""
    return {f"{folder.replace('/', '.')}.{name}" for name in names_in(folder)}


def forbidden(name: str) -> set[str]:
    return set(next(c["forbidden_modules"] for c in CONTRACTS if c["name"] == name))


def test_contracts_of_the_engine_name_every_module_of_the_product() -> None:
    """A new module that is in no list could be imported by the engine."""
    product = modules_of("domain") - OPEN_TO_THE_ENGINE | modules_of("application") - {"application.engine"}
    assert forbidden("The engine of commands and sagas knows no slice and no table of the product") == product
    machinery = modules_of("application/engine") - {
        f"application.engine.{name}" for name in ("asked", "background", "gathering", "ports", "retry", "staying")
    }
    read_models = modules_of("projections") - {"projections.engine"}
    assert forbidden("The engine of projections knows ports, no slice and no read model") == product | machinery | read_models
    use_cases = {name for name in product if name.startswith("application.")} - QUERIES
    assert forbidden("Read models see ports, never command handling") == machinery | use_cases


def test_only_the_composition_root_the_supervisor_and_the_engine_of_tests_may_touch_adapters() -> None:
    name = "Only the composition root, the supervisor and the engine of tests touch adapters"
    contract = next(c for c in CONTRACTS if c["name"] == name)
    assert set(contract["source_modules"]) == modules_of("api") - {"api.assembly", "api.supervisor", "api.testing"}
    assert contract["forbidden_modules"] == ["adapters"]


def _slice_of(path: Path) -> str:
    """`domain.tools` of domain/tools.py, `domain.agent_runs` of any file in domain/agent_runs/."""
    return ".".join(path.with_suffix("").parts[:2])


def _imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports: modules, and names from modules, which may be modules too."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", python_files("api/http/routes"), ids=str)
def test_no_route_reaches_a_database(path: Path) -> None:
    """Routes call use cases and ports of queries. These open their own connections."""
    reached = {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
    assert not reached & {"database", "command_database", "connection", "transaction"}


def _assigned(path: Path) -> set[str]:
    targets = [node.target for node in parsed(path).body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("path", python_files(SDK), ids=str)
def test_sdk_imports_nothing_of_the_server(path: Path) -> None:
    assert not imported(path) & set(SERVER)


def test_importing_the_sdk_loads_nothing_of_the_server() -> None:
    done = run_python(NO_SERVER, *SERVER)
    assert done.returncode == 0, done.stderr


def test_the_server_loads_one_module_of_the_sdk() -> None:
    done = run_python(NOTHING_ELSE_OF_THE_SDK)
    assert done.returncode == 0, done.stderr


def test_names_of_the_sdk_are_imported_when_they_are_used() -> None:
    done = run_python(NAMES_OF_THE_SDK)
    assert done.returncode == 0, done.stderr


def test_type_checkers_see_the_names_of_the_sdk_where_they_are() -> None:
    [seen] = [node for node in parsed(Path(SDK) / "__init__.py").body if isinstance(node, ast.If) and not node.orelse][:1]
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: f"{node.module}" for node in imports for alias in node.names}
    assert homes == {name: f"tidelog.{home}" for name, home in tidelog._HOMES.items()}
    assert sorted(homes) == sorted(tidelog.__all__)


def test_every_module_can_be_imported_without_environment_and_does_nothing() -> None:
    names = module_names()
    assert "api.assembly" in names
    assert "tidelog.client" in names
    done = run_python(IMPORT_ALL, given="\n".join(names))
    assert done.returncode == 0, done.stderr


def test_core_modules_are_importable_first() -> None:
    """Each module is imported in a process of its own: a cycle fails only if the import begins at the wrong module."""
    for name in (
        "domain.registry",
        "application.routes",
        "application.engine.sagas.manager",
        "projections.registry",
        "api.http.app",
    ):
        done = run_python(IMPORT_ALL, given=name)
        assert done.returncode == 0, f"{name}: {done.stderr}"
