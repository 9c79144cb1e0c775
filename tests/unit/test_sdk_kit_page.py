"""The page about the testing kit: its tests run as they stand there, and its table has every check."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pace import finished
from tests.pages import ROOT, block, blocks
from tidelog.testing import assert_survives_crashes
from tidelog.testing.contract import CHECKS

INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
PAGE = "docs/how-to/test-agents-and-tools.md"


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(block(PAGE, "shop"))
    tests = [each.text for each in blocks(PAGE) if each.language == "python" and each.name != "shop"]
    (tmp_path / "test_shop.py").write_text("\n".join(tests))
    (tmp_path / "pytest.ini").write_text(INI)
    ended = finished(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        60,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert "16 passed, 4 skipped" in told, told


async def test_a_careless_shop_gets_the_message_of_the_page() -> None:
    names: dict[str, Any] = {"__name__": "shop"}
    exec(block(PAGE, "shop").replace('key="charge"', 'key=f"charge {ctx.attempt}"'), names)
    with pytest.raises(AssertionError) as caught:
        await assert_survives_crashes(names["Shop"], 7, tools=[names["charge"]], peers=["mailer"])
    assert str(caught.value).startswith(block(PAGE, "message").rstrip())


def test_the_table_has_every_check() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    assert [name for name in CHECKS if f"`{name}`" not in text] == []
