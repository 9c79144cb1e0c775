"""Every command against a server whose answers hold what a terminal would obey."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer

from api.cli.main import app
from tests.kit.hostile_server import CALL, HOSTILE, KEY, PROJECT, RUN, Hostile

FLOW_FILE = str(Path(__file__).parents[1] / "data" / "flow.yaml")
DEFINITION = Path(__file__).parents[1] / "golden" / "events" / "trigger.created.v1.json"
"""A JSON object with a name."""
ONLY_LOCAL = {"up", "console", "serve", "migrate", "worker", "demo", "restored", "nats list", "nats prune",
              "nats grant", "nats revoke", "nats config", "roles list",
              "tenants create", "tenants list", "commands crew", "version", "diff", "cases add", "cases run"}  # fmt: skip
"""Commands that do not show answers of a server; differences of two runs are tried by themselves.

They write through the same functions (tests/architecture/test_output.py)."""
ARGUMENTS: dict[str, list[str]] = {
    "runs start": ["writer"],
    "runs list": [],
    "runs show": [str(RUN)],
    "runs explain": [str(RUN)],
    "runs watch": [str(RUN)],
    "runs cancel": [str(RUN)],
    "runs pause": [str(RUN)],
    "runs priority": [str(RUN), "high"],
    "bulk list": [],
    "bulk show": [str(RUN)],
    "bulk cancel": [str(RUN)],
    "runs resume": [str(RUN)],
    "runs stuck": ["--for", "0s"],
    "runs skip-step": [str(RUN), "a", "--reason", "r"],
    "runs force-step": [str(RUN), "a", "--result", "1", "--reason", "r"],
    "runs dispatch": [str(RUN), "a", "--reason", "r"],
    "runs deadline": [str(RUN), "10m", "--reason", "r"],
    "runs retry": [str(RUN), "own", "--reason", "r", "--agent-version", "own=1"],
    "runs signal": [str(RUN), "go"],
    "runs messages": [str(RUN)],
    "runs logs": [str(RUN)],
    "runs calls": [str(RUN)],
    "runs journal": [str(RUN)],
    "runs result": [str(RUN)],
    "blobs put": [__file__],
    "blobs get": ["0" * 64, "-o", "/no/such/folder/x"],
    "blobs list": [],
    "blobs show": ["0" * 64],
    "blobs delete": ["0" * 64],
    "runs compensation": [str(RUN)],
    "runs compensate": [str(RUN), "--reason", "r"],
    "runs resume-compensation": [str(RUN), "--reason", "r"],
    "runs fork": [str(RUN), "--reason", "r"],
    "runs forks": [str(RUN)],
    "plans check": [__file__.rpartition("/tests/")[0] + "/tests/golden/events/run.started.v4.json"],
    "schedules list": [],
    "schedules show": ["nightly"],
    "schedules create": ["nightly", "--every", "1d", "--agent", "a"],
    "schedules change": ["nightly", "--overlap", "skip"],
    "schedules pause": ["nightly"],
    "schedules resume": ["nightly"],
    "schedules run-now": ["nightly"],
    "schedules preview": ["--every", "1d"],
    "schedules remove": ["nightly"],
    "projects list": [],
    "projects create": ["name"],
    "projects remove": [str(PROJECT)],
    "keys list": [],
    "keys show": [str(KEY)],
    "keys create": ["label", "--role", "owner"],
    "keys issue": ["label", "--role", "owner"],
    "keys rotate": [str(KEY)],
    "keys revoke": [str(KEY)],
    "events tail": ["--no-follow"],
    "events show": ["3"],
    "events why": ["3"],
    "agents list": [],
    "agents show": [HOSTILE],
    "workers list": [],
    "tools list": [],
    "tools show": [HOSTILE],
    "tools versions": ["mail"],
    "tools breaker": ["mail"],
    "tools create": ["mail", "--declaration", "{}"],
    "tools deprecate": ["mail"],
    "tools remove": ["mail"],
    "tools validate": ["mail", "--arguments", "{}"],
    "tools call": ["mail", "to=x"],
    "do": ["/query"],
    "commands list": [],
    "commands show": ["flow"],
    "workflows list": [],
    "workflows show": ["flow"],
    "workflows versions": ["flow"],
    "workflows create": [FLOW_FILE],
    "workflows update": [FLOW_FILE],
    "workflows import": [FLOW_FILE],
    "workflows export": ["flow@1"],
    "workflows diff": ["flow"],
    "workflows draft": [FLOW_FILE],
    "workflows publish": ["flow"],
    "workflows revert": ["flow@1"],
    "workflows deprecate": ["flow"],
    "workflows reinstate": ["flow"],
    "budgets list": [],
    "budgets show": ["01900000-0000-7000-8000-000000000001"],
    "budgets set": ["tenant", "calls=1"],
    "budgets lift": ["01900000-0000-7000-8000-000000000001", "--add", "calls=1", "--reason", "why"],
    "budgets remove": ["01900000-0000-7000-8000-000000000001"],
    "usage": [],
    "triggers list": [],
    "triggers show": ["odd"],
    "triggers create": [str(DEFINITION)],
    "triggers change": ["review.failures", str(DEFINITION)],
    "triggers pause": ["odd"],
    "triggers resume": ["odd"],
    "triggers remove": ["odd"],
    "triggers rotate": ["odd"],
    "triggers firings": ["odd"],
    "triggers test": ["odd"],
    "invocations list": [],
    "invocations show": [str(CALL)],
    "invocations cancel": [str(CALL)],
    "invocations resolve": [str(CALL), "--result", "null", "--reason", "r"],
    "inbox list": ["--all"],
    "inbox show": [str(CALL)],
    "inbox approve": [str(CALL)],
    "inbox deny": [str(CALL), "--reason", "r"],
    "approvals policies list": [],
    "approvals policies show": ["odd"],
    "approvals policies publish": ["odd", '{"rules": [{}]}'],
    "approvals policies remove": ["odd"],
    "projections list": [],
    "projections rebuild": ["runs"],
    "projections rollback": ["runs"],
    "projections swap": ["runs"],
    "projections cancel": ["runs"],
    "projections drop": ["runs"],
    "projections parked": [],
    "projections retry": ["runs"],
    "audit list": [],
    "audit export": [],
    "replay": [str(RUN)],
    "verify": [],
    "doctor": [],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield " ".join(path)


def test_every_command_is_tried_or_shows_no_answer_of_a_server() -> None:
    assert set(leaves(typer.main.get_command(app))) == {*ONLY_LOCAL, *ARGUMENTS}


@pytest.mark.parametrize("form", ["people", "programs"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_nothing_that_a_terminal_obeys_comes_through(
    name: str, form: str, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDELOG_URL", url)
    monkeypatch.setenv("TIDELOG_API_KEY", "tl_" + "k" * 43)
    with contextlib.suppress(SystemExit):
        app([*name.split(), *ARGUMENTS[name], *(["--json"] if form == "programs" else [])], standalone_mode=False)
    written = capsys.readouterr()
    assert "RED" in written.out + written.err or name == "doctor", written
    for line in (written.out + written.err).split("\n"):
        assert line.isprintable(), line
        assert not re.match(r"(error: )?\W*FAKE", line), line
    assert "😄" not in written.out, "a value was changed"
    if form == "programs" and written.out:
        decoded, rest = json.JSONDecoder(), written.out
        while rest.strip():
            document, end = decoded.raw_decode(rest.lstrip())
            rest = rest.lstrip()[end:]
            assert HOSTILE in _strings(document) or name == "doctor"


def _strings(value: Any) -> set[str]:
    match value:
        case str():
            return {value}
        case list():
            return set().union(*map(_strings, value))
        case dict():
            return set().union(*map(_strings, [*value, *value.values()]))
    return set()


def test_differences_of_runs_and_of_code_come_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    from api.cli import diff, dry_run
    from application.looking_back.divergence import RunDifference
    from tidelog.testing import Divergence, Replayed

    found = RunDifference(HOSTILE, HOSTILE, "arguments", json.dumps(HOSTILE, ensure_ascii=False), None, 1, None).document()
    for other in ("b", "a"):
        change = {"path": HOSTILE, "before": HOSTILE, "after": None}
        shown = {"run_id": "a", "with_id": other, "position": 1, "with_position": 2, "count": 2, "same": 0, "data": [found] * 2}
        diff.show({**shown, "state": [change]})
    diverged = Divergence(HOSTILE, "other arguments", HOSTILE, HOSTILE, {HOSTILE: HOSTILE})
    dry_run.show([Replayed(HOSTILE, HOSTILE, divergences=[diverged])])
    written = capsys.readouterr()
    assert written.out.count("RED") >= 8
    for line in (written.out + written.err).split("\n"):
        assert line.isprintable(), line
