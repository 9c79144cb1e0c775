"""Folders of user code: found definitions, reported problems, and code that tries to end the process."""

import sys
import textwrap
from pathlib import Path

from tidelog.discovery import Discovery, discover

GOOD = """
    from tidelog import Agent, Context, tool
    from ._shared import ANSWER

    @tool("good.tool")
    def good() -> int:
        return ANSWER

    class Good(Agent):
        async def execute(self, ctx: Context) -> int:
            return ANSWER
"""


def scan(folder: Path, **files: str) -> Discovery:
    write(folder, files)
    return discover(folder)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in {"_shared": "ANSWER = 42", "good": GOOD, **files}.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def problems(found: Discovery) -> list[tuple[str, str]]:
    return [(problem.path.name, problem.kind) for problem in found.problems]


def test_agents_and_tools_are_found_with_relative_imports(tmp_path: Path) -> None:
    found = scan(tmp_path)
    assert list(found.agents) == ["good"] and list(found.tools) == ["good.tool"] and not found.problems
    assert found.tools["good.tool"].tool() == 42


def test_packages_are_walked_and_imported_names_belong_to_where_they_are_defined(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        pack__in____init__="from ..good import Good, good",
        pack__in__deep="""
            from ..good import Good as Base
            class Deep(Base):
                pass
        """,
        pack__in___hidden="raise RuntimeError",
        plain__in__nopackage="raise RuntimeError",
    )
    assert sorted(found.agents) == ["deep", "good"] and list(found.tools) == ["good.tool"] and not found.problems


def test_broken_modules_are_reported_with_the_users_line_and_the_others_work(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        a_syntax="def f(:",
        b_import="\n\nimport nowhere_to_be_found",
        c_exit="import sys\nsys.exit(3)",
        d_raise="class Odd(BaseException): pass\n\nraise Odd('no')",
        e_relative="from ._shared import MISSING",
    )
    names = ("a_syntax", "b_import", "c_exit", "d_raise", "e_relative")
    assert problems(found) == [(f"{name}.py", "import-failed") for name in names]
    messages = [problem.message for problem in found.problems]
    assert "a_syntax.py, line 1" in messages[0] and "SyntaxError" in messages[0]
    assert messages[1].startswith("b_import.py, line 3: import nowhere_to_be_found: ModuleNotFoundError: No module named")
    assert "c_exit.py, line 2: sys.exit(3): SystemExit: 3" in messages[2]
    assert "d_raise.py, line 3" in messages[3]
    assert "e_relative.py, line 1" in messages[4]
    assert list(found.agents) == ["good"] and list(found.tools) == ["good.tool"]


def test_an_exception_without_a_text_is_a_problem_like_any_other(tmp_path: Path) -> None:
    odd = "class Odd(Exception):\n    def __str__(self):\n        raise LookupError\n\n"
    found = scan(
        tmp_path,
        a_import=f"{odd}raise Odd",
        b_type=f"""{odd}from tidelog import tool


class Type:
    @classmethod
    def __get_pydantic_core_schema__(cls, *_):
        raise Odd


@tool("odd.tool", idempotent=True)
def odd(value: Type) -> None:
    \"\"\"Take a value of an odd type.\"\"\"
""",
        c_long="raise ValueError('x' * 10_000_000)",
    )
    messages = {problem.path.stem: problem.message for problem in found.problems}
    assert messages["a_import"].endswith(": Odd: <exception text not available>")
    assert messages["b_type"].endswith("Odd: <exception text not available>")
    assert len(messages["c_long"]) < 3_000
    assert list(found.agents) == ["good"]


def test_faulty_definitions_are_reported_one_by_one(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        faulty="""
        from tidelog import Agent, Context, tool

        class NoExecute(Agent):
            pass

        class NotAsync(Agent):
            def execute(self, ctx):
                return 1

        class NoContext(Agent):
            async def execute(self):
                return 1

        class NeedsArguments(Agent):
            def __init__(self, what):
                pass
            async def execute(self, ctx):
                return 1

        class BadName(Agent):
            name = "Bad Name"
            async def execute(self, ctx):
                return 1

        class BadCapabilities(Agent):
            capabilities = "git"
            async def execute(self, ctx):
                return 1

        @tool
        def no_hint(value):
            return value

        @tool("fine")
        def fine() -> int:
            return 1
    """,
    )
    assert [kind for _, kind in problems(found)] == [
        "no-execute",
        "invalid-signature",
        "invalid-signature",
        "invalid-signature",
        "invalid-name",
        "invalid-metadata",
        "invalid-signature",
    ]
    assert "NotAsync: execute must be `async def`" in found.problems[1].message
    assert list(found.tools) == ["fine", "good.tool"] and list(found.agents) == ["good"]


def test_of_two_with_one_name_the_first_is_used_and_the_second_reported(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        hood="""
        from tidelog import Agent, tool

        @tool("good.tool")
        def other() -> int:
            return 0

        class Other(Agent):
            name = "good"
            async def execute(self, ctx):
                return 1
    """,
    )
    assert problems(found) == [("hood.py", "duplicate-agent"), ("hood.py", "duplicate-tool")]
    assert found.agents["good"].path.name == "good.py" and str(tmp_path / "good.py") in found.problems[1].message


def test_a_common_base_without_execute_is_no_mistake(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        base="""
        from tidelog import Agent
        class Base(Agent):
            pass
        class _Private(Agent):
            pass
    """,
        derived="""
        from .base import Base
        class Derived(Base):
            async def execute(self, ctx):
                return 1
    """,
    )
    assert not found.problems and sorted(found.agents) == ["derived", "good"]


def test_a_module_whose_attributes_are_odd_objects_is_searched_all_the_same(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        odd="""
        from tidelog import tool

        class Odd:
            __hash__ = None
            def __eq__(self, other):
                raise RuntimeError("do not compare me")
            def __getattr__(self, name):
                raise RuntimeError("do not ask me")

        odd = Odd()

        @tool("odd.tool")
        def odd_tool() -> int:
            return 1
    """,
    )
    assert not found.problems and "odd.tool" in found.tools


def test_two_folders_with_files_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / str(number), {"_shared": f"ANSWER = {number}"})
        path = tmp_path / str(number) / "good.py"
        path.write_text(path.read_text().replace("good.tool", f"tool{number}").replace("Good", f"Good{number}"))
    found = discover([tmp_path / "1", tmp_path / "2"])
    assert not found.problems
    assert [found.tools[f"tool{number}"].tool() for number in (1, 2)] == [1, 2]
    assert "good" not in sys.modules


def test_a_second_scan_sees_what_was_changed(tmp_path: Path) -> None:
    scan(tmp_path, _shared="ANSWER = 42  # longer, so that the cached bytecode does not fit")
    found = scan(tmp_path, _shared="ANSWER = 7")
    assert found.tools["good.tool"].tool() == 7


def test_a_missing_folder_and_a_failing_package_are_problems(tmp_path: Path) -> None:
    found = discover(tmp_path / "nowhere")
    assert [problem.kind for problem in found.problems] == ["no-folder"]
    found = scan(tmp_path, __init__="1 / 0")
    assert problems(found) == [("__init__.py", "import-failed")] and list(found.agents) == ["good"]
