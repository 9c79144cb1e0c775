"""The how-to about plans as it stands there: its agents, its plan, its commands, its constructors; and what real runs show."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from tests.integration.sdk_kit import running
from tests.integration.system_kit import System, served
from tests.integration.test_sdk_tools import tidelog
from tidelog import Agent, Client

PAGE = (Path(__file__).parents[2] / "docs/how-to/decide-map-and-loop-in-a-plan.md").read_text("utf-8")
AGENTS, IN_PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[PLAN] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[SENTENCES] = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for line in re.findall(r"^(?:RUN=\$\()?(tidelog runs [^\n)]*)", PAGE, re.MULTILINE) if "watch" not in line]


def agents() -> list[type[Agent]]:
    names: dict[str, Any] = {}
    exec(compile(AGENTS, "reviews.py", "exec"), names)
    return [found for found in names.values() if isinstance(found, type) and issubclass(found, Agent) and found is not Agent]


@pytest_asyncio.fixture
async def url(shared: System) -> AsyncIterator[str]:
    async with served(shared.container) as url, running(url, *agents(), key=shared.key):
        yield url


async def test_the_page_as_it_stands_there(shared: System, url: str, tmp_path: Path) -> None:
    (tmp_path / "review.yaml").write_text(PLAN)
    start, *reads = COMMANDS
    assert len(reads) == 5

    async def answer(command: str) -> str:
        code, text = await tidelog(url, shared.key, command, tmp_path)
        assert code == 0, text
        return text

    run_id = (await answer(start)).strip()
    await shared.settled()
    async with Client(url, shared.key) as client:
        run = await client.wait(UUID(run_id), timeout=30)
        assert run.status == "completed" and run.result == {"faults": [3, 1], "polished": 1}
        await shared.settled()
        told = {read: await answer(read.replace('"$RUN"', run_id)) for read in reads}
        said = [line.strip() for line in told[reads[1]].splitlines()]
        assert said == [line.strip() for line in SENTENCES.splitlines()]
        assert said[9] in [line.strip() for line in told[reads[2]].splitlines()]
        [child] = await client.children(run.run_id)
        assert str(child.run_id) in told[reads[0]] and str(child.run_id) in told[reads[3]] and str(child.run_id) in told[reads[4]]
        assert child.parent is not None and child.parent.run_id == run.run_id
        parts = await client.parts(run.run_id, "reviews")
        assert [(part.number, part.status, part.result and part.result["faults"]) for part in parts] == [
            (0, "completed", 3), (1, "completed", 1), (2, "failed", None),
        ]  # fmt: skip
        assert parts[2].error is not None and parts[2].input == {"path": "src/c.py", "lines": 0}
        await _is_as_replayed(shared, str(run.run_id))


async def _is_as_replayed(shared: System, run_id: str) -> None:
    """The read model and the replay tell the same of a run, of its parts and of its children."""
    head = await shared.settled()
    for path in ("", "/steps/reviews/parts", "/steps/polish/parts", "/children"):
        now = await shared.http.get(f"/v1/runs/{run_id}{path}", headers={"Tidelog-Position": str(head)})
        then = await shared.http.get(f"/v1/runs/{run_id}{path}", params={"as_of": head})
        assert now.status_code == then.status_code == 200, (now.text, then.text)
        assert now.json() == then.json()


async def test_the_constructors_of_the_page(shared: System, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(IN_PYTHON, "plan.py", "exec"), names)
    async with Client(url, shared.key) as client:
        assert await names["run"](client) == {"faults": [3, 1], "polished": 1}
    assert "reviews completed" in capsys.readouterr().out


async def test_a_large_value_of_a_part_is_a_reference(shared: System, url: str) -> None:
    step = {"key": "map", "agent": "finder", "each": {"over": "[input.long, 'b']"}}
    async with Client(url, shared.key) as client:
        started = await client.start_run(plan={"kind": "graph", "steps": [step]}, input={"long": "y" * 20_000}, wait_s=30)
        assert started.run is not None and started.run.status == "completed"
        await shared.settled()
        left, short = await client.parts(started.run_id, "map", whole=False)
        assert left.input is None and left.large is not None and short.input == "b"
        assert await client.value(left.large["input"]) == "y" * 20_000
        whole, _ = await client.parts(started.run_id, "map")
        assert whole.input == "y" * 20_000
        answers = [await shared.http.get(f"/v1/runs/{started.run_id}/steps/map/parts/{number}/input") for number in (0, 1, 2)]
        assert [answer.status_code for answer in answers] == [200, 200, 404]
        assert [answer.json() for answer in answers[:2]] == ["y" * 20_000, "b"]
