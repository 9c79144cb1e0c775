"""Short ids, causes and the options of a start: the commands against a server, in the process of the tests."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from api.cli.main import app
from tests.integration.system_kit import System, served

Told = tuple[object, str, str]
"""Exit code, standard output, standard error."""
Tidelog = Callable[..., Awaitable[Told]]


@pytest_asyncio.fixture
async def tidelog(shared: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Tidelog]:
    def run(arguments: tuple[str, ...]) -> Told:
        capsys.readouterr()
        try:
            app(list(arguments), standalone_mode=False)
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        return (code, *capsys.readouterr())

    # The server is in this process: its log would be among the output of the commands.
    with structlog.testing.capture_logs():
        async with served(shared.container) as url:
            monkeypatch.setenv("TIDELOG_URL", url)
            monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
            yield lambda *arguments: asyncio.to_thread(run, arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def run_id(shared: System) -> str:
    """A completed run."""
    worker = shared.worker()
    await worker.register("alpha")
    started: str = (await shared.http.post("/v1/runs", json={"agent": "alpha"})).json()["run_id"]
    await (await worker.next("alpha")).complete("done")
    await shared.until_topic(started, "run.completed")
    await shared.settled()
    return started


async def test_what_is_printed_of_an_id_is_taken_for_the_id(tidelog: Tidelog, run_id: str) -> None:
    _, tail, _ = await tidelog("events", "tail", "--run", run_id[:20], "--no-follow")
    _, answered, _ = await tidelog("events", "tail", "--run", run_id, "--json")
    events = [json.loads(line) for line in answered.splitlines()]
    claimed = next(place for place, event in enumerate(events) if event["type"] == "agent_run.claimed")
    printed = tail.splitlines()[claimed].split()[4]
    assert events[claimed]["subject"].startswith(printed) and events[claimed]["subject"] != run_id
    for text in (printed, run_id[:18].upper(), run_id.replace("-", "")):
        code, shown, _ = await tidelog("runs", "show", text, "--json")
        assert (code, json.loads(shown)["run_id"]) == (0, run_id)
    for arguments in (("replay", printed), ("runs", "watch", printed), ("invocations", "list", "--run", printed)):
        assert (await tidelog(*arguments))[0] == 0


async def test_every_cause_can_be_shown(tidelog: Tidelog, shared: System, run_id: str) -> None:
    events = (await shared.http.get(f"/v1/runs/{run_id}/events")).json()["data"]
    for cause in {event["causationid"] for event in events}:
        code, shown, _ = await tidelog("events", "show", cause)
        assert (code, "caused by" in shown) == (0, True), cause
    event = next(event for event in events if ":" in event["causationid"])
    assert json.loads((await tidelog("events", "show", event["id"], "--json"))[1]) == event


async def test_a_beginning_of_several_ids_is_refused_with_them(tidelog: Tidelog, shared: System, run_id: str) -> None:
    twin = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    assert (await shared.http.post("/v1/runs", json={"run_id": twin, "agent": "alpha"})).status_code == 201
    code, _, told = await tidelog("runs", "show", run_id[:-1])
    assert code == 1
    assert told.splitlines() == [
        f"error: {run_id[:-1]} is the beginning of several ids; give more of it:", *sorted((f"  {run_id}", f"  {twin}"))
    ]  # fmt: skip
    nobody = await tidelog("runs", "cancel", "ffff-0000")
    assert nobody == (1, "", "error: no id of a run begins with ffff-0000 (see: tidelog runs list)\n")
    assert (await tidelog("invocations", "show", run_id[:18]))[2].startswith("error: no id of a call begins with ")
    assert (await shared.client("another key").get(f"/v1/ids/{run_id}")).status_code == 401


async def test_a_project_is_created_listed_and_given_to_a_run(tidelog: Tidelog, shared: System, run_id: str) -> None:
    code, answered, _ = await tidelog("projects", "create", "reviews", "--metadata", '{"team": "a"}', "--json")
    project_id = json.loads(answered)["project_id"]
    await shared.settled()
    listed = json.loads((await tidelog("projects", "list", "--json"))[1])
    assert (code, listed[-1]["project_id"], listed[-1]["metadata"]) == (0, project_id, {"team": "a"})
    started = json.loads((await tidelog("runs", "start", "alpha", "--project", project_id, "--json"))[1])
    await shared.settled()
    assert (await shared.http.get(f"/v1/runs/{started['run_id']}")).json()["project_id"] == project_id
    assert await tidelog("runs", "messages", run_id) == (0, "No messages.\n", "")
    code, _, told = await tidelog("projects", "remove", project_id)
    assert code == 1 and told.startswith(f"error: project-in-use: runs of the project are open: {started['run_id']}; ")
    await tidelog("runs", "cancel", started["run_id"])
    assert await tidelog("projects", "remove", project_id) == (0, f"Removed project {project_id}\n", "")
    assert json.loads((await tidelog("projects", "remove", project_id, "--json"))[1]) == {"project_id": project_id}
    assert (await tidelog("runs", "start", "alpha", "--project", project_id))[2].startswith("error: unknown-project: ")
    assert (await tidelog("projects", "remove", "soon"))[0] == 2


async def test_what_names_no_event_is_one_line(tidelog: Tidelog, run_id: str) -> None:
    for wanted, code, told in (
        ("0", 2, "'0' is neither a position"),
        ("soon", 2, "'soon' is neither a position"),
        (f"{run_id}:99", 1, f"there is no event or command {run_id}:99"),
        ("ffffffff-0000-7000-8000-000000000000", 1, "there is no event or command ffffffff"),
    ):
        answer = await tidelog("events", "show", wanted)
        assert (answer[0], answer[2].count("\n")) == (code, 1)
        assert answer[2].startswith(f"error: {told}")


async def test_a_start_says_all_that_http_can_say(tidelog: Tidelog, shared: System, run_id: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"kind": "graph", "steps": [{"key": "only", "agent": "alpha", "timeout_s": 60}]}')
    arguments = ("--plan", f"@{tmp_path}/plan.json", "--metadata", '{"ticket": "T-1"}', "--idempotency-key", "once", "--json")
    first, second = [await tidelog("runs", "start", *arguments) for _ in range(2)]
    assert first == second
    started = json.loads(first[1])["run_id"]
    await shared.settled()
    run = (await shared.http.get(f"/v1/runs/{started}")).json()
    assert (run["metadata"], run["plan"]["steps"][0]["timeout_s"]) == ({"ticket": "T-1"}, 60)
    code, _, told = await tidelog("runs", "start", "alpha", "--idempotency-key", "once")
    assert (code, told.startswith("error: idempotency-key-reused: ")) == (1, True)
    for key in ("", "ä", "k" * 256):
        assert (await tidelog("runs", "start", "alpha", "--idempotency-key", key))[0] == 2


async def test_calls_and_messages_of_then(tidelog: Tidelog, shared: System) -> None:
    worker = shared.worker("then")
    await worker.register("teller", tools=["tell"])
    run_id = await shared.start("teller")
    claim = await worker.next("teller")
    call_id = await claim.call("one", "tell", n=1)
    at = str(await shared.container.feed.head())
    await claim.ok("send", key="to-self", to="teller", body="hello")
    await (await worker.next("tell", "tool")).complete(1)
    await shared.settled()
    for then, statuses, sent in (((), ["succeeded"], 1), (("--at", at), ["requested"], 0)):
        _, listed, _ = await tidelog("invocations", "list", "--run", run_id, *then, "--json")
        assert [call["status"] for call in json.loads(listed)] == statuses
        _, shown, _ = await tidelog("invocations", "show", call_id, *then, "--json")
        assert [json.loads(shown)["status"]] == statuses
        _, messages, _ = await tidelog("runs", "messages", run_id, *then, "--json")
        assert len(json.loads(messages)) == sent
    assert (await tidelog("invocations", "list", "--ambiguous", "--at", at))[1] == f"No call waited for a person at {at}.\n"
    assert "hello" in (await tidelog("runs", "messages", run_id))[1]
