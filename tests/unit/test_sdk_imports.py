"""Imports of users' files: imports between files, agents that a package passes on, and imports that hang."""

import asyncio
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pace import ANSWER_S, in_time, slowness_lately, until
from tests.unit.test_sdk_discovery import problems, scan, write
from tidelog.discovery import Scan, discover
from tidelog.worker import Worker
from tidelog.worker.__main__ import parse_arguments
from tidelog.worker.intake import Intake

AGENT = """
    {imports}
    from tidelog import Agent, Context

    class {name}(Agent):
        async def execute(self, ctx: Context):
            return {result}
"""
NO_SERVER = "http://127.0.0.1:1"


def agent(name: str, imports: str = "", result: str = "None") -> str:
    return AGENT.format(name=name, imports=imports, result=result)


# --- imports between files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "imports",
    [
        "from _util import f",
        "import _util; f = _util.f",
        "from agents._util import f",
        "import agents._util as u; f = u.f",
        "from ._util import f",
        "from pack import f",
        "from pack.deep import f",
        "import agents.pack.deep as d; f = d.f",
    ],
)
def test_files_import_one_another_as_in_a_script(tmp_path: Path, imports: str) -> None:
    folder = tmp_path / "agents"
    deep = "from _util import f"
    found = scan(
        folder,
        _util="def f(): return 'helped'",
        pack__in____init__="from .deep import f",
        pack__in__deep=deep,
        a=agent("A", imports),
    )
    assert not found.problems and sorted(found.agents) == ["a", "good"]
    module = sys.modules[found.agents["a"].cls.__module__]
    util = sys.modules[f"{module.__name__.partition('.')[0]}._util"]
    assert module.f is util.f and util.__spec__ is not None and util.__spec__.name == util.__name__, (
        "one module, whatever its names"
    )


def test_files_that_import_each_other_by_plain_names(tmp_path: Path) -> None:
    found = scan(tmp_path, x=agent("X", "import y", "y.name()"), y="import x\n\ndef name(): return x.X.name")
    assert not found.problems and sorted(found.agents) == ["good", "x"]


def test_an_installed_package_and_a_name_in_two_folders_are_not_taken_for_a_file_beside(tmp_path: Path) -> None:
    write(
        tmp_path / "1",
        {"json": "", "_util": "f = 1", "a": agent("A", "import json; json.dumps"), "b": agent("B", "from _util import f")},
    )
    write(tmp_path / "2", {"_util": "f = 2", "c": agent("C", "from json import f"), "good": ""})
    found = discover([tmp_path / "1", tmp_path / "2"])
    assert sorted(found.agents) == ["a", "good"]
    assert [problem.path.name for problem in found.problems] == ["b.py", "c.py"]
    assert found.problems[0].message.endswith("No module named '_util'; write `from ._util import …`")
    write(tmp_path / "2", {"json": "f = 2", "good": ""})
    [_, of_json] = discover([tmp_path / "1", tmp_path / "2"]).problems
    assert "is not" not in of_json.message and of_json.message.endswith(
        f"`json` is {sys.modules['json'].__file__}, not the file beside; write `from .json import …`"
    )


def test_code_outside_of_the_folders_does_not_find_their_files(tmp_path: Path) -> None:
    scan(tmp_path, only_here="")
    with pytest.raises(ModuleNotFoundError):
        __import__("only_here")


@pytest.mark.parametrize("place", ["src", "."])
def test_a_package_of_the_project_that_is_not_installed_is_pointed_out(tmp_path: Path, place: str) -> None:
    write(tmp_path, {f"{place}__in__shop__in____init__".replace(".__in__", ""): "price = 3"})
    found = scan(tmp_path / "agents", a=agent("A", "from shop import price"))
    where = (tmp_path / place).resolve()
    assert problems(found) == [("a.py", "import-failed")]
    assert f"`shop` is in {where}: install that project (pip install -e), or start" in found.problems[0].message
    assert f"PYTHONPATH={where}" in found.problems[0].message


def test_a_sibling_in_a_package_and_a_misspelt_one(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        pack__in____init__="",
        pack__in__helper="f = 1",
        pack__in__a="from helper import f",
        pack__in__b="from ..good import nothing",
        c="from ._utl import f",
    )
    messages = [problem.message for problem in found.problems]
    assert messages[1].endswith("No module named 'helper'; write `from .helper import …`")
    assert "cannot import name 'nothing' from '.good'" in messages[2]
    assert "No module named '._utl'" in messages[0], "the inner name of the folder's package helps nobody"


# --- agents that a package passes on ------------------------------------------------------------------------------------


def test_a_package_passes_on_what_its_private_modules_define(tmp_path: Path) -> None:
    impl = (
        agent("Packed")
        + agent("Other")
        + "\n    from tidelog import tool\n\n    @tool('packed.tool')\n    def t() -> int: return 1"
    )
    found = scan(
        tmp_path,
        pack__in____init__="from ._impl import Packed, t\n__all__ = ['Packed']",
        pack__in___impl=impl,
        plain="from .pack._impl import Other",
        listed="from .pack._impl import Other\n__all__ = ['Other']",
    )
    assert not found.problems and sorted(found.agents) == ["good", "other", "packed"] and "packed.tool" in found.tools
    assert found.agents["other"].path.name == "listed.py"


