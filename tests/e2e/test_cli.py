"""The real command `tidelog` on real servers: one `tidelog up` for the module, and the commands of users."""

import asyncio
import json
import os
import queue
import shutil
import signal
import stat
import subprocess
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.cli.history import RunHistory
from api.supervisor.processes import die_with_parent
from tests.e2e.cli_kit import TIDELOG, Up, command, environment, exit_code, until
from tests.integration.session_kit import worker_at
from tests.pace import ANSWER_S, finished

AGENTS = textwrap.dedent('''
    """Agents and a tool for the tests of the command line."""

    import asyncio

    from tidelog import Agent, Context, PermanentError, tool


    @tool("text.upper", idempotent=True)
    def upper(text: str) -> str:
        """Put a text into capitals."""
        return text.upper()


    class Shouter(Agent):
        """Shouts the topic."""

        name = "shouter"

        async def execute(self, ctx: Context) -> dict[str, str]:
            await ctx.state.set("mood", "loud")
            await ctx.send("listener", {"topic": ctx.input["topic"]})
            return {"shouted": await ctx.tool("text.upper", text=ctx.input["topic"])}


    class Listener(Agent):
        """Hears the shouter."""

        name = "listener"

        async def execute(self, ctx: Context) -> dict[str, object]:
            message = await ctx.receive(timeout_s=10)
            return {"heard": message.body if message else None, "results": ctx.results}


    class Broken(Agent):
        """Always fails."""

        name = "broken"

        async def execute(self, ctx: Context) -> None:
            raise PermanentError("out of order")


    class Teller(Agent):
        """Tells the time, by a tool that is data."""

        name = "teller"

        async def execute(self, ctx: Context) -> object:
            return (await ctx.tool("clock.now"))["zone"]


    class Sleeper(Agent):
        """Waits to be cancelled."""

        name = "sleeper"

        async def execute(self, ctx: Context) -> None:
            await asyncio.sleep(300)
''')


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the servers' own account can reach, with agents in it."""
    folder = Path(tempfile.mkdtemp(prefix="tidelog-cli-"))
    folder.chmod(0o711)
    (folder / "agents").mkdir()
    (folder / "agents" / "loud.py").write_text(AGENTS)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    out, err = folder / "up.out", folder / "up.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [TIDELOG, "up", "--port", "0", "--data-dir", "data", "--agents", "agents", "--json"],
            cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, preexec_fn=die_with_parent(),
        )  # fmt: skip
    try:
        until(lambda: out.read_text() or process.poll() is not None, 60)
        assert process.poll() is None, err.read_text()[-4000:]
        assert json.loads(out.read_text())["pid"] == process.pid
        yield Up(process, folder)
    finally:
        process.terminate()
        try:
            assert exit_code(process, 40) == 0, err.read_text()[-4000:]
        finally:
            process.kill()
            process.wait(timeout=ANSWER_S)


@pytest.fixture(scope="module")
def run_id(up: Up) -> str:
    """A completed run of two agents."""
    arguments = ["--input", '{"topic": "tides"}', "--wait", "--json"]
    until(lambda: len(up.get("/v1/agents").json()["data"]) == 5)
    done = command("runs", "start", "shouter", "listener", *arguments, "--data-dir", "data", cwd=up.folder)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["type"] == "run.started"
    assert events[-1]["type"] == "run.completed"
    found: str = events[0]["subject"]
    return found


def test_the_console_is_shown_with_a_link_that_signs_in_once(up: Up) -> None:
    browser, seen = up.folder / "browser", up.folder / "seen"
    browser.write_text(f'#!/bin/sh\necho "$@" > {seen}\n')
    browser.chmod(0o755)
    done = command("console", "--open", "--data-dir", "data", "--json", cwd=up.folder, BROWSER=f"{browser} %s")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    address, _, link = shown["console_url"].partition("#link=")
    assert shown["signs_in"] and address == f"{up.server()['url']}/console/"
    page = up.data_dir / "open-console.html"
    until(lambda: seen.exists() and seen.read_text())
    assert seen.read_text().strip() == page.absolute().as_uri(), "the link is not in the arguments of a process"
    assert shown["console_url"] in page.read_text() and stat.S_IMODE(page.stat().st_mode) == 0o600
    signed = up.post("/v1/sessions", link=link)
    assert (signed.status_code, signed.json()["label"]) == (201, "development"), signed.text
    assert up.post("/v1/sessions", link=link).status_code == 401
    assert json.loads((up.folder / "up.out").read_text())["console_url"] == address, "what programs read has no link"


