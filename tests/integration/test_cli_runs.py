"""What the command line shows of runs, agents and tools, on a real server: failures, degraded runs, values, warnings."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import pytest_asyncio

from api.cli import agents, contents, invocations, output, replay, runs, tools
from api.cli.options import Where
from tests.integration.played_worker import PlayedWorker
from tests.integration.sdk_kit import running
from tests.integration.system_kit import System, eventually, served
from tidelog import Agent, Context, ToolError, TransientError
from tidelog.errors import ConflictError

TRACE = '  File "/srv/agents/classify.py", line 12, in execute\n    ticket = ctx.input["ticket"]\n'
KEY_ERROR: dict[str, Any] = {
    "type": "KeyError", "message": "'ticket'", "file": "/srv/agents/classify.py", "line": 12, "traceback": TRACE,
    "causes": [{"relation": "context", "type": "OSError", "message": "gone"}],
}  # fmt: skip
SHOWN = "KeyError: 'ticket' (/srv/agents/classify.py:12)"
LONG = "tides and moons " * 40


_LOGGED = re.compile(r"^\d\d:\d\d:\d\d\.\d{6} \[.*\n", re.MULTILINE)


class Cli:
    """Runs the coroutines behind the commands, and returns their output."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self._capsys = url, capsys

    def written(self) -> tuple[str, str]:
        """Standard output, without the log of the server in this process, and standard error."""
        captured = self._capsys.readouterr()
        return _LOGGED.sub("", captured.out), captured.err

    async def out(self, command: Coroutine[Any, Any, None]) -> str:
        """Standard output."""
        await command
        return self.written()[0]

    async def failed(self, command: Coroutine[Any, Any, None]) -> tuple[str, str, str]:
        """Standard output, standard error, and the message of the failure."""
        with pytest.raises(output.CommandFailed) as failure:
            await command
        return *self.written(), str(failure.value)

    async def shown(self, run_id: str, *, full: bool = False, traceback: bool = False) -> str:
        return await self.out(runs._show(run_id, full, traceback, None, self.url, False))

    async def listed(self, status: str | None, *, limit: int = 20, at: str | None = None) -> str:
        return await self.out(runs._list({"status": status, "as_of": at}, limit, False, None, self.url, False))


@pytest_asyncio.fixture
async def cli(shared: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Cli]:
    monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
    async with served(shared.container) as url:
        yield Cli(url, capsys)


@pytest_asyncio.fixture
async def player(shared: System) -> PlayedWorker:
    worker = shared.worker()
    parameters = {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "note": {"type": "string"}},
        "required": ["a"], "additionalProperties": False,
    }  # fmt: skip
    await worker.register(
        "alpha", "beta", "gamma",
        tools=[
            {"name": "math.add", "parameters": parameters, "description": "Adds.\n\nSlowly."},
            {"name": "mail", "idempotent": False},
        ],
    )  # fmt: skip
    return worker