def test_agents_of_the_folders_own_init_are_found(tmp_path: Path) -> None:
    found = scan(tmp_path, __init__="from ._impl import Inner", _impl=agent("Inner"))
    assert not found.problems and sorted(found.agents) == ["good", "inner"]


def test_a_base_class_from_a_private_module_is_no_agent_of_its_own(tmp_path: Path) -> None:
    derived = "from ._base import Base\n\nclass Derived(Base):\n    pass"
    found = scan(tmp_path, pack__in____init__=derived, pack__in___base=agent("Base"), other="from .pack._base import Base")
    assert not found.problems and sorted(found.agents) == ["derived", "good"]


# --- what a file may do to the process ----------------------------------------------------------------------------------


def test_an_exit_anywhere_in_a_file_is_a_problem_of_that_file(tmp_path: Path) -> None:
    exits = "\n    @classmethod\n    def __get_pydantic_core_schema__(cls, *_):\n        raise SystemExit('no schema')"
    found = scan(
        tmp_path,
        a_interrupt="raise KeyboardInterrupt",
        b_definition=f"from tidelog import tool\n\nclass Odd:{exits}\n\n@tool('odd')\ndef odd(value: Odd) -> int: return 1",
    )
    assert problems(found) == [("a_interrupt.py", "import-failed"), ("b_definition.py", "invalid-metadata")]
    assert "KeyboardInterrupt" in found.problems[0].message and "SystemExit: no schema" in found.problems[1].message
    assert list(found.agents) == ["good"]


def test_a_file_that_changes_the_current_folder_moves_neither_the_other_folders_nor_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "1", {"a": "import os; os.chdir('/')", "good": ""})
    write(tmp_path / "2", {})
    given = parse_arguments(["--agents", "1", "--agents", "2", "--url", NO_SERVER, "--api-key", "k"])
    found = discover(given.agents)
    assert not found.problems and list(found.agents) == ["good"]
    assert given.workspace == tmp_path


# --- imports that hang --------------------------------------------------------------------------------------------------

HANGS = "import pathlib, time\nwhile not pathlib.Path(__file__).with_name('go').exists():\n    time.sleep(0.02)\n"


@pytest.fixture(autouse=True)
def imports_end(tmp_path: Path) -> Iterator[None]:
    yield
    (tmp_path / "go").touch()


def hanging(tmp_path: Path) -> list[Path]:
    """Folders with a file whose import hangs, one that waits for it, and a good one."""
    needs = "from .a_hangs import Late\n" + textwrap.dedent(agent("Needs"))
    write(tmp_path, {"a_hangs": HANGS + textwrap.dedent(agent("Late")), "b_needs": needs})
    return [tmp_path]


def test_a_hanging_import_is_named_with_its_line_and_the_others_are_found(tmp_path: Path) -> None:
    scanned = Scan(hanging(tmp_path), patience_s=0.3 * asyncio.run(slowness_lately()))  # the good file must be quicker
    found = scanned.run()
    assert list(found.agents) == ["good"]
    assert [(problem.path.name, problem.kind) for problem in found.problems] == [
        ("a_hangs.py", "import-hangs"),
        ("b_needs.py", "import-hangs"),
    ]
    assert "at a_hangs.py, line 3: time.sleep(0.02)" in found.problems[0].message
    assert "It waits for the import of 'a_hangs'" in found.problems[1].message
    assert [problem.path.name for problem in scanned.hanging()] == ["a_hangs.py", "b_needs.py"]


async def test_what_a_slow_import_defines_is_taken_when_it_ends(tmp_path: Path) -> None:
    worker = Worker(url=NO_SERVER, api_key="k")

    async def has(*agents: str) -> bool:
        return sorted(worker.agents) == sorted(agents)

    async with Intake(hanging(tmp_path), worker, patience_s=0.2) as intake:
        assert await in_time(intake.something(asyncio.Event()), 10)
        await until(lambda: has("good"), 10)
        (tmp_path / "go").touch()
        await until(lambda: has("good", "late", "needs"), 10)


async def test_a_folder_whose_only_file_is_slow_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(HANGS)
    worker, stop = Worker(url=NO_SERVER, api_key="k"), asyncio.Event()
    async with Intake([tmp_path], worker, patience_s=0.1) as intake:
        waiting = asyncio.create_task(intake.something(stop))
        await asyncio.wait({waiting}, timeout=0.5)
        assert not waiting.done()
        (tmp_path / "go").touch()
        assert await in_time(waiting, 10) is False, "the file has no agents"
    async with Intake([tmp_path], worker, patience_s=0.1) as intake:
        stop.set()
        assert await in_time(intake.something(stop), 10) is False


def test_the_problem_of_an_import_that_fails_late_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"a_hangs": HANGS + "1 / 0"})
    news = threading.Event()
    scanned = Scan(tmp_path, news.set, patience_s=0.1 * asyncio.run(slowness_lately()))  # the good file must be quicker
    assert problems(scanned.run()) == [("a_hangs.py", "import-hangs")]
    news.clear()
    (tmp_path / "go").touch()
    assert news.wait(ANSWER_S)
    assert problems(scanned.present()) == [("a_hangs.py", "import-failed")] and not scanned.hanging()