def test_files_of_the_server_are_private(up: Up) -> None:
    for name in ("server.json", "api-key"):
        assert stat.S_IMODE((up.data_dir / name).stat().st_mode) == 0o600
    server = up.server()
    assert server["pid"] == up.process.pid
    assert server["url"].startswith("http://127.0.0.1:")
    assert set(server["processes"]) == {"api+relay", "relay+projector+saga", "worker"}
    assert set(server["versions"]) == {"tidelog", "python", "postgres", "nats"}


def test_the_worker_knows_no_secret_of_the_server(up: Up) -> None:
    environment = Path(f"/proc/{up.pid('worker')}/environ")
    if not environment.exists():
        pytest.skip("only Linux shows the environment of a process")
    names = {entry.split(b"=")[0].decode() for entry in environment.read_bytes().split(b"\0")}
    assert {"TIDELOG_URL", "TIDELOG_API_KEY"} <= names
    assert not names & {"TIDELOG_DATABASE_URL", "TIDELOG_NATS_URL"}


def test_a_second_server_on_the_folder_is_refused(up: Up) -> None:
    second = command("up", "--data-dir", "data", cwd=up.folder)
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr.count("\n") == 1
    assert second.stderr.startswith(f"error: a Tidelog server already runs on {up.data_dir.resolve()} at {up.server()['url']}")


def test_a_port_in_use_is_named(up: Up) -> None:
    port = up.server()["url"].rsplit(":", 1)[1]
    second = command("up", "--data-dir", "other", "--port", port, cwd=up.folder)
    assert second.returncode == 1
    told = f"error: port {port} of 127.0.0.1 is in use by another Tidelog server, "
    assert second.stderr.startswith(told)
    assert f"(process {up.pid('api+relay')}: " in second.stderr
    assert second.stderr.count("\n") == 1
    assert not (up.folder / "other").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"TIDELOG_PORT": "ninety"}, ["TIDELOG_PORT: "]),
        ({"TIDELOG_PORT": "-1", "TIDELOG_LOG_LEVEL": "loud"}, ["TIDELOG_PORT: ", "TIDELOG_LOG_LEVEL: "]),
        ({"TIDELOG_AGENTS": "nowhere"}, ["--agents: there is no folder nowhere"]),
    ],
)
def test_wrong_settings_are_one_readable_line_each(folder: Path, given: dict[str, str], told: list[str]) -> None:
    done = command("up", cwd=folder, **given)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == len(told)
    for line, beginning in zip(lines, told, strict=True):
        assert line.startswith(f"error: {beginning}")


def test_help_is_quick(folder: Path) -> None:
    took = []
    for _ in range(3):
        before = os.times().children_user
        assert finished([TIDELOG, "--help"], 60, cwd=folder).returncode == 0
        took.append(os.times().children_user - before)
    assert min(took) < 0.4, "something heavy is imported before it is needed"


def test_a_run_is_listed_and_shown(up: Up, run_id: str) -> None:
    listed = json.loads(command("runs", "list", "--status", "completed", "--json", "--data-dir", "data", cwd=up.folder).stdout)
    assert run_id in [run["run_id"] for run in listed]
    shown = command("runs", "show", run_id, "--data-dir", "data", cwd=up.folder)
    assert shown.returncode == 0
    assert "completed" in shown.stdout
    assert '"shouted": "TIDES"' in shown.stdout


def test_the_timeline_tells_the_run(up: Up, run_id: str) -> None:
    told = command("runs", "watch", run_id, "--data-dir", "data", cwd=up.folder).stdout
    for text in (
        "started: shouter, then listener",
        "calls text.upper",
        "→ listener: topic: tides",
        "sets mood = loud",
        "completed",
    ):
        assert text in told


def test_the_log_is_shown_and_followed(up: Up, run_id: str) -> None:
    of_run = command(
        "events", "tail", "--run", run_id, "--json", "--data-dir", "data", cwd=up.folder
    )  # the command ends with the run
    events = [json.loads(line) for line in of_run.stdout.splitlines()]
    page = up.get(f"/v1/runs/{run_id}/events", limit=1000).json()["data"]
    assert [event["position"] for event in events] == [event["position"] for event in page]
    some = command(
        "events",
        "tail",
        "--type",
        "run.completed",
        "--after",
        page[0]["position"],
        "--no-follow",
        "--data-dir",
        "data",
        cwd=up.folder,
    )
    assert some.stdout.count("run.completed") == some.stdout.count("\n") >= 1
    one = command("events", "show", page[0]["position"], "--json", "--data-dir", "data", cwd=up.folder)
    assert json.loads(one.stdout) == page[0]