async def test_a_failure_is_shown_with_class_file_and_line_everywhere(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start("alpha")
    await shared.settled()
    assert await cli.listed("cancelled") == "No run is cancelled.\n", "there are runs, but none of that status"
    assert await cli.listed("cancelled", at="1") == "No run was cancelled at 1.\n"
    await (await player.next("alpha")).fail(**KEY_ERROR)
    run = await shared.ended(run_id)
    assert (run["error"]["file"], run["error"]["line"], run["error"]["traceback"]) == ("/srv/agents/classify.py", 12, TRACE)
    short, long = await cli.shown(run_id), await cli.shown(run_id, traceback=True)
    for text in (short, long):
        assert f"outcome     failed: {SHOWN}" in text
    assert "runs show" in short and "--traceback" in short and "Traceback (most recent" not in short
    assert f"    | {TRACE.splitlines()[0]}" in long and "    |   while handling: OSError: gone" in long

    for traceback in (False, True):
        out, err, message = await cli.failed(runs._watch(run_id, traceback, None, cli.url, False))
        assert f"alpha         failed: {SHOWN}" in out and message == f"the run ended failed: {SHOWN}"
        assert ("Traceback (most recent call last):" in out) is traceback
        assert ("--traceback" in err) is not traceback
        replayed = await cli.out(replay._all(run_id, False, traceback, None, cli.url, False))
        assert f"alpha.error: {SHOWN}" in replayed
        assert replayed.count("Traceback (most recent call last):") == int(traceback)
    assert "alpha failed:\n    | Traceback" in await cli.out(
        replay._at(run_id, str(run["position"]), False, True, None, cli.url, False)
    )


async def test_a_degraded_run_is_listed_and_says_what_is_missing_and_why(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start(plan={"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"})
    await (await player.next("alpha")).fail(**KEY_ERROR)
    await (await player.next("beta")).complete("B")
    await (await player.next("gamma")).complete("all")
    await shared.ended(run_id)
    listed = await cli.listed("degraded")
    assert run_id in listed and "completed (degraded: without alpha)" in listed
    page = (await shared.http.get("/v1/runs", params={"status": "degraded"})).json()["data"]
    assert [(run["run_id"], run["status"], run["degraded"], run["missing"]) for run in page] == [
        (run_id, "completed", True, ["alpha"])
    ]
    shown = await cli.shown(run_id)
    assert "completed (degraded: without alpha)" in shown
    assert f"warning: the run is degraded: it was completed without alpha ({SHOWN})" in shown
    await runs._watch(run_id, False, None, cli.url, False)
    out, err = cli.written()
    assert "completed, degraded: without alpha" in out
    assert err.startswith(f"warning: the run is degraded: it was completed without alpha ({SHOWN})\n")


async def test_results_that_changed_code_did_not_use_are_a_warning(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start("alpha")
    claim = await player.next("alpha")
    await claim.ok("complete", result="done", unused_keys=["s0", "s1"])
    await shared.ended(run_id)
    told = "2 recorded results were not used, so the agent's code was changed between its attempts: s0, s1"
    assert f"warning: alpha: {told}" in await cli.shown(run_id)
    await runs._watch(run_id, False, None, cli.url, False)
    out, err = cli.written()
    assert told in out and f"warning: alpha: {told}" in err
    assert "alpha.unused_keys: s0, s1" in await cli.out(replay._all(run_id, False, False, None, cli.url, False))


async def test_the_version_of_an_agent_is_shown_and_whether_it_was_asked_for(
    shared: System, player: PlayedWorker, cli: Cli
) -> None:
    steps = [{"key": "pinned", "agent": "alpha", "agent_version": "1"}, {"key": "noted", "agent": "beta"}]
    run_id = await shared.start(plan={"kind": "graph", "steps": steps})
    for agent in ("alpha", "beta"):
        await (await player.next(agent)).complete()
    await shared.ended(run_id)
    shown = await cli.shown(run_id)
    assert "alpha v1 (asked for)" in shown and "beta v1  " in shown
    watched = await cli.out(runs._watch(run_id, False, None, cli.url, False))
    assert ", version 1 asked for)" in watched and watched.count("asked for") == 1
    assert "pinned.version: 1 (asked for)" in await cli.out(replay._all(run_id, False, False, None, cli.url, False))


async def test_values_of_calls_are_shown_in_short_and_in_full(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start("alpha", metadata={"customer": "c1"}, input={"topic": "tides"})
    claim = await player.next("alpha")
    calls = [await claim.call(f"add#{number}", "math.add", a=number, note=LONG) for number in range(2)]
    for _ in calls:
        await (await player.next("math.add", "tool")).complete({"text": LONG})
    await claim.ok("record", key="draft", result={"draft": LONG})
    await claim.complete("done")
    await shared.ended(run_id)
    short, full = await cli.shown(run_id), await cli.shown(run_id, full=True)
    for text in (short, full):
        assert "metadata    " in text and "c1" in text
        assert "alpha: add#0 (math.add)" in text and "arguments" in text and "result" in text
        assert all(call in text for call in calls), "ids of the calls"
    assert LONG not in short and full.count(LONG.strip()) == 5
    assert "alpha: draft" in full and "alpha: draft" not in short
    listed = await cli.out(contents.calls(run_id, None, None, cli.url, False))
    assert "add#0" in listed and "math.add" in listed and "succeeded" in listed
    journal = await cli.out(contents.journal(run_id, None, None, cli.url, False))
    assert "alpha: call add#0  math.add" in journal and "alpha: call finished add#0  succeeded" in journal
    assert "alpha: step draft" in journal
    for wanted in (False, True):
        replayed = await cli.out(replay._all(run_id, wanted, False, None, cli.url, False))
        assert "alpha.add#0.arguments: " in replayed and "alpha.add#0.result: " in replayed and "alpha.draft.recorded: " in replayed
        assert (LONG.strip() in replayed) is wanted


async def test_work_that_nobody_takes_is_told(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start("beta")
    await shared.settled()
    assert "waits for a worker" not in await cli.shown(run_id)
    await shared.sql("UPDATE run_step SET scheduled_at = '2020-01-01T00:00:00Z' WHERE run_id = %s", run_id)
    shown = await cli.shown(run_id)
    assert "warning: beta waits for a worker with agent 'beta': the agent is registered, but the work has waited" in shown
    await (await player.next("beta")).complete()
    await shared.ended(run_id)


async def test_whoever_watches_a_run_is_told_that_its_work_waits(
    shared: System, player: PlayedWorker, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.cli.waiting.FIRST_S", 0.05)
    monkeypatch.setattr("api.cli.watching.PAUSE_S", 0.02)
    run_id = await shared.start("gamma")
    watching = asyncio.create_task(runs._watch(run_id, False, None, cli.url, True))
    told: list[str] = []

    async def waits() -> bool:
        told.append(cli.written()[1])
        return "gamma waits for a worker with agent 'gamma': the agent is registered, but the work has waited" in "".join(told)

    await eventually(waits, "the note")
    await (await player.next("gamma")).complete()
    await watching


async def test_a_resolved_call_says_who_and_why(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start("alpha")
    claim = await player.next("alpha")
    call = await claim.call("mail#1", "mail")
    await (await player.next("mail", "tool")).lose()
    said = {"result": {"sent": True}, "reason": "It is in the outbox."}
    assert (await shared.http.post(f"/v1/invocations/{call}/resolve", json=said)).status_code == 200
    await claim.complete()
    await shared.ended(run_id)
    told = "because: It is in the outbox."
    for text in (
        await cli.shown(run_id),
        await cli.out(runs._watch(run_id, False, None, cli.url, False)),
        await cli.out(replay._all(run_id, False, False, None, cli.url, False)),
    ):
        [line] = [line for line in text.splitlines() if told in line]
        assert "by key:" in line
    assert "resolved by a person" in await cli.out(invocations._show(call, None, False, None, cli.url, False))


async def test_a_call_that_did_not_happen_is_called_again(shared: System, player: PlayedWorker, cli: Cli) -> None:
    run_id = await shared.start("alpha")
    claim = await player.next("alpha")
    call = await claim.call("mail#1", "mail", to="ann@example.com")
    await (await player.next("mail", "tool")).lose()
    await shared.settled()
    assert "ann@example" in await cli.out(invocations._list(True, run_id, None, 20, None, None, cli.url, False))
    said = invocations._resolve(call, "no trace of it", None, {"not_happened": True}, "log 7", None, None, cli.url, False)
    assert await cli.out(said) == f"Resolved call {call}: the tool is called again, unless the call was cancelled\n"
    again = await player.next("mail", "tool")
    assert (again.work_id, again.attempt) == (call, 2)
    await again.complete("sent")
    await claim.complete()
    await shared.ended(run_id)
    watched = await cli.out(runs._watch(run_id, False, None, cli.url, False))
    assert "did not take effect, says key:" in watched and "because: no trace of it" in watched
    shown = await cli.out(invocations._show(call, None, False, None, cli.url, False))
    assert "no trace of it" in shown and f"idempotency key {call}" in shown and "resolved by" not in shown
    other = invocations._resolve(call, "it is", None, {"not_happened": True}, None, None, None, cli.url, False)
    with pytest.raises(ConflictError, match="the call has succeeded"):
        await other


async def test_tools_and_agents_are_listed_and_shown_with_their_schemas(shared: System, player: PlayedWorker, cli: Cli) -> None:
    await shared.settled()
    listed = await cli.out(tools._list(Where(None, cli.url, False)))
    assert "math.add" in listed and "a, [b], [note]" in listed and "yes, 3 attempts" in listed and "Adds." in listed
    shown = await cli.out(tools._show("math.add", Where(None, cli.url, False)))
    assert '"additionalProperties": false' in shown and "Slowly." in shown and "revision 1" in shown
    assert json.loads(await cli.out(tools._show("mail", Where(None, cli.url, True))))["idempotent"] is False
    assert "waits for a person" in await cli.out(tools._show("mail", Where(None, cli.url, False)))
    assert "alpha" in await cli.out(agents._list(None, cli.url, False))
    assert (await cli.out(agents._show("alpha", None, cli.url, False))).startswith("Agent alpha\n")
    for command, told in (
        (tools._show("math.ad", Where(None, cli.url, False)), "no tool 'math.ad' is registered; did you mean 'math.add'?"),
        (agents._show("zeta", None, cli.url, False), "no agent 'zeta' is registered; did you mean 'beta'?"),
    ):
        assert (await cli.failed(command))[2].startswith(told)


async def test_misspelt_names_are_answered_with_the_names_that_were_meant(shared: System, player: PlayedWorker) -> None:
    await shared.settled()
    refused = (await shared.http.post("/v1/runs", json={"plan": {"kind": "sequential", "agents": ["alpa", "beta", "gama"]}})).json()
    assert (refused["code"], refused["detail"]) == (
        "unknown-agent",
        "no agent 'alpa' is registered; did you mean 'alpha'? (and 1 more)",
    )
    assert [error["pointer"] for error in refused["errors"]] == ["/plan/agents/0", "/plan/agents/2"]
    run_id = await shared.start("alpha")
    claim = await player.next("alpha")
    unknown = await claim.post("call", key="k", tool="math.ad", arguments={})
    assert unknown.json()["detail"] == "no tool 'math.ad' is registered; did you mean 'math.add'?"
    wrong = await claim.post("call", key="k", tool="math.add", arguments={"a": "x", "c": 3})
    assert {(error["pointer"], error["detail"]) for error in wrong.json()["errors"]} == {
        ("/arguments", "Additional properties are not allowed ('c' was unexpected)"),
        ("/arguments/a", '"x" is not of type "integer"'),
    }
    await claim.complete()
    await shared.ended(run_id)


# --- with agents of a real worker -----------------------------------------------------------------------------------------


class Classifier(Agent):
    async def execute(self, ctx: Context) -> Any:
        return ctx.input["ticket"]


class Reworked(Agent):
    """Its second attempt has other steps than its first one, as if the code had been changed in between."""

    async def execute(self, ctx: Context) -> Any:
        letter = "s" if ctx.attempt == 1 else "t"
        done = [await ctx.step(f"{letter}{number}", int, number) for number in range(2)]
        if ctx.attempt == 1:
            raise TransientError("again")
        return done


class Caller(Agent):
    async def execute(self, ctx: Context) -> Any:
        return [await self.fault(ctx, *call) for call in (("math.add", {"a": "x", "c": 3}), ("math.ad", {"a": 1}))]

    async def fault(self, ctx: Context, name: str, arguments: dict[str, Any]) -> str:
        try:
            await ctx.tool(name, **arguments)
        except ToolError as error:
            return str(error)
        raise AssertionError("the tool took them")


async def test_agents_of_a_worker_are_shown_with_the_place_of_their_faults(
    shared: System, player: PlayedWorker, cli: Cli, caplog: pytest.LogCaptureFixture
) -> None:
    step = {"key": "r", "agent": "reworked", "retry": {"max_attempts": 2, "initial_s": 0.01}}
    async with running(cli.url, Classifier, Reworked, Caller, key=shared.key):
        broken = await shared.start("classifier", input={})
        changed = await shared.start(plan={"kind": "graph", "steps": [step]})
        called = await shared.start("caller")
        for run_id in (broken, changed, called):
            await shared.ended(run_id)
    line = Classifier.execute.__code__.co_firstlineno + 1
    told = await cli.shown(broken, traceback=True)
    assert "failed: KeyError: 'ticket' (" in told and f"test_cli_runs.py:{line})" in told and 'return ctx.input["ticket"]' in told

    assert "r: 2 recorded results were not used, so the agent's code was changed between its attempts: s0, s1" in await cli.shown(
        changed
    )
    [logged] = [record for record in caplog.records if record.getMessage() == "recorded_keys_not_used"]
    assert logged.levelname == "WARNING"
    assert {"count": 2, "why": "the agent's code was changed between its attempts"}.items() <= vars(logged)["fields"].items()

    wrong, unknown = (await shared.run(called))["result"]
    assert wrong == (
        'arguments of tool \'math.add\': /a: "x" is not of type "integer"; '
        "Additional properties are not allowed ('c' was unexpected)"
    )
    assert unknown == "no tool 'math.ad' is registered; did you mean 'math.add'?"
