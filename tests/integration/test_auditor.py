"""The questions of an auditor, answered by the commands of `docs/how-to/answer-an-auditor.md`."""

import json
import re
import shlex
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, served
from tests.kit import forked
from tests.pace import within

PAGE = Path(__file__).parents[2] / "docs/how-to/answer-an-auditor.md"
COMMANDS = re.findall(r"^tidelog .*$", PAGE.read_text("utf-8"), re.MULTILINE)
TODAY = datetime.now(UTC).date()
DAYS = {"2026-11-27": str(TODAY - timedelta(1)), "2026-11-28": str(TODAY + timedelta(2))}
"""The days of the page, and days around the test's runs, also if midnight comes meanwhile."""


class Commands:
    """Runs commands of the page as they stand there, against the server of the test."""

    def __init__(self, url: str, key: str) -> None:
        self._environment = {"TIDELOG_URL": url, "TIDELOG_API_KEY": key, "PATH": "/usr/bin:/bin", "COLUMNS": "200"}

    async def out(self, command: str, **names: str) -> str:
        assert command in COMMANDS, f"the page has no such command: {command}"
        known = {**DAYS, **names}
        command = re.sub("|".join(known), lambda name: known[name[0]], command)
        code, out, err = await self.run(command)
        assert code == 0, err
        return out

    async def run(self, command: str) -> tuple[int | None, str, str]:
        """The exit code, standard output and standard error."""
        process = await forked.tidelog(*shlex.split(command)[1:], env=self._environment, stdout=PIPE, stderr=PIPE)
        async with within(30):
            out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


@pytest_asyncio.fixture
async def commands(shared: System) -> AsyncIterator[Commands]:
    async with served(shared.container) as url:
        yield Commands(url, shared.key)


@pytest_asyncio.fixture
async def player(shared: System) -> PlayedWorker:
    worker = shared.worker("audited")
    await worker.register("researcher", "bystander", tools=[{"name": "look.up"}])
    return worker


async def start(shared: System, agent: str, **given: Any) -> str:
    answer = await shared.http.post("/v1/runs", json={"agent": agent, **given})
    assert answer.status_code == 201
    await shared.http.get("/v1/runs", params={"agent": agent}, headers={"Tidelog-Position": str(answer.json()["position"])})
    return str(answer.json()["run_id"])


async def test_what_did_an_agent_do_and_with_which_inputs(shared: System, player: PlayedWorker, commands: Commands) -> None:
    run_id = await start(shared, "researcher", input={"topic": "tides of Fundy"}, metadata={"customer": "c-17", "urgent": True})
    other = await start(shared, "bystander", input={"topic": "nothing"}, metadata={"customer": "c-17", "urgent": False})
    claim = await player.next("researcher")
    await claim.complete({"found": "16 metres"})
    done = await commands.out("tidelog runs list --agent researcher --since 2026-11-27 --until 2026-11-28 --details --limit 1000")
    assert run_id in done and "tides of Fundy" in done and "16 metres" in done and other not in done
    of_customer = await commands.out("tidelog runs list --metadata customer=c-17 --metadata urgent=true")
    assert run_id in of_customer and other not in of_customer
    shown = await commands.out("tidelog runs show RUN --full", RUN=run_id)
    assert "tides of Fundy" in shown and "c-17" in shown
    lines = await commands.out("tidelog events tail --since 2026-11-27 --until 2026-11-28 --json")
    assert {json.loads(line)["rootid"] for line in lines.splitlines()} >= {run_id, other}
    started = json.loads(await commands.out("tidelog events tail --run RUN --type run.started --no-follow --json", RUN=run_id))
    assert started["actor"].startswith("key:") and started["data"]["input"] == {"topic": "tides of Fundy"}


async def test_on_whose_behalf(shared: System, player: PlayedWorker, commands: Commands) -> None:
    of_nobody = await start(shared, "bystander")
    for_ada = {"Tidelog-On-Behalf-Of": "ada@example.com"}
    run_id = (await shared.http.post("/v1/runs", json={"agent": "bystander"}, headers=for_ada)).json()["run_id"]
    await shared.settled()
    found = await commands.out("tidelog runs list --on-behalf-of ada@example.com --since 2026-11-27")
    assert run_id in found and of_nobody not in found
    lines = await commands.out("tidelog events tail --on-behalf-of ada@example.com --no-follow --json")
    events = [json.loads(line) for line in lines.splitlines()]
    assert run_id in {event["rootid"] for event in events} and {event["onbehalfof"] for event in events} == {"ada@example.com"}
    code, of_actor, _ = await commands.run(f"tidelog events tail --actor {events[0]['actor']} --run {run_id} --json")
    assert code == 0 and {json.loads(line)["rootid"] for line in of_actor.splitlines()} == {run_id}


async def test_which_runs_had_this_fault(shared: System, player: PlayedWorker, commands: Commands) -> None:
    run_id = await start(shared, "researcher")
    claim = await player.next("researcher")
    await claim.fail(type="ConnectError", message="Connection to db-7 refused")
    await eventually(lambda: has_failed(shared, run_id))
    found = await commands.out('tidelog runs list --error "connection refused" --status failed')
    assert run_id in found


async def has_failed(shared: System, run_id: str) -> bool:
    answer = await shared.http.get("/v1/runs", params={"error": "refused", "status": "failed"})
    return run_id in [run["run_id"] for run in answer.json()["data"]]


def test_the_page_has_a_command_for_each_question() -> None:
    assert len(COMMANDS) == 8


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("runs list --since yesterday", "--since: 'yesterday' is neither a day"),
        ("runs list --until 2026-13-01", "--until"),
        ("runs list --until 2026-01-31T12:00:00", "its zone"),
        ("runs list --metadata customer", "--metadata: 'customer' is not NAME=VALUE"),
        ("runs list --error ''", "1 to 8 words"),
        ("runs list --error x --at 5", "cannot be combined"),
        ("events tail --since 2026-01-31 --follow", "--follow"),
        ("events tail --until now", "--until"),
        ("events tail --run 00000000-0000-7000-8000-000000000000 --actor x --follow", "without --follow"),
    ],
)
async def test_nonsense_is_refused_with_one_sentence(commands: Commands, command: str, told: str) -> None:
    code, out, err = await commands.run(f"tidelog {command}")
    assert (code > 0, out) == (True, "") and told in err and err.startswith("error: ") and err.count("\n") == 1, err