def test_replay_is_right_at_every_position(up: Up, run_id: str) -> None:
    events = up.get(f"/v1/runs/{run_id}/events", limit=1000).json()["data"]
    history = RunHistory()
    for event in events:
        history.feed(event)
        assert without_times(history.document()) == without_times(up.get(f"/v1/runs/{run_id}", as_of=event["position"]).json())
    told = command("replay", run_id, "--json", "--data-dir", "data", cwd=up.folder)
    moments = [json.loads(line) for line in told.stdout.splitlines()]
    assert [moment["position"] for moment in moments] == [event["position"] for event in events]
    assert {"path": "run", "before": "running", "after": "completed"} in moments[-1]["changes"]
    middle = events[len(events) // 2]["position"]
    there = command("replay", run_id, "--at", middle, "--json", "--data-dir", "data", cwd=up.folder)
    assert json.loads(there.stdout) == up.get(f"/v1/runs/{run_id}", as_of=middle).json()
    before = command("replay", run_id, "--at", events[0]["position"] - 1, "--data-dir", "data", cwd=up.folder)
    assert before.returncode == 1
    assert before.stderr.startswith("error: not-found: there is no run")


def without_times(value: Any) -> Any:
    """Times of events are sent in milliseconds and stored in microseconds."""
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if not name.endswith("_at")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_a_failed_run_ends_with_exit_code_1(up: Up, run_id: str) -> None:
    done = command("runs", "start", "broken", "--wait", "--data-dir", "data", cwd=up.folder)
    assert done.returncode == 1
    line = AGENTS.splitlines().index('        raise PermanentError("out of order")') + 1
    why = f"PermanentError: out of order (agents/loud.py:{line})"
    assert f"failed: {why}" in done.stdout
    [hint, error] = done.stderr.splitlines()
    assert error == f"error: the run ended failed: {why}"
    program, *show = hint.removeprefix("For the tracebacks: ").split()
    assert program.endswith("tidelog") and show[:2] == ["runs", "show"] and show[3:] == ["--traceback"]
    shown = command(*show, "--data-dir", "data", cwd=up.folder)
    assert 'raise PermanentError("out of order")' in shown.stdout and "Traceback (most recent call last):" in shown.stdout


@pytest.fixture
def ambiguous(up: Up, run_id: str) -> Iterator[tuple[str, str]]:
    """A run and its call of a tool that must not run twice. The call's worker, which the test plays, gave the call up."""
    begun, over = queue.Queue[tuple[str, str]](), threading.Event()
    playing = threading.Thread(target=lambda: asyncio.run(_play(up, begun, over)))
    playing.start()
    try:
        until(lambda: not (begun.empty() and playing.is_alive()), 60)
        yield begun.get_nowait()
    finally:
        over.set()
        until(lambda: not playing.is_alive(), 30)


async def _play(up: Up, begun: "queue.Queue[tuple[str, str]]", over: threading.Event) -> None:
    async with worker_at(up.server()["url"], up.key) as worker:
        await worker.hello(["poster"], [{"name": "mail.post", "idempotent": False}])
        await worker.credit(agent=1, tool=1)
        started = (await asyncio.to_thread(up.post, "/v1/runs", agent="poster")).raise_for_status().json()["run_id"]
        poster = await worker.work()
        called = await worker.done(poster, "call", key="mail.post#1", tool="mail.post", arguments={"to": "ann"})
        await worker.done(await worker.work("tool"), "return")
        await asyncio.to_thread(until, lambda: up.get("/v1/invocations", status="ambiguous").json()["data"])
        begun.put((started, called["invocation_id"]))
        await asyncio.to_thread(over.wait)
        await worker.done(poster, "complete")


def test_a_call_that_waits_for_a_person_is_found_and_resolved(up: Up, ambiguous: tuple[str, str]) -> None:
    of_run, call = ambiguous

    def tidelog(*arguments: object) -> str:
        done = command(*arguments, "--data-dir", "data", cwd=up.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    to_write = f"tidelog invocations resolve {call} --result JSON --reason TEXT"
    for shown in (("invocations", "list", "--ambiguous"), ("invocations", "show", call), ("runs", "show", of_run)):
        assert to_write in tidelog(*shown), shown
    [listed] = json.loads(tidelog("invocations", "list", "--ambiguous", "--run", of_run, "--limit", 5, "--json"))
    assert (listed["invocation_id"], listed["tool"], listed["status"]) == (call, "mail.post", "ambiguous")
    assert listed["arguments_preview"] == '{"to":"ann"}'
    assert json.loads(tidelog("invocations", "show", call, "--json"))["arguments"] == {"to": "ann"}

    resolve = ("invocations", "resolve", call, "--data-dir", "data")
    for wrong, told in (
        (("--reason", "seen"), "give either --result or --error"),
        (("--reason", "seen", "--result", "1", "--error", "no"), "give either --result or --error"),
        (("--reason", "seen", "--result", "1", "--not-happened"), "give either --result or --error or --not-happened"),
        (("--reason", "seen", "--result", "1", "--error-type", "T"), "--error-type goes with --error"),
        (("--reason", "seen", "--result", "sent"), "--result: is not JSON"),
    ):
        refused = command(*resolve, *wrong, cwd=up.folder)
        assert refused.returncode == 2 and told in refused.stderr, refused.stderr
    assert command(*resolve, "--result", "1", cwd=up.folder).returncode == 2, "a reason must be given"

    (up.folder / "result.json").write_text('{"sent": true}')
    said = ("--result", "@result.json", "--reason", "It is in the outbox.", "--evidence", "<17@mail>")
    assert tidelog(*resolve[:3], *said) == f"Resolved call {call}\n"
    assert tidelog(*resolve[:3], *said) == f"Resolved call {call}\n", "the same again"
    contrary = command(*resolve, "--error", "not sent", "--reason", "no trace", cwd=up.folder)
    assert contrary.returncode == 1 and "already-resolved" in contrary.stderr and "It is in the outbox." in contrary.stderr
    call_now = json.loads(tidelog("invocations", "show", call, "--json"))
    assert (call_now["status"], call_now["result"]) == ("succeeded", {"sent": True})
    assert call_now["resolution"]["evidence"] == "<17@mail>"
    for shown in (("invocations", "show", call), ("runs", "show", of_run), ("replay", of_run)):
        told = tidelog(*shown)
        assert "It is in the outbox." in told and "key:" in told, told
    assert tidelog("invocations", "list", "--ambiguous") == "No call waits for a person.\n"


def test_a_run_is_cancelled(up: Up, run_id: str) -> None:
    started = json.loads(command("runs", "start", "sleeper", "--json", "--data-dir", "data", cwd=up.folder).stdout)
    reason = "enough\x1b[31m\u202e\nFAKE LINE"
    done = command("runs", "cancel", started["run_id"], "--reason", reason, "--data-dir", "data", cwd=up.folder)
    assert (done.returncode, done.stdout) == (0, f"Cancelled run {started['run_id']}\n")
    until(lambda: up.get(f"/v1/runs/{started['run_id']}").json()["status"] == "cancelled")
    again = command("runs", "cancel", started["run_id"][:23], "--data-dir", "data", cwd=up.folder)
    assert (again.returncode, again.stdout) == (0, f"Run {started['run_id']} was cancelled before\n")
    shown = command("runs", "show", started["run_id"], "--data-dir", "data", cwd=up.folder).stdout
    assert "enough\\u001b[31m\\u202e\\nFAKE LINE" in shown
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (["runs", "show", "nonsense"], 2, "error: 'nonsense' is not a run's id"),
        (["runs", "show", "01900000-0000-7000-8000-000000000000"], 1, "error: not-found: "),
        (["runs", "start", "nobody"], 1, "error: "),
        (["runs", "start", "shouter", "--input", "{"], 2, "error: --input: is not JSON"),
        (["runs", "start", "shouter", "--input", "[NaN]"], 2, "error: --input cannot be written as JSON"),
        (["runs", "start", "shouter", "--input", "-1e400"], 2, "error: --input cannot be written as JSON"),
        (["runs", "start", "shouter", "--input", '"\\ud800"'], 2, "error: --input cannot be written as JSON"),
        (["runs", "start", "shouter", "--input", "[" * 65 + "]" * 65], 2, "error: --input is nested too deeply"),
        (["runs", "start", "shouter", "--input", "[" * 50_000 + "]" * 50_000], 2, "error: --input is nested too deeply"),
        (["runs", "start", "shouter", "--aggregator", "listener"], 2, "error: --aggregator goes with --parallel"),
        (["events", "tail", "--type", "no.such", "--no-follow"], 1, "error: invalid-command: unknown event type"),
        (["replay", "01900000-0000-7000-8000-000000000000", "--step-by-step"], 2, "error: --step-by-step needs a terminal"),
    ],
)
def test_mistakes_get_one_line(up: Up, run_id: str, arguments: list[str], exit_code: int, told: str) -> None:
    done = command(*arguments, "--data-dir", "data", cwd=up.folder)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.startswith(told)
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_a_clear_error(folder: Path) -> None:
    done = command("agents", "list", "--url", "http://example.invalid:1", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "error: there is no API key for http://example.invalid:1: set TIDELOG_API_KEY\n")


def test_the_doctor_finds_a_healthy_server(up: Up, run_id: str) -> None:
    done = command("doctor", "--json", "--data-dir", "data", cwd=up.folder)
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert report["healthy"] is True
    assert report["server"]["pid"] == up.process.pid
    assert len(report["binaries"]["postgres"]["sha256"]) == 64
    assert report["health"]["status"] == "ok"
    members = [finding["detail"] for finding in report["findings"] if finding["subject"] == "member"]
    units = {detail.partition(": ")[2] for detail in members}
    [history] = [finding["detail"] for finding in report["findings"] if finding["subject"] == "history"]
    assert history.startswith(f"{report['health']['history']['id']}, since 20") and history.endswith(" UTC")
    engine = "20 projections, rebuilds, 8 partitions of the sagas, schedules, sweeper, timers, triggers, upkeep"
    assert units == {"relay", f"bulk-actions, {engine}"}


def test_old_workers_may_acknowledge_the_work_of_this_log_alone(up: Up, run_id: str) -> None:
    done = command("nats", "list", "--json", "--data-dir", "data", cwd=up.folder)
    listed = json.loads(done.stdout)
    [log] = listed["logs"]
    assert log["this_log"] and f"TIDELOG_WORK_{listed['log_id']}" in {stream["name"] for stream in log["streams"]}
    configuration = json.loads((Path(up.server()["embedded"]["home"]) / "nats.conf").read_text())
    users = [user for account in configuration["accounts"].values() for user in account["users"]]
    [permissions] = [user["permissions"] for user in users if user["user"] == "worker"]
    assert permissions == {"publish": {"allow": [f"$JS.ACK.TIDELOG_WORK_{listed['log_id']}.>"]}, "subscribe": {"deny": [">"]}}


@pytest.mark.parametrize("victim", ["api+relay", "worker", "nats", "postgres"])
def test_what_is_killed_comes_back(up: Up, run_id: str, victim: str) -> None:
    pid = up.pid(victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: up.pid(victim) not in (None, pid))
    started = command(
        "runs", "start", "shouter", "listener", "--input", '{"topic": "again"}', "--wait", "--data-dir", "data", cwd=up.folder
    )
    assert started.returncode == 0, started.stderr
    assert up.process.poll() is None


def test_a_tool_that_is_data_needs_no_other_step_than_its_definition(up: Up, run_id: str) -> None:
    assert "builtin-worker" not in up.server()["processes"], "nothing needs it"
    declared = {"version": "1", "kind": "builtin", "builtin": "time.now", "parameters": {"type": "object"}}
    created = command("tools", "create", "clock.now", "--declaration", json.dumps(declared), "--data-dir", "data", cwd=up.folder)
    assert created.returncode == 0, created.stderr

    def told() -> str:
        done = command("runs", "start", "teller", "--wait", "--data-dir", "data", cwd=up.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "UTC" in told()
    pid = up.pid("builtin-worker")
    assert pid is not None and up.server()["processes"]["builtin-worker"]["restarts"] == 0
    shown = command("tools", "list", "--data-dir", "data", cwd=up.folder)
    assert "clock.now" in shown.stdout and "none" not in shown.stdout.partition("clock.now")[2].splitlines()[0]
    api = up.pid("api+relay")
    assert api is not None
    os.kill(api, signal.SIGKILL)
    until(lambda: up.pid("api+relay") not in (None, api))
    assert "UTC" in told()
    assert up.pid("builtin-worker") == pid, "the api has said so again, and nothing was started again"
    os.kill(pid, signal.SIGKILL)
    until(lambda: up.pid("builtin-worker") not in (None, pid))
    assert "UTC" in told()
